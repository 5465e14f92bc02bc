//! What models cost, by a table that its owner keeps.
//!
//! ```text
//! 2026-01-01: claude-sonnet-5-5 3/15/0.3/3.75, claude-haiku-5-5 1/5/0.1/1.25
//! ```
//!
//! The date is that of the prices, which change; after each model come US dollars for a million tokens: of input, of output,
//! read from a cache, written to one. A model that is not in the table has no price.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The tokens of one model, by what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Sent, and in no cache.
    pub input: u64,
    /// Of answers.
    pub output: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Written to a cache.
    pub cache_write: u64,
}

/// A table of prices.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    date: String,
    /// US dollars for a million tokens, in the order of [`Tokens`].
    models: BTreeMap<String, [f64; 4]>,
}

impl Prices {
    /// The day that they are of, as `2026-01-01`.
    pub fn date(&self) -> &str {
        &self.date
    }

    /// What these tokens cost, in US dollars. `None`: the model has no price here.
    pub fn cost(&self, model: &str, tokens: Tokens) -> Option<f64> {
        let price = self.models.get(model).or_else(|| self.models.get(without_day(model)?))?;
        Some(sum(price, tokens))
    }

    /// What they cost at most: without a price of its own, a model costs what the dearest does.
    pub fn cost_at_most(&self, model: &str, tokens: Tokens) -> f64 {
        let dearest = || self.models.values().map(|price| sum(price, tokens)).fold(0.0, f64::max);
        self.cost(model, tokens).unwrap_or_else(dearest)
    }
}

fn sum(price: &[f64; 4], tokens: Tokens) -> f64 {
    let counts = [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write];
    #[expect(clippy::cast_precision_loss, reason = "no number of tokens is that large")]
    let dollars = counts.iter().zip(price).map(|(&count, price)| count as f64 * price / 1e6).sum();
    dollars
}

/// A model's name without the day at its end, as in `claude-haiku-5-5-20260101`.
fn without_day(model: &str) -> Option<&str> {
    let (name, day) = model.rsplit_once('-')?;
    (day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// A text that is no table of prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the date of the prices, and after each model US dollars for a million tokens of input/output/cache read/cache \
     write, such as 2026-01-01: claude-sonnet-5-5 3/15/0.3/3.75, claude-haiku-5-5 1/5/0.1/1.25"
)]
pub struct BadPrices;

impl FromStr for Prices {
    type Err = BadPrices;

    fn from_str(text: &str) -> Result<Self, BadPrices> {
        let (date, models) = text.split_once(':').ok_or(BadPrices)?;
        let mut prices = Self { date: day(date.trim()).ok_or(BadPrices)?, models: BTreeMap::new() };
        for line in models.split(',').map(str::trim).filter(|line| !line.is_empty()) {
            let (model, price) = line.split_once(char::is_whitespace).ok_or(BadPrices)?;
            let price: Vec<f64> = price.split('/').map(dollars).collect::<Option<_>>().ok_or(BadPrices)?;
            let price = price.try_into().map_err(|_| BadPrices)?;
            if prices.models.insert(model.to_owned(), price).is_some() {
                return Err(BadPrices);
            }
        }
        if prices.models.is_empty() { Err(BadPrices) } else { Ok(prices) }
    }
}

impl fmt::Display for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.date)?;
        for (number, (model, [input, output, read, write])) in self.models.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma} {model} {input}/{output}/{read}/{write}")?;
        }
        Ok(())
    }
}

fn day(text: &str) -> Option<String> {
    let numbers: Vec<u32> = text.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let is_day = matches!(numbers[..], [2000..=9999, 1..=12, 1..=31]);
    (is_day && text.len() == 10).then(|| text.to_owned())
}

fn dollars(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|usd: &f64| usd.is_finite() && *usd >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "2026-01-01: claude-haiku-5-5 1/5/0.1/1.25, claude-sonnet-5-5 3/15/0.3/3.75";

    #[test]
    fn a_table_reads_back_as_it_is_written() {
        let prices: Prices = TABLE.parse().expect("a table");
        assert_eq!((prices.to_string().as_str(), prices.date()), (TABLE, "2026-01-01"));
        let lines =
            "\n2026-01-01:\n  claude-sonnet-5-5  3 / 15 / 0.3 / 3.75,\n  claude-haiku-5-5 1/5/0.1/1.25,\n";
        assert_eq!(lines.parse(), Ok(prices));
    }

    #[test]
    fn a_table_without_its_date_or_with_half_a_price_is_none() {
        for bad in [
            "",
            "claude-sonnet-5-5 3/15/0.3/3.75",
            "2026-01-01",
            "2026-01-01:",
            "2026-13-01: m 1/1/1/1",
            "26-01-01: m 1/1/1/1",
            "2026-1-1: m 1/1/1/1",
            "2026-01-01: m 1/1/1",
            "2026-01-01: m 1/1/1/-1",
            "2026-01-01: m 1/1/1/inf",
            "2026-01-01: m",
            "2026-01-01: m 1/1/1/1, m 2/2/2/2",
        ] {
            assert_eq!(bad.parse::<Prices>(), Err(BadPrices), "{bad}");
        }
    }

    #[test]
    fn each_kind_of_token_has_its_price_and_an_unknown_model_has_none() {
        let prices: Prices = TABLE.parse().expect("a table");
        let million = 1_000_000;
        let tokens = Tokens {
            input: million,
            output: 2 * million,
            cache_read: 10 * million,
            cache_write: 4 * million,
        };
        let about = |usd: Option<f64>, expected: f64| usd.is_some_and(|usd| (usd - expected).abs() < 1e-9);
        assert!(about(prices.cost("claude-sonnet-5-5", tokens), 3.0 + 30.0 + 3.0 + 15.0));
        assert!(about(prices.cost("claude-haiku-5-5-20260101", tokens), 1.0 + 10.0 + 1.0 + 5.0));
        assert_eq!(prices.cost("claude-haiku-5-5-latest", tokens), None);
        assert_eq!(prices.cost("claude-haiku", tokens), None);
    }
}
