//! Phases: the order in which a handover may happen.
//!
//! ```text
//! Idle --activate--> Active --load--> Loaded --execute--> Executed
//!  ^                   |                |
//!  +------ abort ------+----------------+
//! ```
//!
//! Every activation gets a [`Generation`] that is never used again. The plan and the loaded image carry it, so an image
//! that was loaded before an abort cannot be executed after the abort: its generation is stale. The state machine is a
//! value: a command stores it between its invocations as [`Phase`] and last generation.

use core::fmt;
use thiserror::Error;

/// Names one active phase. Unique on this machine between two cold boots but for chance (2^-40 per boot).
///
/// The upper 40 bits are random per boot, the lower 24 count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The number as stored in the state tree.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// A generation read from where [`Generation::get`] was stored.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// A digest of the load: image, plan and content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Phase of a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No handover is under way.
    Idle,
    /// The producers write down their state or have written it down; the written state is immutable.
    Active(Generation),
    /// An image that carries this generation is loaded.
    Loaded(Generation, Fingerprint),
    /// The image was started. Only another boot leads out of this.
    Executed(Generation),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Active(generation) => write!(f, "active (generation {generation})"),
            Self::Loaded(generation, _) => write!(f, "loaded (generation {generation})"),
            Self::Executed(generation) => write!(f, "executed (generation {generation})"),
        }
    }
}

/// Why a step is not allowed now. The phase is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PhaseError {
    /// The step does not lead out of the current phase.
    #[error("cannot {step} now: the handover is {phase}")]
    WrongPhase {
        /// The attempted step.
        step: Step,
        /// The current phase.
        phase: Phase,
    },
    /// The image to be loaded or executed belongs to another, aborted activation.
    #[error(
        "cannot {step}: it was prepared for generation {given}, which has ended; the current one is {current}. Load again"
    )]
    Stale {
        /// The attempted step.
        step: Step,
        /// The generation that the image carries.
        given: Generation,
        /// The generation of the current phase.
        current: Generation,
    },
    /// The loaded image is not the image that is to be executed.
    #[error("cannot execute: {loaded} is loaded and {given} was expected. Load again")]
    Changed {
        /// Fingerprint of the image that was loaded.
        loaded: Fingerprint,
        /// Fingerprint of the image that the caller found right before the jump.
        given: Fingerprint,
    },
    /// All generations of this boot are used up.
    #[error("16777215 activations since boot: reboot before the next")]
    Exhausted,
}

/// A step, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`Machine::activate`].
    Activate,
    /// [`Machine::load`].
    Load,
    /// [`Machine::execute`].
    Execute,
    /// [`Machine::abort`].
    Abort,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Activate => "activate",
            Self::Load => "load",
            Self::Execute => "execute",
            Self::Abort => "abort",
        })
    }
}

/// Bits of a generation that count.
const COUNTER: u64 = (1 << 24) - 1;

/// The state machine. Each step either succeeds or changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    phase: Phase,
    last: Generation,
}

impl Machine {
    /// A machine just booted, with 64 random bits.
    pub const fn new(random: u64) -> Self {
        Self {
            phase: Phase::Idle,
            last: Generation(random & !COUNTER),
        }
    }

    /// Restores a state machine from its stored phase and [`Machine::last_generation`].
    ///
    /// The last generation counts as at least the generation of the phase, so that a torn store cannot bring a
    /// generation back.
    pub fn restore(phase: Phase, last: Generation) -> Self {
        let last = match phase {
            Phase::Idle => last,
            Phase::Active(g) | Phase::Loaded(g, _) | Phase::Executed(g) => last.max(g),
        };
        Self { phase, last }
    }

    /// The current phase.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The newest generation so far, to be stored beside the phase.
    pub const fn last_generation(&self) -> Generation {
        self.last
    }

    /// Goes from Idle to Active, under a generation never used before.
    ///
    /// # Errors
    ///
    /// [`PhaseError::WrongPhase`] unless idle, [`PhaseError::Exhausted`] after 2^24 - 1 activations.
    pub fn activate(&mut self) -> Result<Generation, PhaseError> {
        if self.phase != Phase::Idle {
            return Err(self.wrong(Step::Activate));
        }
        let count = self.last.0 & COUNTER;
        if count == COUNTER {
            return Err(PhaseError::Exhausted);
        }
        // INVARIANT: the counter is below its maximum, so the sum does not wrap.
        let generation = Generation(self.last.0.wrapping_add(1));
        self.last = generation;
        self.phase = Phase::Active(generation);
        Ok(generation)
    }

    /// Goes from Active to Loaded, once the kernel has taken the image that carries `generation`.
    ///
    /// # Errors
    ///
    /// [`PhaseError::WrongPhase`] unless active, [`PhaseError::Stale`] for another generation.
    pub fn load(
        &mut self,
        generation: Generation,
        fingerprint: Fingerprint,
    ) -> Result<(), PhaseError> {
        match self.phase {
            Phase::Active(current) => {
                fresh(Step::Load, generation, current)?;
                self.phase = Phase::Loaded(current, fingerprint);
                Ok(())
            }
            _ => Err(self.wrong(Step::Load)),
        }
    }

