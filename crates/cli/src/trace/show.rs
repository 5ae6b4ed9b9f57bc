//! A trace for people, for scripts and for `trace-cmd`.

use crate::exit::{Fail, OrStatus, Status, chain};
use kho_trace::Taken;
use kho_trace::meta::Meta;
use kho_trace::read::{Buffer, Knowledge, Merge, Record};
use serde_json::{Value, json};
use std::io::Write;

/// Which events are shown.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// These CPUs only; all when empty.
    pub cpus: Vec<u32>,
    /// This instance only; the top level for the empty name.
    pub instance: Option<String>,
    /// Not before this.
    pub since: Option<Since>,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Since {
    /// On the clock of the trace: seconds (or units, where the clock does not count time).
    Clock(f64),
    /// So long before the newest event.
    Ago(f64),
}

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('-').unwrap_or(text);
        let value: f64 = number
            .strip_suffix('s')
            .unwrap_or(number)
            .parse()
            .map_err(|_| {
                format!("{text:?} is no time: seconds such as 12.5, or -3 for the last three")
            })?;
        if !value.is_finite() || value < 0.0 {
            return Err(format!("{text:?} is no time"));
        }
        Ok(if text.starts_with('-') {
            Self::Ago(value)
        } else {
            Self::Clock(value)
        })
    }
}

/// The trace of one kernel, ready to be shown.
pub struct Shown<'a> {
    taken: &'a Taken,
    knowledge: Knowledge,
    buffers: Vec<Buffer<'a>>,
    since: u64,
    instance: Option<String>,
}

impl<'a> Shown<'a> {
    /// What is chosen of a trace.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`] for a CPU or an instance that is not there, [`Status::BlobCorrupt`] when pages cannot be
    /// read at all.
    pub fn new(taken: &'a Taken, choice: &Choice) -> Result<Self, Fail> {
        let meta = &taken.meta;
        check(meta, choice)?;
        let knowledge = Knowledge::new(meta).or_status(Status::BlobCorrupt)?;
        let buffers: Vec<Buffer<'a>> = taken
            .views()
            .into_iter()
            .filter(|b| choice.cpus.is_empty() || choice.cpus.contains(&b.cpu))
            .filter(|b| {
                choice
                    .instance
                    .as_deref()
                    .is_none_or(|name| name == b.array)
            })
            .collect();
        let mut shown = Self {
            taken,
            knowledge,
            buffers,
            since: 0,
            instance: choice.instance.clone(),
        };
        shown.since = shown.since(choice.since);
        Ok(shown)
    }

    fn merge(&self) -> Merge<'_> {
        Merge::new(&self.buffers, self.knowledge.layout)
    }

    fn since(&self, since: Option<Since>) -> u64 {
        let in_ns = self.taken.meta.arrays.iter().all(|array| array.in_ns());
        let unit = if in_ns { 1e9 } else { 1.0 };
        // Times beyond 2^53 ns lose their last digits: a hundred days to the nanosecond.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let units = |value: f64| (value * unit).round() as u64;
        match since {
            None => 0,
            Some(Since::Clock(value)) => units(value),
            Some(Since::Ago(value)) => {
                let newest = self.merge().map(|record| record.event.time).max();
                newest.unwrap_or(0).saturating_sub(units(value))
            }
        }
    }

    /// Calls `each` with every event that is chosen, oldest first; gives what could not be read.
    fn each(
        &self,
        mut each: impl FnMut(&Buffer<'_>, &Record<'_>) -> std::io::Result<()>,
    ) -> std::io::Result<Vec<String>> {
        let mut merge = self.merge();
        for record in merge.by_ref() {
            if record.event.time < self.since {
                continue;
            }
            if let Some(buffer) = self.buffers.get(record.buffer) {
                each(buffer, &record)?;
            }
        }
        Ok(merge.problems().iter().map(ToString::to_string).collect())
    }

    /// Lines as the kernel's file `trace` has them; those of an instance have its name in front. Gives what could not
    /// be read.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn text(&self, out: &mut dyn Write) -> std::io::Result<Vec<String>> {
        let meta = &self.taken.meta;
        self.each(|buffer, record| {
            if let Some(missed) = record.missed {
                let count = if missed > 0 {
                    format!("{missed} ")
                } else {
                    String::new()
                };
                writeln!(out, "CPU:{} [LOST {count}EVENTS]", buffer.cpu)?;
            }
            if !buffer.array.is_empty() {
                write!(out, "{}: ", buffer.array)?;
            }
            writeln!(out, "{}", self.knowledge.line(meta, buffer, &record.event))
        })
    }

    /// One object for each event, and what could not be read.
    ///
    /// # Errors
    ///
    /// None.
    pub fn json(&self) -> std::io::Result<(Vec<Value>, Vec<String>)> {
        let mut events = Vec::new();
        let problems = self.each(|buffer, record| {
            let data = record.event.data;
            let pid = Knowledge::pid(data);
            let format = self.knowledge.format(data);
            events.push(json!({
                "instance": buffer.array,
                "cpu": buffer.cpu,
                "time": record.event.time,
                "task": self.knowledge.names.task(pid),
                "pid": pid,
                "process": self.knowledge.names.group(pid),
                "flags": Knowledge::flags(data),
                "system": format.map(|f| &f.system),
                "event": format.map(|f| &f.name),
                "fields": self.knowledge.fields(data),
                "text": self.knowledge.body(data),
            }));
            Ok(())
        })?;
        Ok((events, problems))
    }

    /// A `trace.dat` of everything that is chosen; `since` has no say, pages stay whole.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn dat(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut meta = self.taken.meta.clone();
        if let Some(name) = &self.instance {
            meta.arrays.retain(|array| array.name == *name);
        }
        kho_trace::dat::write(&meta, &self.buffers, out)
    }
}

/// That what is chosen is there.
fn check(meta: &Meta, choice: &Choice) -> Result<(), Fail> {
    let missing = |what: String, have: Vec<String>| {
        Fail::new(Status::NoSuchEntry, what).fix(format!("there are: {}", have.join(", ")))
    };
    if let Some(name) = &choice.instance
        && meta.array(name).is_none()
    {
        let names = meta
            .arrays
            .iter()
            .map(|a| a.name.clone())
            .filter(|n| !n.is_empty());
        return Err(missing(
            format!("the trace has no instance {name}"),
            names.collect(),
        ));
    }
    let cpus: Vec<u32> = meta
        .arrays
        .iter()
        .flat_map(|a| a.cpus.iter().map(|c| c.cpu))
        .collect();
    if let Some(cpu) = choice.cpus.iter().find(|cpu| !cpus.contains(cpu)) {
        let highest = cpus
            .iter()
            .max()
            .map_or_else(|| "none".to_owned(), |max| format!("0 to {max}"));
        return Err(missing(
            format!("the traced kernel had no CPU {cpu}"),
            vec![highest],
        ));
    }
    Ok(())
}

/// What to call an error of writing.
pub fn write_fail(what: &str, err: &std::io::Error) -> Fail {
    let status = match err.kind() {
        std::io::ErrorKind::StorageFull => Status::NoSpace,
        _ => Status::Failed,
    };
    Fail::new(status, format!("cannot write {what}: {}", chain(err)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!("12.5".parse(), Ok(Since::Clock(12.5)));
        assert_eq!("-3".parse(), Ok(Since::Ago(3.0)));
        assert_eq!("-3s".parse(), Ok(Since::Ago(3.0)));
        for bad in ["", "-", "x", "nan", "inf", "--1", "1m"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
    }
}
