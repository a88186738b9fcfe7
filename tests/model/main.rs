//! The rules of the scripts, written a second time without Redis, against the scripts themselves. For any calls in any
//! order, each reply, and everything that is stored afterwards, is what the model says.
//!
//! `MODEL_CASES` sets the number of sequences; `-- --nocapture` shows which replies they reached.

#[path = "../support/mod.rs"]
mod support;

mod adjust;
mod call;
mod cart_hold;
mod change;
mod comparison;
mod extend;
mod generate;
mod moving;
mod names;
mod repair;
mod request;
mod returns;
mod rules;
mod search;
mod sell;
mod sku_rules;
mod spoil;
mod state;
mod stored;
mod tally;

use std::cell::RefCell;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use stockhold::scripts::Catalogue;

use crate::comparison::Comparison;
use crate::generate::sequence;
use crate::moving::Side;
use crate::search::Search;
use crate::tally::Tally;

/// Mostly enough to reach every word of the contract, in a few seconds; otherwise there are more rounds.
const DEFAULT_CASES: u32 = 60;
const MOST_ROUNDS: usize = 20;
/// Of those in a slot that moves, mostly enough too.
const MOVING_CASES: u32 = 4;
/// The scripts of which every key can be there before a call. The others make a new key (an operation, a reservation), so they are
/// mostly refused until the slot has moved.
const SERVED: [&str; 9] = ["audit", "confirm", "extend", "inventory", "release", "repair", "rules", "sell", "sweep"];

/// How many sequences there are, of those that are usual.
fn cases(usual: u32) -> u32 {
    std::env::var("MODEL_CASES").map_or(usual, |cases| cases.parse().expect("MODEL_CASES"))
}

#[test]
fn the_scripts_do_what_the_model_says() {
    let search = RefCell::new(Search::with(Comparison::start()));
    let cases = cases(DEFAULT_CASES);
    play(&search, cases, cases >= DEFAULT_CASES, || missed(&search.borrow().comparison.tally));
}

#[test]
fn the_scripts_do_what_the_model_says_in_a_slot_that_moves_away() {
    play_moving(Side::Old);
}

#[test]
fn the_scripts_do_what_the_model_says_in_a_slot_that_arrives() {
    play_moving(Side::New);
}

/// A node of a cluster carries out a call as a whole while a slot moves, or refuses it and changes nothing.
fn play_moving(side: Side) {
    let search = RefCell::new(Search::with(Comparison::start_moving(side)));
    play(&search, cases(MOVING_CASES), true, || {
        let search = search.borrow();
        let moving = search.comparison.moving.as_ref().expect("a move");
        let all = Catalogue::embedded();
        let refused = all.current().map(|script| script.name).filter(|name| !moving.refused.contains(name));
        let served = SERVED.into_iter().filter(|name| !moving.served.contains(name));
        refused.map(|name| format!("{name} refused")).chain(served.map(|name| format!("{name} served"))).collect()
    });
}

/// Plays sequences, in rounds until nothing is missed, if all is wanted.
fn play(search: &RefCell<Search>, cases: u32, is_all_wanted: bool, missed: impl Fn() -> Vec<String>) {
    let defaults = Config::default();
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: defaults.max_shrink_iters.min(20_000),
        max_shrink_time: 120_000,
        ..defaults
    };
    let mut rounds = 0;
    let missed = loop {
        // A runner counts the sequences of all its runs.
        let mut runner = TestRunner::new(config.clone());
        let outcome = runner.run(&sequence(), |steps| search.borrow_mut().attempt(&steps).map_err(TestCaseError::fail));
        if let Err(why) = outcome {
            let report = search.borrow().report();
            let TestError::Fail(why, _) = why else { panic!("{why}") };
            assert!(!report.is_empty(), "{why}");
            panic!("the scripts and the model differ at the end of this sequence:\n{report}");
        }
        rounds += 1;
        let missed = missed();
        // Some words are rare: chance may need more sequences for them.
        if missed.is_empty() || !is_all_wanted || rounds == MOST_ROUNDS {
            break missed;
        }
    };
    println!("{}", search.borrow().comparison.tally);
    assert!(missed.is_empty() || !is_all_wanted, "never answered in {rounds} rounds: {missed:?}");
}

/// The words of the contract that no call was answered with.
fn missed(tally: &Tally) -> Vec<String> {
    let mut missed = Vec::new();
    for script in Catalogue::embedded().current() {
        let listed = script.contract.replies.iter().chain(&script.contract.errors);
        let listed = listed.filter(|listed| !tally.reached(script.name, listed.word));
        missed.extend(listed.map(|listed| format!("{} {}", script.name, listed.word)));
    }
    missed
}