    /// Goes from Loaded to Executed, right before the jump. `generation` and `fingerprint` are those of the image that
    /// the caller finds loaded *now*.
    ///
    /// # Errors
    ///
    /// [`PhaseError::WrongPhase`] unless loaded; [`PhaseError::Stale`] or [`PhaseError::Changed`] if the image that the
    /// caller finds is not the one that was loaded.
    pub fn execute(
        &mut self,
        generation: Generation,
        fingerprint: Fingerprint,
    ) -> Result<(), PhaseError> {
        match self.phase {
            Phase::Loaded(current, loaded) => {
                fresh(Step::Execute, generation, current)?;
                if fingerprint != loaded {
                    return Err(PhaseError::Changed {
                        loaded,
                        given: fingerprint,
                    });
                }
                self.phase = Phase::Executed(current);
                Ok(())
            }
            _ => Err(self.wrong(Step::Execute)),
        }
    }

    /// Goes back to Idle from any phase but Executed; returns the generation that ended. Aborting twice is harmless.
    ///
    /// # Errors
    ///
    /// [`PhaseError::WrongPhase`] once executed.
    pub fn abort(&mut self) -> Result<Option<Generation>, PhaseError> {
        let ended = match self.phase {
            Phase::Idle => None,
            Phase::Active(generation) | Phase::Loaded(generation, _) => Some(generation),
            Phase::Executed(_) => return Err(self.wrong(Step::Abort)),
        };
        self.phase = Phase::Idle;
        Ok(ended)
    }

    const fn wrong(&self, step: Step) -> PhaseError {
        PhaseError::WrongPhase {
            step,
            phase: self.phase,
        }
    }
}

fn fresh(step: Step, given: Generation, current: Generation) -> Result<(), PhaseError> {
    if given == current {
        Ok(())
    } else {
        Err(PhaseError::Stale {
            step,
            given,
            current,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::string::ToString;
    use std::vec::Vec;

    const A: Fingerprint = Fingerprint([1; 32]);
    const B: Fingerprint = Fingerprint([2; 32]);

    #[test]
    fn the_straight_way() {
        let mut machine = Machine::new(0x1234_5678_9abc_def0);
        let generation = machine.activate().unwrap();
        assert_eq!(generation.get(), 0x1234_5678_9a00_0001);
        machine.load(generation, A).unwrap();
        machine.execute(generation, A).unwrap();
        assert_eq!(machine.phase(), Phase::Executed(generation));
        assert_eq!(
            machine.abort().unwrap_err().to_string(),
            "cannot abort now: the handover is executed (generation 0x123456789a000001)"
        );
    }

    #[test]
    fn an_image_loaded_before_an_abort_is_stale() {
        let mut machine = Machine::new(7);
        let old = machine.activate().unwrap();
        machine.load(old, A).unwrap();
        assert_eq!(machine.abort(), Ok(Some(old)));
        assert!(matches!(
            machine.execute(old, A),
            Err(PhaseError::WrongPhase { .. })
        ));
        let new = machine.activate().unwrap();
        assert_eq!(
            machine.load(old, A),
            Err(PhaseError::Stale {
                step: Step::Load,
                given: old,
                current: new
            })
        );
        machine.load(new, B).unwrap();
        assert_eq!(
            machine.execute(new, A),
            Err(PhaseError::Changed {
                loaded: B,
                given: A
            })
        );
        assert!(machine.execute(old, B).is_err());
        machine.execute(new, B).unwrap();
    }

    #[test]
    fn the_counter_never_reaches_into_the_random_bits() {
        let mut machine = Machine::restore(Phase::Idle, Generation(0xff_ffff));
        assert_eq!(machine.activate(), Err(PhaseError::Exhausted));
        assert_eq!(machine.phase(), Phase::Idle);
    }

    #[test]
    fn a_torn_store_does_not_bring_a_generation_back() {
        let mut machine = Machine::restore(Phase::Active(Generation(5)), Generation(3));
        machine.abort().unwrap();
        assert_eq!(machine.activate(), Ok(Generation(6)));
    }

    proptest! {
        #[test]
        fn no_generation_twice_and_no_execution_without_its_own_load(
            steps in proptest::collection::vec((0..4u8, 0..6usize, any::<bool>()), 0..60)
        ) {
            let mut machine = Machine::new(0);
            let mut given: Vec<Generation> = Vec::new();
            let mut loaded: Option<(Generation, Fingerprint)> = None;
            for (step, pick, print) in steps {
                let before = machine.clone();
                let print = if print { A } else { B };
                let some = given.get(given.len().saturating_sub(1 + pick)).copied();
                let result = match (step, some) {
                    (0, _) => machine.activate().map(|g| given.push(g)),
                    (1, Some(g)) => machine.load(g, print).map(|()| loaded = Some((g, print))),
                    (2, Some(g)) => {
                        let done = machine.execute(g, print);
                        if done.is_ok() {
                            prop_assert_eq!(loaded, Some((g, print)));
                            prop_assert_eq!(given.last(), Some(&g));
                        }
                        done
                    }
                    _ => machine.abort().map(|_| loaded = None),
                };
                if result.is_err() {
                    prop_assert_eq!(&machine, &before);
                }
                machine = Machine::restore(machine.phase(), machine.last_generation());
            }
            prop_assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
        }
    }
}
