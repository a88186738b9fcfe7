//! The search for a sequence that Redis and the model take differently, and for the shortest like it.

use std::time::Duration;

use crate::call::Step;
use crate::comparison::{Comparison, Difference};

/// Between the steps of a sequence that is being shortened: each, and all together.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSES: Duration = Duration::from_millis(150);

pub struct Search {
    pub comparison: Comparison,
    found: Option<Found>,
}

/// The shortest sequence so far, and what is wrong at its end.
struct Found {
    steps: String,
    length: usize,
    why: String,
}

impl Search {
    pub fn start() -> Self {
        Self { comparison: Comparison::start(), found: None }
    }

    /// Tries a sequence. Once one was found, those that come are variants of it: what is in them after the step at
    /// which the two differed is left out, and since fewer steps take less time, so that what lapsed in the longer
    /// sequence no longer does, they are tried slowly as well.
    pub fn attempt(&mut self, steps: &[Step]) -> Result<(), String> {
        let Some(found) = &self.found else { return self.play(steps, Duration::ZERO) };
        let steps = &steps[..steps.len().min(found.length)];
        if shown(steps) == found.steps {
            return Err(found.why.clone());
        }
        let pause = LONGEST_PAUSE.min(LONGEST_PAUSES / steps.len() as u32);
        self.play(steps, Duration::ZERO)?;
        self.play(steps, pause)
    }

    /// The shortest sequence, a step a line, and what differs.
    pub fn report(&self) -> String {
        self.found.as_ref().map_or(String::new(), |found| format!("{}{}", found.steps, found.why))
    }

    fn play(&mut self, steps: &[Step], pause: Duration) -> Result<(), String> {
        self.comparison.play(steps, pause).map_err(|Difference { length, why }| {
            self.found = Some(Found { steps: shown(&steps[..length]), length, why: why.clone() });
            why
        })
    }
}

fn shown(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("  {step:?}\n")).collect()
}
