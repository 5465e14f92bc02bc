//! What is written to the standard input of `claude`: one JSON object a line.

use bytes::Bytes;
use serde_json::{Value, json};

/// Opens the control protocol, and right behind it the prompt: the CLI takes both without a pause.
pub fn opening(prompt: &str) -> Bytes {
    let initialize = request("initialize", &json!({"subtype": "initialize", "hooks": null}));
    let content = json!([{"type": "text", "text": prompt}]);
    let user = line(&json!({"type": "user", "message": {"role": "user", "content": content}}));
    [initialize, user].concat().into()
}

/// Asks for the end of the running turn.
pub(crate) fn interrupt() -> Bytes {
    request("interrupt", &json!({"subtype": "interrupt"})).into()
}

/// Answers a permission request: nobody is there who could say yes.
pub(crate) fn deny(request_id: &str, message: &str) -> Bytes {
    let response = json!({"behavior": "deny", "message": message});
    let response = json!({"subtype": "success", "request_id": request_id, "response": response});
    line(&json!({"type": "control_response", "response": response})).into()
}

/// Answers a request that the worker does not serve.
pub(crate) fn refuse(request_id: &str) -> Bytes {
    let response = json!({"subtype": "error", "request_id": request_id, "error": "not served here"});
    line(&json!({"type": "control_response", "response": response})).into()
}

fn request(id: &str, request: &Value) -> Vec<u8> {
    line(&json!({"type": "control_request", "request_id": id, "request": request}))
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers S43: a prompt of any shape is one line that holds it unchanged.
    #[test]
    fn any_prompt_is_one_line_that_gives_it_back() {
        for prompt in
            ["-p", "two\nlines\u{2028}", "\"}\n{\"type\":\"control_request\"}", &"x".repeat(1 << 20)]
        {
            let opening = opening(prompt);
            let lines: Vec<_> = opening.split(|&byte| byte == b'\n').collect();
            assert_eq!(lines.len(), 3, "{} lines", lines.len());
            let user: Value = serde_json::from_slice(lines[1]).expect("JSON");
            assert_eq!(user["message"]["content"][0]["text"], prompt);
            assert!(lines[2].is_empty());
        }
    }
}
