//! What is stored and returned: reservations, stock and events, as types.

use std::collections::HashMap;

use super::{Error, HoldRequest, Quantity, Rules};
use crate::keys::{CartId, Metadata, ReservationId, Sku};
use crate::redis::Entry;

/// The life of a reservation: active, and then one of the other states; what has lapsed may still be confirmed late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationState {
    /// Its units are reserved.
    Active,
    /// Its units are sold.
    Confirmed,
    /// Its units went back: released, expired, or drained by a seed.
    Released,
}

impl ReservationState {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }

    pub(super) fn read(text: &str) -> Result<Self, Error> {
        [Self::Active, Self::Confirmed, Self::Released]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| malformed("the state of a reservation"))
    }
}

/// The record that a hold leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its id, which carries its shard.
    pub id: ReservationId,
    /// The cart.
    pub cart: CartId,
    /// The SKU.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
    /// How many units it held at first, if that was ever different. Only a read tells; the replies of operations do not.
    pub initial_quantity: Option<Quantity>,
    /// Its state.
    pub state: ReservationState,
    /// Why it was released, or `late_confirm`; empty otherwise.
    pub reason: String,
    /// When it lapses, or would have lapsed: epoch milliseconds of Redis's clock, like all times here.
    pub expires_at_ms: u64,
    /// When it was held.
    pub created_at_ms: u64,
    /// When its state, its expiry or its quantity last changed, or units last came back.
    pub updated_at_ms: u64,
    /// What it keeps for its client. Only a read and a hold tell; the replies of other operations do not.
    pub metadata: Option<Metadata>,
    /// How many of the sold units came back.
    pub returned: u64,
    /// When it was sold, if units came back since.
    pub confirmed_at_ms: Option<u64>,
}

impl Reservation {
    /// Reads the eight fields of a reply, in the order of the scripts' headers.
    pub(super) fn read(id: ReservationId, record: &[&str]) -> Result<Self, Error> {
        let [cart, sku, quantity, state, reason, expires_at, created_at, updated_at] = record else {
            return Err(malformed("a record"));
        };
        Ok(Self {
            id,
            cart: CartId::parse(cart).map_err(|_| malformed("the cart of a reservation"))?,
            sku: Sku::parse(sku).map_err(|_| malformed("the SKU of a reservation"))?,
            quantity: self::quantity(quantity)?,
            initial_quantity: None,
            state: ReservationState::read(state)?,
            reason: (*reason).to_owned(),
            expires_at_ms: number(expires_at)?,
            created_at_ms: number(created_at)?,
            updated_at_ms: number(updated_at)?,
            metadata: None,
            returned: 0,
            confirmed_at_ms: None,
        })
    }

    /// Reads the stored hash.
    pub(crate) fn stored(id: ReservationId, fields: &HashMap<String, String>) -> Result<Option<Self>, Error> {
        if fields.is_empty() {
            return Ok(None);
        }
        let field = |name| fields.get(name).map_or("", String::as_str);
        let mut record =
            ["cartId", "sku", "quantity", "state", "reason", "expiresAt", "createdAt", "updatedAt"].map(field);
        // What is active and was neither extended nor changed was not updated since it was made.
        if field("state") == ReservationState::Active.as_str() && record[7].is_empty() {
            record[7] = record[6];
        }
        let metadata = fields.get("metadata").map(|json| metadata(json)).transpose()?;
        let optional = |name| fields.get(name).map(|text| number(text)).transpose();
        let (returned, confirmed_at_ms) = (optional("returned")?.unwrap_or(0), optional("confirmedAt")?);
        let initial_quantity = fields.get("initialQuantity").map(|units| quantity(units)).transpose()?;
        Ok(Some(Self { metadata, initial_quantity, returned, confirmed_at_ms, ..Self::read(id, &record)? }))
    }

    /// Makes the record of a request that was just granted.
    pub(super) fn held(id: ReservationId, of: &HoldRequest, expires_at: &str, created_at: &str) -> Result<Self, Error> {
        let created_at_ms = number(created_at)?;
        Ok(Self {
            id,
            cart: of.cart.clone(),
            sku: of.sku.clone(),
            quantity: of.quantity,
            initial_quantity: None,
            state: ReservationState::Active,
            reason: String::new(),
            expires_at_ms: number(expires_at)?,
            created_at_ms,
            updated_at_ms: created_at_ms,
            metadata: of.metadata.clone(),
            returned: 0,
            confirmed_at_ms: None,
        })
    }

    /// For how long it is held in all: for what the hold asked for, unless it was extended.
    pub(crate) fn ttl_ms(&self) -> u64 {
        self.expires_at_ms.saturating_sub(self.created_at_ms)
    }

    pub(crate) fn is_active(&self) -> bool {
        self.state == ReservationState::Active
    }

    /// Active after its expiry: not yet swept.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.is_active() && self.expires_at_ms <= now_ms
    }
}

/// The counts of a SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// The SKU.
    pub sku: Sku,
    /// Units that can be held.
    pub available: u64,
    /// Units of active reservations.
    pub reserved: u64,
    /// Units that are sold.
    pub confirmed: u64,
    /// Ids of active reservations: those that expire first, up to the limit of the read.
    pub active_reservations: Vec<String>,
    /// When the counts last changed, epoch milliseconds.
    pub updated_at_ms: u64,
    /// The number of events that the SKU had.
    pub version: u64,
    /// Its rules. Only a read tells, and what sets them; the replies of other operations do not.
    pub rules: Rules,
}

impl Stock {
    /// The stock after a seed.
    pub(super) fn seeded(sku: &Sku, quantity: &str, updated_at: &str, version: &str) -> Result<Self, Error> {
        Ok(Self {
            sku: sku.clone(),
            available: number(quantity)?,
            reserved: 0,
            confirmed: 0,
            active_reservations: Vec::new(),
            updated_at_ms: number(updated_at)?,
            version: number(version)?,
            rules: Rules::default(),
        })
    }

