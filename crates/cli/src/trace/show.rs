//! Output of a trace for people, for scripts and for `trace-cmd`.

use crate::exit::{Fail, OrStatus, Status};
use kho_trace::Taken;
use kho_trace::meta::{ArrayMeta, Meta, in_ns};
use kho_trace::printf::push_safe;
use kho_trace::read::{Buffer, Knowledge, Merge, Record};
use kho_trace::ring::PageLayout;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::Write;

/// Selection of the events that are shown.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// CPUs whose events are shown; all CPUs if the list is empty.
    pub cpus: Vec<u32>,
    /// Instance whose events are shown; the top level if the name is empty; all instances if `None`.
    pub instance: Option<String>,
    /// Time before which no events are shown.
    pub since: Option<Since>,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Since {
    /// Time on the clock of the trace, in seconds (or units, if the clock does not count time).
    Clock(f64),
    /// Time before the newest event, in seconds or units. With several clocks, the newest event of each clock counts.
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
    /// The chosen buffers, grouped by clock: times of different clocks do not tell which event came first.
    clocks: Vec<Clock<'a>>,
    instance: Option<String>,
}

/// Buffers with comparable times.
struct Clock<'a> {
    /// Base of the times, see [`time_base`].
    base: &'a str,
    buffers: Vec<Buffer<'a>>,
    /// Time before which events are not shown.
    since: u64,
}

impl<'a> Clock<'a> {
    /// Groups the buffers by clock. The clocks are in the order of their first buffers.
    fn sort(meta: &'a Meta, buffers: impl Iterator<Item = Buffer<'a>>) -> Vec<Self> {
        let mut clocks: Vec<Self> = Vec::new();
        for buffer in buffers {
            let base = meta
                .array(buffer.array)
                .map_or("local", ArrayMeta::time_base);
            match clocks.iter_mut().find(|clock| clock.base == base) {
                Some(clock) => clock.buffers.push(buffer),
                None => clocks.push(Self {
                    base,
                    buffers: vec![buffer],
                    since: 0,
                }),
            }
        }
        clocks
    }

    /// Returns the time stamp that a record has at the moment `since`, in units of this trace's clock.
    fn time(&self, since: Since, layout: PageLayout) -> u64 {
        let unit = if in_ns(self.base) { 1e9 } else { 1.0 };
        // Times beyond 2^53 ns, a hundred days, are not exact to the nanosecond.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let units = |value: f64| (value * unit).round() as u64;
        match since {
            Since::Clock(value) => units(value),
            Since::Ago(value) => {
                let times = Merge::new(&self.buffers, layout).map(|record| record.event.time);
                times.max().unwrap_or(0).saturating_sub(units(value))
            }
        }
    }

    /// Returns the name of the clock, and the names of the instances that use it.
    fn title(&self) -> String {
        let mut names: Vec<&str> = self.buffers.iter().map(|buffer| buffer.array).collect();
        names.dedup();
        let names: Vec<String> = names
            .into_iter()
            .map(|name| match name {
                "" => "the top level".to_owned(),
                name => format!("instance {name}"),
            })
            .collect();
        // The names of clock and instances come from another kernel, so they are not trusted.
        let mut title = String::new();
        let whole = format!("clock {}: {}", self.base, names.join(", "));
        push_safe(&mut title, &whole.replace('\n', " "));
        title
    }
}

impl<'a> Shown<'a> {
    /// Chooses events of a trace.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`] if the trace has no such CPU or instance. [`Status::BlobCorrupt`] if none of the pages
    /// can be read. [`Status::Usage`] for a time on the clock of the trace if there are several clocks.
    pub fn new(taken: &'a Taken, choice: &Choice) -> Result<Self, Fail> {
        let meta = &taken.meta;
        check(meta, choice)?;
        let knowledge = Knowledge::new(meta).or_status(Status::BlobCorrupt)?;
        let buffers = taken
            .views()
            .into_iter()
            .filter(|b| choice.cpus.is_empty() || choice.cpus.contains(&b.cpu))
            .filter(|b| {
                choice
                    .instance
                    .as_deref()
                    .is_none_or(|name| name == b.array)
            });
        let mut clocks = Clock::sort(meta, buffers);
        if let Some(since) = choice.since {
            if matches!(since, Since::Clock(_)) && clocks.len() > 1 {
                return Err(several(&clocks));
            }
            for clock in &mut clocks {
                clock.since = clock.time(since, knowledge.layout);
            }
        }
        Ok(Self {
            taken,
            knowledge,
            clocks,
            instance: choice.instance.clone(),
        })
    }

