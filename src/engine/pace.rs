//! How much of Redis sweeping may take: little while it keeps up, more as holds become more overdue.

use std::time::{Duration, Instant};

/// The minimum and maximum cost of the commands that are sent to Redis together. A call costs 1, and each hold costs 1:
/// about 12 us of Redis each. Redis serves other clients before and after. With the minimum, they wait for a quarter of
/// a millisecond. The maximum is half of Redis when hundreds of clients make as many holds as Redis can take: each hold
/// costs about the same again when it lapses.
const SHARE: (f64, f64) = (15.0, 600.0);

/// How overdue holds may be at normal pace: rounds begin every half second, and take some time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sweeping keeps up if the largest delay decreases by at least this part of a second in each second.
const CATCHING_UP: u32 = 10;

/// How long it takes to double or halve the share: a burst is short, and buyers should not pay for it.
const DOUBLING: Duration = Duration::from_secs(3);

/// The current limit for the commands that are sent to Redis together.
#[derive(Debug)]
pub(super) struct Pace {
    share: f64,
    last: Option<(Instant, Duration)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { share: SHARE.0, last: None }
    }
}

impl Pace {
    /// The cost limit.
    pub(super) fn share(&self) -> u64 {
        self.share as u64
    }

    /// Records that the most overdue hold is `overdue` at `now`. While a backlog decreases, it does not raise the
    /// share, however large it is: buyers come first.
    pub(super) fn note(&mut self, now: Instant, overdue: Duration) {
        let Some((then, was)) = self.last.replace((now, overdue)) else { return };
        let time = now.saturating_duration_since(then);
        let keeps_up = was.saturating_sub(overdue) >= time / CATCHING_UP;
        let change = time.div_duration_f64(DOUBLING).exp2();
        let share = if overdue > PATIENCE && !keeps_up { self.share * change } else { self.share / change };
        self.share = share.clamp(SHARE.0, SHARE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares while holds are this number of milliseconds overdue, sampled every 100 ms.
    fn shares(overdue_ms: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let note = |(look, overdue_ms)| {
            pace.note(start + Duration::from_millis(100) * look, Duration::from_millis(overdue_ms));
            pace.share()
        };
        (0..).zip(overdue_ms).map(note).collect()
    }

    #[test]
    fn the_share_grows_while_holds_wait_longer_and_falls_again() {
        let growing = shares((0..200).map(|look| 2000 + 10 * look));
        assert!(growing.is_sorted(), "{growing:?}");
        assert_eq!((growing[0], growing[199]), (15, 600));
        let steady = shares([2000; 200]);
        assert_eq!(steady[199], 600, "to be late all the time is not to keep up");
        let late_for_a_while = shares([9000; 200].into_iter().chain((0..200).map(|look| 9000 - 20 * look)));
        assert_eq!((late_for_a_while[199], late_for_a_while[399]), (600, 15));
    }

    #[test]
    fn a_burst_or_a_decreasing_backlog_does_not_raise_the_share() {
        let burst = shares((0..40).map(|look| 2000 + 50 * look));
        assert!(burst[39] < 60, "{burst:?}");
        assert_eq!(shares((0..100).map(|look| 60_000 - 20 * look)), [15; 100]);
        assert_eq!(shares([900; 100]), [15; 100]);
    }
}
