//! What attempts use of model APIs: kept, priced, and bounded.
//!
//! `claude` has its own limits of turns and money, and ends itself at them. Here the same limits end an attempt whose
//! `claude` goes on all the same, with a margin, so that one that keeps to them is never ended from outside: it may be asked
//! again for an answer that was cut, and it counts money a little differently. Like every other ending, it brings the work
//! out. What an attempt costs is what `claude` said last, else what the table of prices says of its tokens.

use mayfly_core::prices::Tokens;
use mayfly_core::{AttemptId, Event, Failure, Outcome, Prices, causes};
use mayfly_store::{AttemptUsage, StoreError, Used};
use mayfly_wire::api::{CreateTask, Usage};

use crate::engine::Engine;

/// The turns that are too many: a quarter of the limit, and this many.
const TURNS_OVER: u64 = 5;
/// The requests to each of these turns: who asks says itself which are of the main agent's turns and which of other
/// agents', so that all of them together have a bound as well.
const REQUESTS_PER_TURN: u64 = 50;
/// The share of its budget that an attempt may have used when it asks for more.
const BUDGET_SHARE: f64 = 1.1;

impl Engine {
    /// Takes what one request of an attempt has used; returns at once.
    pub fn count(&self, attempt: AttemptId, used: Used) {
        let (engine, storing) = (self.clone(), self.0.store.use_up(attempt, used.clone()));
        drop(self.whole(async move {
            let checked = match storing.await {
                Ok(all) => engine.check_spent(attempt, &used, &all).await,
                Err(error) => Err(error),
            };
            if let Err(error) = checked {
                tracing::error!(%attempt, error = causes(&error), "what a request used was not counted");
            }
        }));
    }

    async fn check_spent(&self, id: AttemptId, used: &Used, all: &AttemptUsage) -> Result<(), StoreError> {
        let Some(task) = self.0.store.task(id.task).await? else { return Ok(()) };
        let Some((failure, words)) = overspent(&task.spec, used, all, self.0.config.rules.prices.as_ref())
        else {
            return Ok(());
        };
        tracing::info!(%id, outcome = %Outcome::Failed(failure), "claude went on beyond its limit");
        self.insist(id.task, Event::Ended(id.attempt, Outcome::Failed(failure)), words).await
    }
}

/// The limit that an attempt went beyond with its newest request, `used`, and the words for it.
fn overspent(
    spec: &CreateTask,
    used: &Used,
    all: &AttemptUsage,
    prices: Option<&Prices>,
) -> Option<(Failure, String)> {
    let turns: u64 = all.models.iter().map(|used| used.turns).sum();
    if let Some(most) = spec.max_turns.filter(|&most| turns > turns_max(most)) {
        let words = format!("claude went on after {most} turns, and was ended after {turns}");
        return Some((Failure::MaxTurns, words));
    }
    let requests: u64 = all.models.iter().map(|used| used.requests).sum();
    if let Some(most) = spec.max_turns.filter(|&most| requests > turns_max(most) * REQUESTS_PER_TURN) {
        let words = format!("claude asked for {requests} answers, with {most} turns allowed, and was ended");
        return Some((Failure::MaxTurns, words));
    }
    let budget = spec.max_budget_usd?;
    let of = |used: &Used| prices.map_or(0.0, |prices| prices.cost_at_most(&used.model, tokens(used)));
    let counted: f64 = all.models.iter().map(of).sum();
    // The newest is what was asked for with so much used before.
    let before = (counted - of(used)).max(all.cost_usd.unwrap_or_default());
    let words = || format!("claude went on after ${before:.4}, and ${budget} were allowed");
    (before > budget * BUDGET_SHARE).then(|| (Failure::MaxBudget, words()))
}

fn turns_max(most: u32) -> u64 {
    u64::from(most) + u64::from(most / 4) + TURNS_OVER
}

fn tokens(used: &Used) -> Tokens {
    Tokens {
        input: used.input_tokens,
        output: used.output_tokens,
        cache_read: used.cache_read_tokens,
        cache_write: used.cache_write_tokens,
    }
}

/// All that a task has used, if it has used anything.
pub(crate) fn usage(attempts: &[AttemptUsage], prices: Option<&Prices>) -> Option<Usage> {
    let mut usage = Usage::default();
    for used in attempts.iter().flat_map(|attempt| &attempt.models) {
        usage.requests += used.requests;
        usage.input_tokens += used.input_tokens;
        usage.output_tokens += used.output_tokens;
        usage.cache_read_tokens += used.cache_read_tokens;
        usage.cache_write_tokens += used.cache_write_tokens;
    }
    if usage.requests == 0 && attempts.iter().all(|attempt| attempt.cost_usd.is_none()) {
        return None;
    }
    let (cost, by) = cost(attempts, prices);
    (usage.cost_usd, usage.cost_by) = (cost, Some(by));
    Some(usage)
}

