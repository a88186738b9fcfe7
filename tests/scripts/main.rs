//! The contract of the scripts in `lua/`, called as any client in any language would: keys, arguments, replies.
//!
//! What must be true of every call (a refusal changes nothing, the header lists the reply, the books balance) is
//! checked in [`fixture::ScriptFixture::call`], so each test here checks it too.

#[path = "../support/mod.rs"]
mod support;

mod bad_values;
mod call;
mod contract;
mod fixture;

mod adjust;
mod audit;
mod cart_hold;
mod change;
mod damage;
mod edges;
mod extend;
mod full_memory;
mod half_done;
mod hold;
mod inventory;
mod malformed;
mod migrating;
mod repair;
mod replies;
mod returns;
mod rules;
mod seed;
mod sell;
mod settling;
mod sweep;
mod wrong_type;