    /// Returns a remark about the times in a `trace.dat`; `None` if there is only one clock.
    pub fn dat_remark(&self) -> Option<String> {
        (self.clocks.len() > 1).then(|| {
            format!(
                "note: the times in it are of different clocks, and trace-cmd sorts by them all the same ({}): \
                 --instance NAME writes one",
                titles(&self.clocks)
            )
        })
    }

    /// Calls `each` with every chosen event of this clock, oldest first. Returns a message for each problem in the
    /// pages.
    fn each<E>(
        &self,
        clock: &Clock<'_>,
        mut each: impl FnMut(&Buffer<'_>, &Record<'_>) -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        let mut merge = Merge::new(&clock.buffers, self.knowledge.layout);
        for record in merge.by_ref() {
            if record.event.time < clock.since {
                continue;
            }
            if let Some(buffer) = clock.buffers.get(record.buffer) {
                each(buffer, &record)?;
            }
        }
        Ok(merge.problems().iter().map(ToString::to_string).collect())
    }

    /// Writes lines in the format of the kernel's file `trace`. Lines of an instance begin with its name. With several
    /// clocks, the lines of each clock form a section under a title. Returns a message for each problem in the pages.
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn text(&self, out: &mut dyn Write) -> std::io::Result<Vec<String>> {
        let meta = &self.taken.meta;
        let mut problems = Vec::new();
        for clock in &self.clocks {
            if self.clocks.len() > 1 {
                writeln!(out, "# {}", clock.title())?;
            }
            problems.extend(self.lines(meta, clock, out)?);
        }
        Ok(problems)
    }

    fn lines(
        &self,
        meta: &Meta,
        clock: &Clock<'_>,
        out: &mut dyn Write,
    ) -> std::io::Result<Vec<String>> {
        self.each(clock, |buffer, record| {
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

    /// Returns an object for each event, which exists only during the writing. With several clocks, the events of each
    /// clock form a section. Adds a message to `problems` for each problem in the pages.
    pub fn events<'e>(&'e self, problems: &'e RefCell<Vec<String>>) -> impl Serialize + use<'e> {
        Events {
            shown: self,
            problems,
        }
    }

    fn object(&self, buffer: &Buffer<'_>, record: &Record<'_>) -> Value {
        let data = record.event.data;
        let pid = Knowledge::pid(data);
        let format = self.knowledge.format(data);
        let array = self.taken.meta.array(buffer.array);
        json!({
            "instance": buffer.array,
            "cpu": buffer.cpu,
            "time": record.event.time,
            "clock": array.map(|array| &array.clock),
            "task": self.knowledge.names.task(pid),
            "pid": pid,
            "process": self.knowledge.names.group(pid),
            "flags": Knowledge::flags(data),
            "system": format.map(|f| &f.system),
            "event": format.map(|f| &f.name),
            "fields": self.knowledge.fields(data),
            "text": self.knowledge.body(array, &record.event),
        })
    }

    /// Writes a `trace.dat` with all chosen buffers. `since` has no effect, because pages stay whole.
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn dat(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut meta = self.taken.meta.clone();
        if let Some(name) = &self.instance {
            meta.arrays.retain(|array| array.name == *name);
        }
        let buffers: Vec<Buffer<'_>> = self
            .clocks
            .iter()
            .flat_map(|clock| clock.buffers.iter().copied())
            .collect();
        kho_trace::dat::write(&meta, &buffers, out)
    }
}

/// Result of [`Shown::events`].
struct Events<'a> {
    shown: &'a Shown<'a>,
    problems: &'a RefCell<Vec<String>>,
}

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut events = to.serialize_seq(None)?;
        for clock in &self.shown.clocks {
            let unread = self.shown.each(clock, |buffer, record| {
                events.serialize_element(&self.shown.object(buffer, record))
            })?;
            self.problems.borrow_mut().extend(unread);
        }
        events.end()
    }
}

