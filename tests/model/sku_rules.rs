//! What the rules of a SKU do: how they are set, how long a hold lasts by them, and what a cart has by its list.

use crate::request::NamedCart;
use crate::state::{Model, Rules, Turn, reply};

const DEFAULT_TTL_MS: u64 = 600_000;

impl Rules {
    pub fn arguments(&self) -> [String; 3] {
        [self.per_cart, self.safety_stock, self.max_ttl_ms]
            .map(|number| number.map_or(String::new(), |number| number.to_string()))
    }

    /// As they are stored.
    pub fn text(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let [per_cart, safety_stock, max_ttl_ms] = self.arguments();
        format!("perCart={per_cart} safetyStock={safety_stock} maxTtlMs={max_ttl_ms}")
    }

    pub fn stored(text: &str) -> Self {
        let mut numbers = text.split(' ').map(|part| part.split_once('=').and_then(|(_, number)| number.parse().ok()));
        let mut next = || numbers.next().flatten();
        Self { per_cart: next(), safety_stock: next(), max_ttl_ms: next() }
    }

    /// How long a hold lasts that asks for this time, or leaves it open.
    pub fn lasts_ms(&self, asked_ms: Option<u64>) -> u64 {
        asked_ms.unwrap_or_else(|| DEFAULT_TTL_MS.min(self.max_ttl_ms.unwrap_or(DEFAULT_TTL_MS)))
    }

    /// The refusal of a hold that would last too long.
    pub fn too_long(&self, lasts_ms: u64) -> Option<Vec<String>> {
        let most = self.max_ttl_ms.filter(|most| lasts_ms > *most)?;
        Some(reply("TOO_LONG", [most.to_string()]))
    }
}

impl Model {
    pub fn rule(&mut self, sku: &str, rules: Rules, turn: &Turn) -> Vec<String> {
        let Some(stock) = self.stocks.get_mut(sku) else { return reply("UNKNOWN_SKU", []) };
        if rules != stock.rules() {
            stock.rules = Some(rules);
            self.tell_rules(sku, turn);
        }
        let stock = &self.stocks[sku];
        let counts = [stock.available, stock.reserved, stock.confirmed, stock.updated_at, stock.version];
        reply("RULED", counts.iter().map(u64::to_string).chain([rules.text()]))
    }

    pub fn tell_rules(&mut self, sku: &str, turn: &Turn) {
        let text = self.stocks[sku].rules().text();
        self.log(sku, ["rules", "", "", sku, "0", "ruled", &text], turn);
    }

    /// The units of a SKU that a cart has by its list, but for some ids; `None` if another is not named.
    pub fn units_of_cart(&self, cart: &NamedCart, sku: &str, except: &[&String], turn: &Turn) -> Option<u64> {
        let listed = self.carts.get(&cart.id).into_iter().flat_map(|cart| &cart.listed);
        let of_sku = listed.filter(|(id, of)| *of == sku && !except.contains(id));
        let units = of_sku.map(|(id, _)| {
            if !cart.others.contains(id) {
                return None;
            }
            let record = self.records.get(id).filter(|record| record.cart == cart.id && record.sku == sku);
            Some(record.map_or(0, |record| match record.state {
                "active" if record.expires_at > turn.now => record.quantity,
                "confirmed" => record.quantity - record.returned,
                _ => 0,
            }))
        });
        units.sum()
    }

    /// Why a cart may not have units more of a reservation's SKU, if it may not.
    pub fn limit(&self, id: &str, units: u64, cart: Option<&NamedCart>, turn: &Turn) -> Option<Vec<String>> {
        let record = &self.records[id];
        let per_cart = self.stocks[&record.sku].rules().per_cart?;
        let cart = cart.filter(|cart| cart.id == record.cart);
        let own = id.to_owned();
        let has = cart.and_then(|cart| self.units_of_cart(cart, &record.sku, &[&own], turn));
        match has {
            None => Some(reply("UNSEEN", [record.cart.clone()])),
            Some(has) if has + units > per_cart => {
                Some(reply("CART_LIMIT", [per_cart, has].map(|units| units.to_string())))
            }
            Some(_) => None,
        }
    }
}
