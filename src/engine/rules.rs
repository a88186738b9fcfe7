//! Rules by which a SKU is sold: a limit for each cart, units that are kept back, a longest hold. Script `rules`.

use super::record::{malformed, number};
use super::{Engine, Error, MaxTtl, PerCart, SafetyStock, Stock, Ttl, only};
use crate::keys::Sku;

/// The rules of a SKU; it may have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// How many units one cart may have of it at once, held and sold.
    pub per_cart: Option<PerCart>,
    /// How many units are never held or sold.
    pub safety_stock: Option<SafetyStock>,
    /// How long a hold of it lasts at most, milliseconds.
    pub max_ttl_ms: Option<u64>,
}

impl Rules {
    /// Rules with a longest hold in whole seconds, as clients give it.
    pub fn new(per_cart: Option<PerCart>, safety_stock: Option<SafetyStock>, max_ttl: Option<MaxTtl>) -> Self {
        Self { per_cart, safety_stock, max_ttl_ms: max_ttl.map(MaxTtl::as_ms) }
    }

    /// Reads rules as they are stored.
    pub(crate) fn stored(text: &str) -> Result<Self, Error> {
        let unclear = || malformed("the rules of a SKU");
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut parts = text.split(' ');
        let mut value = |name: &str| {
            let (given, value) = parts.next().and_then(|part| part.split_once('=')).ok_or_else(unclear)?;
            if given != name {
                return Err(unclear());
            }
            Some(value).filter(|value| !value.is_empty()).map(number).transpose()
        };
        let [per_cart, safety_stock, max_ttl_ms] = [value("perCart")?, value("safetyStock")?, value("maxTtlMs")?];
        let rules = Self {
            per_cart: per_cart.map(PerCart::new).transpose().map_err(|_| unclear())?,
            safety_stock: safety_stock.map(SafetyStock::new).transpose().map_err(|_| unclear())?,
            max_ttl_ms: max_ttl_ms.filter(|ms| (1..=Ttl::MAX.as_ms()).contains(ms)),
        };
        let [per_cart, safety_stock, max_ttl_ms] = rules.arguments();
        // Numbers are stored in one form.
        let is_right = text == format!("perCart={per_cart} safetyStock={safety_stock} maxTtlMs={max_ttl_ms}");
        if is_right { Ok(rules) } else { Err(unclear()) }
    }

    fn arguments(self) -> [String; 3] {
        fn text(value: Option<impl ToString>) -> String {
            value.map_or(String::new(), |value| value.to_string())
        }
        [text(self.per_cart), text(self.safety_stock), text(self.max_ttl_ms)]
    }
}

impl Engine {
    /// Sets the rules of a SKU, all of them: what is left out is none. Returns its counts, without a list of its
    /// reservations; `None` for a SKU that was never seeded. Script `rules`. Safe to repeat.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rule(&self, sku: &Sku, rules: Rules) -> Result<Option<Stock>, Error> {
        let keys = self.layout.stock(sku);
        let [per_cart, safety_stock, max_ttl_ms] = rules.arguments();
        let names = [&*keys.shard.audit, &*keys.inventory];
        let replies = self.scripts.call("rules", &names, &[&per_cart, &safety_stock, &max_ttl_ms]).await?;
        match &*only(&replies)?.parts() {
            ["UNKNOWN_SKU"] => Ok(None),
            ["RULED", counts @ .., rules] => {
                Ok(Some(Stock { rules: Rules::stored(rules)?, ..Stock::counted(sku, counts)? }))
            }
            _ => Err(malformed("rules")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_stored() {
        let per_cart = PerCart::new(4).ok();
        assert_eq!(Rules::stored("").unwrap(), Rules::default());
        let some = Rules { per_cart, max_ttl_ms: Some(900_000), ..Rules::default() };
        assert_eq!(Rules::stored("perCart=4 safetyStock= maxTtlMs=900000").unwrap(), some);
        assert_eq!(some.arguments(), ["4", "", "900000"]);
        for wrong in [
            "perCart=4",
            "safetyStock= perCart= maxTtlMs=",
            "perCart=x safetyStock= maxTtlMs=",
            "4",
            "perCart=04 safetyStock= maxTtlMs=",
        ] {
            assert!(Rules::stored(wrong).is_err(), "{wrong}");
        }
    }
}