fn titles(clocks: &[Clock<'_>]) -> String {
    let titles: Vec<String> = clocks.iter().map(Clock::title).collect();
    titles.join("; ")
}

/// Makes the failure for a time that is a different moment on each clock.
fn several(clocks: &[Clock<'_>]) -> Fail {
    Fail::new(
        Status::Usage,
        format!(
            "--since TIME is of one clock, and there are several: {}",
            titles(clocks)
        ),
    )
    .fix("choose with --instance, or count from the newest event: --since -SECONDS")
}

/// Checks that the trace has the chosen CPUs and the chosen instance.
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

#[cfg(test)]
mod tests {
    use super::*;
    use kho_trace::meta::{CpuMeta, EventText};
    use kho_trace::take::TakenBuffer;

    const HEADER_PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
        \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
        \tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";
    const FORMAT: &str = "name: tick\nID: 300\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:u32 number;\toffset:8;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"number=%u\", REC->number\n";

    /// Returns a page with one event, at `seconds` seconds.
    fn page(seconds: u64, number: u32) -> Vec<u8> {
        let mut out = (seconds * 1_000_000_000).to_le_bytes().to_vec();
        out.extend(16u64.to_le_bytes());
        out.extend(3u32.to_le_bytes());
        out.extend([300u16.to_le_bytes(), [0, 0]].concat());
        out.extend(7u32.to_le_bytes());
        out.extend(number.to_le_bytes());
        out.resize(4096, 0);
        out
    }

    /// Events at 1 to 4 seconds: CPU 0, CPU 1, an instance on CPU 0, CPU 0.
    fn taken() -> Taken {
        let cpus = |count| {
            (0..count)
                .map(|cpu| CpuMeta {
                    cpu,
                    ..CpuMeta::default()
                })
                .collect()
        };
        let array = |name: &str, count| ArrayMeta {
            name: name.to_owned(),
            clock: "local".to_owned(),
            cpus: cpus(count),
            ..ArrayMeta::default()
        };
        let buffer = |array: &str, cpu, bytes| TakenBuffer {
            array: array.to_owned(),
            cpu,
            page_size: 4096,
            bytes,
        };
        Taken {
            meta: Meta {
                version: 1,
                header_page: HEADER_PAGE.to_owned(),
                cmdlines: "7 sh\n".to_owned(),
                events: vec![EventText {
                    system: "test".to_owned(),
                    format: FORMAT.to_owned(),
                }],
                arrays: vec![array("", 3), array("net", 3)],
                ..Meta::default()
            },
            buffers: vec![
                buffer("", 0, [page(1, 10), page(4, 40)].concat()),
                buffer("", 1, page(2, 20)),
                buffer("net", 0, page(3, 30)),
            ],
            log: Vec::new(),
        }
    }

    /// Returns the events as a script gets them.
    fn events(shown: &Shown<'_>) -> Vec<Value> {
        let problems = RefCell::default();
        let events = serde_json::to_value(shown.events(&problems)).unwrap();
        assert!(problems.borrow().is_empty(), "{problems:?}");
        events.as_array().unwrap().clone()
    }

    /// A reader that closes the pipe after this number of bytes.
    struct Leaves(usize);

    impl Write for Leaves {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(buf.len())
                .ok_or(std::io::ErrorKind::BrokenPipe)?;
            Ok(buf.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn events_are_written_while_others_are_still_to_be_read() {
        let mut taken = taken();
        // The last page has a length beyond its end.
        taken.buffers[0].bytes[4096 + 9] = 0xff;
        let choice = Choice::default();
        let shown = Shown::new(&taken, &choice).unwrap();
        let found = |room| {
            let problems = RefCell::default();
            let written = serde_json::to_writer(Leaves(room), &shown.events(&problems));
            (written.is_ok(), problems.into_inner().len())
        };
        assert_eq!(found(1 << 20), (true, 1));
        assert_eq!(found(10), (false, 0));
    }

    /// Returns the numbers of the shown events, in order.
    fn numbers(choice: &Choice) -> Vec<u64> {
        let taken = taken();
        let events = events(&Shown::new(&taken, choice).unwrap());
        let number = |event: &Value| event["fields"]["number"].as_u64().unwrap();
        events.iter().map(number).collect()
    }

    #[test]
    fn choices() {
        let choice = |cpus: &[u32], instance: Option<&str>, since: Option<&str>| Choice {
            cpus: cpus.to_vec(),
            instance: instance.map(str::to_owned),
            since: since.map(|text| text.parse().unwrap()),
        };
        assert_eq!(numbers(&Choice::default()), [10, 20, 30, 40]);
        assert_eq!(numbers(&choice(&[0], None, None)), [10, 30, 40]);
        assert_eq!(numbers(&choice(&[1, 2], None, None)), [20]);
        assert_eq!(numbers(&choice(&[2], None, None)), [0u64; 0]);
        assert_eq!(numbers(&choice(&[], Some("net"), None)), [30]);
        assert_eq!(numbers(&choice(&[], Some(""), None)), [10, 20, 40]);
        assert_eq!(numbers(&choice(&[], None, Some("2"))), [20, 30, 40]);
        assert_eq!(numbers(&choice(&[], None, Some("2.5"))), [30, 40]);
        assert_eq!(numbers(&choice(&[], None, Some("-1"))), [30, 40]);
        assert_eq!(numbers(&choice(&[0], Some(""), Some("-2s"))), [40]);
        let taken = taken();
        for bad in [choice(&[3], None, None), choice(&[], Some("x"), None)] {
            let fail = Shown::new(&taken, &bad).err().unwrap();
            assert_eq!(fail.status, Status::NoSuchEntry);
        }
        let mut out = Vec::new();
        let shown = Shown::new(&taken, &choice(&[0], None, Some("-1"))).unwrap();
        assert!(shown.text(&mut out).unwrap().is_empty());
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "net:               sh-7       [000] .....     3.000000: tick: number=30\n              sh-7       [000] .....     4.000000: tick: number=40\n"
        );
    }

    /// Shows the trace with `clock` as the clock of the instance.
    fn with_clock(clock: &str, since: Option<&str>) -> Result<(String, Option<String>), Fail> {
        let mut taken = taken();
        taken.meta.arrays[1].clock = clock.to_owned();
        let choice = Choice {
            since: since.map(|text| text.parse().unwrap()),
            ..Choice::default()
        };
        let shown = Shown::new(&taken, &choice)?;
        let mut out = Vec::new();
        assert!(shown.text(&mut out).unwrap().is_empty());
        let events = events(&shown);
        let numbers: Vec<String> = events
            .iter()
            .map(|event| {
                format!(
                    "{}{}",
                    event["clock"].as_str().unwrap(),
                    event["fields"]["number"]
                )
            })
            .collect();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.split("number=").last().unwrap())
            .collect();
        Ok((
            format!("{} | {}", lines.join(" "), numbers.join(" ")),
            shown.dat_remark(),
        ))
    }

    #[test]
    fn times_of_different_clocks_are_not_sorted_into_each_other() {
        // These clocks read the same counter in different ways.
        for same in ["local", "global", "perf"] {
            let shown = with_clock(same, None).unwrap();
            let want = format!("10 20 30 40 | local10 local20 {same}30 local40");
            assert_eq!(shown, (want, None));
        }
        let (shown, _) = with_clock("m\x1b[2J\no", None).unwrap();
        assert!(
            shown.contains("# clock m\\u{1b}[2J o: instance net 30"),
            "{shown}"
        );
        let (shown, remark) = with_clock("mono", None).unwrap();
        assert_eq!(
            shown,
            "# clock local: the top level 10 20 40 # clock mono: instance net 30 \
             | local10 local20 local40 mono30"
        );
        assert!(remark.unwrap().contains("clock mono: instance net"));
        // The newest event of each clock.
        let (shown, _) = with_clock("boot", Some("-0")).unwrap();
        assert!(shown.ends_with(" | local40 boot30"), "{shown}");
        // A clock that does not count nanoseconds has its own units.
        let (shown, _) = with_clock("counter", Some("-1")).unwrap();
        assert!(shown.ends_with(" | local40 counter30"), "{shown}");
        let fail = with_clock("mono", Some("2")).unwrap_err();
        assert_eq!(fail.status, Status::Usage);
        assert!(with_clock("global", Some("2")).is_ok());
    }

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
