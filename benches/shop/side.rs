//! Who is compared with whom.

/// The SKU that everybody wants.
pub const HOT: &str = "sku-hot";

pub mod direct;
pub mod floor;
pub mod nodes;
pub mod ours;
pub mod postgres;
pub mod served;
pub mod watch;
