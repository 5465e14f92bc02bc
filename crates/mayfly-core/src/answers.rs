//! How long the model's answers to the agents of one task may be.

use std::cmp::Reverse;

/// The most tokens of one answer. An agent that is run by the main one is known by what it is told first, which is its
/// definition's prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerBounds {
    /// That of the agent that the task is run by, and of all of which nothing is said here.
    pub main: Option<u32>,
    /// Those of all agents, each by its prompt; one that has none is told apart from others all the same.
    pub agents: Vec<(String, Option<u32>)>,
}

impl AnswerBounds {
    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.main.is_none() && self.agents.iter().all(|(_, tokens)| tokens.is_none())
    }

    /// That of a request of the main agent.
    pub fn of_main(&self) -> Option<u32> {
        self.main
    }

    /// That of a request of another, which is told these texts. Where several prompts begin a text, the longest is meant;
    /// where several agents have it, the lowest bound holds.
    pub fn of_agent(&self, told: impl IntoIterator<Item = impl AsRef<str>>) -> Option<u32> {
        let meant = told.into_iter().filter_map(|text| self.meant(text.as_ref())).min();
        meant.and_then(|(_, _, tokens)| tokens).or(self.main)
    }

    /// Whose prompt a text begins with, as it is compared: the longest prompt first, then the lowest bound, then none.
    fn meant(&self, text: &str) -> Option<(Reverse<usize>, bool, Option<u32>)> {
        let matching = self.agents.iter().filter(|(prompt, _)| text.trim_start().starts_with(prompt.trim()));
        let compared = |(prompt, tokens): &(String, Option<u32>)| {
            (Reverse(prompt.trim().len()), tokens.is_none(), *tokens)
        };
        matching.map(compared).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_known_by_what_it_is_told_first() {
        let agents = [
            ("Review.\n", Some(900)),
            ("Review. Be brief.", Some(300)),
            ("Review. And fix.", None),
            ("Fix it.", Some(500)),
            ("Fix it.", Some(400)),
            ("Fix it.", None),
        ];
        let agents = agents.map(|(prompt, tokens)| (prompt.to_owned(), tokens)).into();
        let mut bounds = AnswerBounds { main: None, agents };
        for (told, tokens) in [
            ("Review.\n\nMessages from the agent", Some(900)),
            ("\nReview. Be brief.\n\nMessages", Some(300)),
            ("Review. And fix.\n", None),
            ("Fix it.", Some(400)),
            ("You are told to: Review.", None),
            ("", None),
        ] {
            assert_eq!(bounds.of_agent(["billing: x", told]), tokens, "{told}");
        }
        bounds.main = Some(700);
        assert_eq!((bounds.of_main(), bounds.of_agent(["You are another"])), (Some(700), Some(700)));
        assert_eq!(bounds.of_agent(["Review."]), Some(900), "its own stands before the main one's");
        assert_eq!(bounds.of_agent(["Review. And fix."]), Some(700));
        let unbounded = AnswerBounds { main: None, agents: vec![("Review.".to_owned(), None)] };
        assert!(unbounded.is_empty());
        assert!(!bounds.is_empty() && AnswerBounds::default().is_empty());
    }
}