/// What all attempts cost, and who says so; without a cost, why there is none.
fn cost(attempts: &[AttemptUsage], prices: Option<&Prices>) -> (Option<f64>, String) {
    let (mut sum, mut by_claude, mut by_prices) = (0.0, false, false);
    for attempt in attempts {
        if let Some(usd) = attempt.cost_usd {
            (sum, by_claude) = (sum + usd, true);
            continue;
        }
        for used in attempt.models.iter().filter(|used| tokens(used) != Tokens::default()) {
            let Some(prices) = prices else {
                return (None, "claude named no cost, and there are no prices".to_owned());
            };
            let Some(usd) = prices.cost(&used.model, tokens(used)) else {
                let model = if used.model.is_empty() { "an unknown model" } else { &used.model };
                return (None, format!("no price of {} for {model}", prices.date()));
            };
            (sum, by_prices) = (sum + usd, true);
        }
    }
    let dated = prices.filter(|_| by_prices).map(|prices| format!("prices of {}", prices.date()));
    let by: Vec<String> = by_claude.then(|| "claude".to_owned()).into_iter().chain(dated).collect();
    (Some(sum), if by.is_empty() { "nothing was answered".to_owned() } else { by.join(" and ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        "2026-01-01: m 1/0/0/0".parse().expect("a table")
    }

    fn used(model: &str, turns: u64, input_tokens: u64) -> Used {
        Used { model: model.to_owned(), requests: turns, turns, input_tokens, ..Used::default() }
    }

    fn attempt(models: Vec<Used>, cost_usd: Option<f64>) -> AttemptUsage {
        AttemptUsage { attempt: 1, models, cost_usd }
    }

    fn ended(turns: Option<u32>, budget: Option<f64>, newest: &Used, all: &AttemptUsage) -> Option<Failure> {
        let spec = CreateTask { max_turns: turns, max_budget_usd: budget, ..CreateTask::default() };
        overspent(&spec, newest, all, Some(&prices())).map(|(failure, _)| failure)
    }

    /// S60
    #[test]
    fn turns_beyond_the_limit_and_its_margin_end_an_attempt() {
        let after =
            |turns, limit| ended(limit, None, &used("m", 1, 0), &attempt(vec![used("m", turns, 0)], None));
        assert_eq!((after(7, Some(2)), after(8, Some(2))), (None, Some(Failure::MaxTurns)));
        assert_eq!((after(130, Some(100)), after(131, Some(100))), (None, Some(Failure::MaxTurns)));
        assert_eq!(after(10_000, None), None);
    }

    /// S60: whoever says of each request that it is no turn of the main agent's is ended too.
    #[test]
    fn requests_beyond_any_turns_end_an_attempt() {
        let after = |requests, limit| {
            let newest = Used { requests: 1, ..used("m", 0, 0) };
            ended(limit, None, &newest, &attempt(vec![Used { requests, ..used("m", 0, 0) }], None))
        };
        assert_eq!((after(350, Some(2)), after(351, Some(2))), (None, Some(Failure::MaxTurns)));
        assert_eq!(after(1_000_000, None), None);
    }

    /// S60: the request that goes over the budget is not the one that ends it, but whatever is asked for after that.
    #[test]
    fn who_asks_for_more_with_the_budget_used_up_is_ended() {
        let one = used("m", 1, 1_000_000);
        let after = |millions| {
            let all = attempt(vec![used("m", millions, millions * 1_000_000)], None);
            ended(None, Some(1.0), &one, &all)
        };
        assert_eq!((after(2), after(3)), (None, Some(Failure::MaxBudget)));
        let told = |usd| ended(None, Some(1.0), &one, &attempt(vec![one.clone()], Some(usd)));
        assert_eq!((told(1.05), told(1.2)), (None, Some(Failure::MaxBudget)), "by what `claude` said");
        let unknown = attempt(vec![used("other", 9, u64::from(u32::MAX))], None);
        let newest = used("other", 1, 5);
        assert_eq!(
            ended(None, Some(1.0), &newest, &unknown),
            Some(Failure::MaxBudget),
            "at the dearest price"
        );
        let spec = CreateTask { max_budget_usd: Some(1.0), ..CreateTask::default() };
        assert_eq!(overspent(&spec, &newest, &unknown, None), None, "without prices nobody knows");
    }

    #[test]
    fn a_cost_says_who_counted_it_and_none_says_why() {
        let cost = |attempts: &[AttemptUsage]| {
            let usage = usage(attempts, Some(&prices())).expect("something was used");
            (usage.cost_usd, usage.cost_by.expect("words"))
        };
        let (told, counted) =
            (attempt(vec![used("x", 1, 9)], Some(0.5)), attempt(vec![used("m", 1, 250_000)], None));
        assert_eq!(cost(std::slice::from_ref(&told)), (Some(0.5), "claude".to_owned()));
        assert_eq!(cost(std::slice::from_ref(&counted)), (Some(0.25), "prices of 2026-01-01".to_owned()));
        assert_eq!(
            cost(&[told, counted.clone()]),
            (Some(0.75), "claude and prices of 2026-01-01".to_owned())
        );
        let unpriced = attempt(vec![used("x", 1, 9)], None);
        assert_eq!(cost(&[counted, unpriced.clone()]), (None, "no price of 2026-01-01 for x".to_owned()));
        assert_eq!(
            cost(&[attempt(vec![used("", 1, 0)], None)]),
            (Some(0.0), "nothing was answered".to_owned())
        );
        let without = usage(&[unpriced], None).expect("something was used");
        assert_eq!(without.cost_by.as_deref(), Some("claude named no cost, and there are no prices"));
        assert_eq!(usage(&[attempt(vec![], None)], None), None);
    }
}
