//! Finds out of a request what to play: the directive, and how many steps of it are done.
//!
//! Pure: the same body gives the same cue. What the scenarios do is not here.

use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::scenario::Scenario;

const OPENING: &str = "[script:";
const REMINDER: (&str, &str) = ("<system-reminder>", "</system-reminder>");
const CWD_LABEL: &str = "orking directory: ";

/// What to play.
#[derive(Debug)]
pub(crate) struct Cue {
    /// The name of the scenario, as the directive has it.
    pub(crate) name: String,
    pub(crate) scenario: Scenario,
    /// How many answers of it were given.
    pub(crate) step: usize,
    /// The working directory of the CLI, where the request names it.
    pub(crate) cwd: Option<String>,
}

/// The cue of a request whose body passed the checks. `None`: no directive is in it.
pub(crate) fn cue(body: &Value) -> Result<Option<Cue>, Problem> {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (at, message) in messages.iter().enumerate().rev().filter(|(_, message)| message["role"] == "user") {
        let mut last = None;
        for text in texts(&message["content"]) {
            last = directives(text)?.or(last);
        }
        if let Some((name, scenario)) = last {
            let step = messages[at..].iter().filter(|message| message["role"] == "assistant").count();
            return Ok(Some(Cue { name, scenario, step, cwd: cwd(body) }));
        }
    }
    Ok(None)
}

/// The texts of a `content`: a string, or a list of blocks.
fn texts(content: &Value) -> impl DoubleEndedIterator<Item = &str> {
    let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
    let blocks = blocks.iter().filter(|block| block["type"] == "text");
    content.as_str().into_iter().chain(blocks.filter_map(|block| block["text"].as_str()))
}

/// The last directive of a text. One inside the value of another is a part of that.
fn directives(text: &str) -> Result<Option<(String, Scenario)>, Problem> {
    let text = without_reminders(text);
    let mut rest = text.as_str();
    let mut last = None;
    while let Some(start) = rest.find(OPENING) {
        let (name, arguments, after) = parse(&rest[start + OPENING.len()..])
            .map_err(|why| Problem::invalid(format!("script directive: {why}")))?;
        rest = after;
        last = Some((name, arguments));
    }
    last.map(|(name, arguments)| Ok((name.to_owned(), Scenario::named(name, &arguments)?))).transpose()
}

fn without_reminders(text: &str) -> String {
    let (opening, closing) = REMINDER;
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(opening) {
        kept.push_str(before);
        rest = inside.split_once(closing).map_or("", |(_, after)| after);
    }
    kept + rest
}

type Parsed<'a> = (&'a str, Map<String, Value>, &'a str);

/// Parses what follows the opening, and returns what follows the closing bracket too.
fn parse(text: &str) -> Result<Parsed<'_>, String> {
    let text = text.trim_start();
    let end = text.find(|c: char| c.is_whitespace() || c == ']').ok_or("`]` is missing")?;
    let (name, mut rest) = text.split_at(end);
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(']') {
            return Ok((name, arguments, after));
        }
        if rest.starts_with('{') {
            let (Value::Object(object), after) = json(rest)? else { return Err("bad object".into()) };
            arguments.extend(object);
            rest = after;
            continue;
        }
        let (key, value) = rest.split_once('=').ok_or("expected key=value, a JSON object or `]`")?;
        if key.contains(|c: char| c.is_whitespace() || c == ']') {
            return Err(format!("`{}` is not key=value", key.split_whitespace().next().unwrap_or_default()));
        }
        let (value, after) = argument(value)?;
        arguments.insert(key.to_owned(), value);
        rest = after;
    }
}

/// A value: JSON where it begins like JSON, a number or a boolean where it is one, else a bare word.
fn argument(text: &str) -> Result<(Value, &str), String> {
    if text.starts_with(['"', '[', '{']) {
        return json(text);
    }
    let end = text.find(|c: char| c.is_whitespace() || c == ']').ok_or("`]` is missing")?;
    let (word, rest) = text.split_at(end);
    let value = serde_json::from_str(word).unwrap_or_else(|_| Value::String(word.to_owned()));
    Ok((value, rest))
}

/// One JSON value from the beginning of a text.
fn json(text: &str) -> Result<(Value, &str), String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    match values.next() {
        Some(Ok(value)) => Ok((value, &text[values.byte_offset()..])),
        Some(Err(error)) => Err(format!("bad JSON: {error}")),
        None => Err("JSON is missing".into()),
    }
}

/// The CLI names its working directory in the system prompt or in a system message; the last word counts.
fn cwd(body: &Value) -> Option<String> {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let system =
        messages.iter().filter(|message| message["role"] == "system").map(|message| &message["content"]);
    let first = messages.iter().take(1).map(|message| &message["content"]);
    let mut places = first.chain([&body["system"]]).chain(system).collect::<Vec<_>>();
    places.reverse();
    places.into_iter().flat_map(texts).find_map(|text| {
        let (_, after) = text.split_once(CWD_LABEL)?;
        let path = after.lines().next()?.trim();
        path.starts_with('/').then(|| path.to_owned())
    })
}
