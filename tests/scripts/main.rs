//! The contract of the scripts in `lua/`, called as any client in any language would: keys, arguments, replies.
//!
//! What is said of every call (what is refused leaves no trace, the reply is one that the header lists, the books
//! balance) is checked in [`fixture::ScriptFixture::call`], so that each test here checks it too.

#[path = "../support/mod.rs"]
mod support;

mod bad_values;
mod call;
mod contract;
mod fixture;

mod audit;
mod damage;
mod edges;
mod full_memory;
mod half_done;
mod hold;
mod inventory;
mod malformed;
mod repair;
mod replies;
mod seed;
mod settling;
mod sweep;
mod wrong_type;
