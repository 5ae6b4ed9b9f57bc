//! Scripts as text: a [`Failure`](crate::Failure) prints one, and the tests replay them.
//!
//! ```text
//! # Words about it.
//! machine bios-2g
//! seed 7
//! Keep(2000000)
//! Load(0, 40, false, Never)
//! Exec(true)          # Hop
//! ```
//!
//! A comment after `#` may state the outcome of the operation. If the comment is one of `Done`, `Nothing`, `Hop` or
//! `ColdBoot`, or `Refused` with or without a part of the message in quotes, a replay compares the outcome.

use crate::Template;
use crate::op::{Op, Outcome};
use crate::world::World;

/// A script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The machine.
    pub template: Template,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Operations, each with the comment on its outcome.
    pub ops: Vec<(Op, String)>,
}

impl Script {
    /// Parses a script.
    ///
    /// # Errors
    ///
    /// The line and its fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut template, mut seed, mut ops) = (None, 0, Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |what: String| format!("line {number}: {what}");
            let (code, said) = line.split_once('#').unwrap_or((line, ""));
            let code = code.trim();
            if code.is_empty() {
                continue;
            }
            if let Some(name) = code.strip_prefix("machine ") {
                let found = Template::all()
                    .into_iter()
                    .find(|template| template.name == name.trim());
                template =
                    Some(found.ok_or_else(|| wrong(format!("no machine is called {name:?}")))?);
            } else if let Some(number) = code.strip_prefix("seed ") {
                seed = number
                    .trim()
                    .parse()
                    .map_err(|_| wrong(format!("{number:?} is no seed")))?;
            } else {
                ops.push((code.parse().map_err(wrong)?, said.trim().to_owned()));
            }
        }
        Ok(Self {
            template: template.ok_or("no machine is named")?,
            seed,
            ops,
        })
    }

    /// Runs the script on a new machine.
    ///
    /// # Errors
    ///
    /// A broken promise, or an outcome that differs from the script's.
    pub fn replay(&self) -> Result<World, String> {
        let mut world = World::new(self.template.clone(), self.seed)?;
        for (step, (op, said)) in self.ops.iter().enumerate() {
            let outcome = world
                .step(op)
                .map_err(|what| format!("step {step}, {op}: {what}"))?;
            let (name, message) = match &outcome {
                Outcome::Done => ("Done", ""),
                Outcome::Nothing => ("Nothing", ""),
                Outcome::Hop => ("Hop", ""),
                Outcome::ColdBoot => ("ColdBoot", ""),
                Outcome::Refused(message) => ("Refused", message.as_str()),
            };
            let (want, part) = said
                .split_once('(')
                .map_or((said.as_str(), ""), |(want, part)| (want, part));
            let part = part.trim_end_matches(')').trim_matches('"');
            let known = ["Done", "Nothing", "Hop", "ColdBoot", "Refused"].contains(&want);
            if known && (want != name || !message.contains(part)) {
                return Err(format!("step {step}, {op}: {outcome:?}, expected {said}"));
            }
        }
        Ok(world)
    }
}
