//! How long the model's answers to the agents of one task may be.

/// The most tokens of one answer. An agent that is run by the main one is known by what it is told first, which is its
/// definition's prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerBounds {
    /// That of the agent that the task is run by, and of all of which nothing is said here.
    pub main: Option<u32>,
    /// Those of agents, each by its prompt.
    pub agents: Vec<(String, u32)>,
}

impl AnswerBounds {
    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.main.is_none() && self.agents.is_empty()
    }

    /// That of a request of the main agent.
    pub fn of_main(&self) -> Option<u32> {
        self.main
    }

    /// That of a request of another, which is told these texts. Where several prompts begin a text, the longest is meant;
    /// where several agents have it, the lowest bound holds.
    pub fn of_agent<'a>(&self, told: impl IntoIterator<Item = &'a str>) -> Option<u32> {
        let matching = told.into_iter().flat_map(|text| {
            let text = text.trim_start();
            self.agents.iter().filter(move |(prompt, _)| text.starts_with(prompt.trim()))
        });
        let meant = matching.min_by_key(|(prompt, tokens)| (usize::MAX - prompt.trim().len(), *tokens));
        meant.map(|(_, tokens)| *tokens).or(self.main)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_known_by_what_it_is_told_first() {
        let agents = [("Review.\n", 900), ("Review. Be brief.", 300), ("Fix it.", 500), ("Fix it.", 400)];
        let agents = agents.map(|(prompt, tokens)| (prompt.to_owned(), tokens)).into();
        let mut bounds = AnswerBounds { main: None, agents };
        for (told, tokens) in [
            ("Review.\n\nMessages from the agent", Some(900)),
            ("\nReview. Be brief.\n\nMessages", Some(300)),
            ("Fix it.", Some(400)),
            ("You are told to: Review.", None),
            ("", None),
        ] {
            assert_eq!(bounds.of_agent(["billing: x", told]), tokens, "{told}");
        }
        bounds.main = Some(700);
        assert_eq!((bounds.of_main(), bounds.of_agent(["You are another"])), (Some(700), Some(700)));
        assert_eq!(bounds.of_agent(["Review."]), Some(900), "its own stands before the main one's");
        assert!(!bounds.is_empty() && AnswerBounds::default().is_empty());
    }
}
