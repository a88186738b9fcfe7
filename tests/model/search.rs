//! The search for a sequence on which Redis and the model differ, and for the shortest such sequence.

use std::time::Duration;

use crate::call::Step;
use crate::comparison::{Comparison, Difference};

/// The pause after each step while a sequence is being shortened, and the sum of all pauses.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSES: Duration = Duration::from_millis(150);

pub struct Search {
    pub comparison: Comparison,
    found: Option<Found>,
}

/// The shortest sequence so far, and what differs at its end.
struct Found {
    steps: String,
    length: usize,
    why: String,
}

impl Search {
    pub fn with(comparison: Comparison) -> Self {
        Self { comparison, found: None }
    }

    /// Tries a sequence. After one was found, the next ones are variants of it, and the steps after the difference are
    /// left out. Fewer steps take less time, so a hold that lapsed in the longer sequence may not lapse. So variants
    /// are also tried slowly.
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

    /// The shortest sequence, one step on each line, and what differs.
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