    /// The stock by its counts; its reservations are not listed.
    pub(super) fn counted(sku: &Sku, counts: &[&str]) -> Result<Self, Error> {
        let [available, reserved, confirmed, updated_at, version] = counts else { return Err(malformed("counts")) };
        Ok(Self {
            sku: sku.clone(),
            available: number(available)?,
            reserved: number(reserved)?,
            confirmed: number(confirmed)?,
            active_reservations: Vec::new(),
            updated_at_ms: number(updated_at)?,
            version: number(version)?,
            rules: Rules::default(),
        })
    }
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A SKU was put on sale, or is being drained before that.
    Seed,
    /// A cart holds units.
    Hold,
    /// A hold lapses later.
    Extend,
    /// A hold holds another number of units.
    Change,
    /// The units of a hold were sold, also of one that had lapsed.
    Confirm,
    /// The units of a hold were released, or taken back by a seed.
    Release,
    /// A hold lapsed.
    Expired,
    /// Units of a sale came back.
    Return,
    /// Units came or went, or were counted.
    Adjust,
    /// The rules of a SKU changed, or are told again when it is seeded.
    Rules,
    /// Damage that the scripts did not cause was repaired.
    Repair,
}

impl EventKind {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Hold => "hold",
            Self::Extend => "extend",
            Self::Change => "change",
            Self::Confirm => "confirm",
            Self::Release => "release",
            Self::Expired => "expired",
            Self::Return => "return",
            Self::Adjust => "adjust",
            Self::Rules => "rules",
            Self::Repair => "repair",
        }
    }

    fn read(text: &str) -> Result<Self, Error> {
        [
            Self::Seed,
            Self::Hold,
            Self::Extend,
            Self::Change,
            Self::Confirm,
            Self::Release,
            Self::Expired,
            Self::Return,
            Self::Adjust,
            Self::Rules,
            Self::Repair,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| malformed("the kind of an event"))
    }
}

/// One entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The id of the stream entry.
    pub id: String,
    /// What happened.
    pub event: EventKind,
    /// Of which reservation; empty when it is about the SKU.
    pub reservation_id: String,
    /// Of which cart; empty when it is about the SKU.
    pub cart_id: String,
    /// Of which SKU.
    pub sku: String,
    /// How many units it was about.
    pub quantity: u64,
    /// The reservation's state after it; `draining`, `seeded`, `added`, `removed`, `ruled` or `repaired` when it is
    /// about the SKU.
    pub state: String,
    /// The reason, where there is more than one possible reason, and that of an adjustment as its caller gave it; of
    /// `rules`, the rules as they are stored; otherwise empty.
    pub reason: String,
    /// When, epoch milliseconds.
    pub happened_at_ms: u64,
    /// The SKU's available units after it.
    pub available: u64,
    /// The SKU's reserved units after it.
    pub reserved: u64,
    /// The SKU's confirmed units after it.
    pub confirmed: u64,
    /// Counts the SKU's events without a gap.
    pub version: u64,
    /// The id of the SKU's event before this one; empty for its first.
    pub previous: String,
    /// What the reservation keeps for its client; told by its hold.
    pub metadata: Option<Metadata>,
}

impl Event {
    pub(super) fn read(parts: &[&str]) -> Result<Self, Error> {
        let [
            "EVENT",
            id,
            event,
            reservation_id,
            cart_id,
            sku,
            quantity,
            state,
            reason,
            happened_at,
            available,
            reserved,
            confirmed,
            version,
            previous,
            noted,
        ] = parts
        else {
            return Err(malformed("audit"));
        };
        Ok(Self {
            id: (*id).to_owned(),
            event: EventKind::read(event)?,
            reservation_id: (*reservation_id).to_owned(),
            cart_id: (*cart_id).to_owned(),
            sku: (*sku).to_owned(),
            quantity: number(quantity)?,
            state: (*state).to_owned(),
            reason: (*reason).to_owned(),
            happened_at_ms: number(happened_at)?,
            available: number(available)?,
            reserved: number(reserved)?,
            confirmed: number(confirmed)?,
            version: number(version)?,
            previous: (*previous).to_owned(),
            metadata: if noted.is_empty() { None } else { Some(metadata(noted)?) },
        })
    }
}

impl Event {
    /// Reads a stream entry.
    pub(crate) fn stored((id, fields): &Entry) -> Result<Self, Error> {
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let amount = |name: &str| number(fields.get(name).map_or("", String::as_str));
        Ok(Self {
            id: id.clone(),
            event: EventKind::read(&field("event"))?,
            reservation_id: field("reservationId"),
            cart_id: field("cartId"),
            sku: field("sku"),
            quantity: amount("quantity")?,
            state: field("state"),
            reason: field("reason"),
            happened_at_ms: amount("happenedAt")?,
            available: amount("available")?,
            reserved: amount("reserved")?,
            confirmed: amount("confirmed")?,
            version: amount("version")?,
            previous: field("previous"),
            metadata: fields.get("metadata").map(|json| metadata(json)).transpose()?,
        })
    }
}

fn metadata(json: &str) -> Result<Metadata, Error> {
    Metadata::parse(json).map_err(|_| malformed("the metadata of a reservation"))
}

fn quantity(text: &str) -> Result<Quantity, Error> {
    Quantity::new(number(text)?).map_err(|_| malformed("the quantity of a reservation"))
}

pub(super) fn number(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| malformed("a number"))
}

/// Redis holds or returns something that no script of this crate writes.
pub(crate) fn malformed(what: &str) -> Error {
    Error::Broken(format!("not understood: {what}"))
}
