//! What requests and answers must look like: the public document of the Machines API, cut down to what is used, with what
//! is known to be otherwise on the wire.
//!
//! A schema here is a type, its properties, items, values and references. A property that it does not name is wrong: the
//! document names all that there are.

use serde_json::{Map, Value, json};

/// What the API does otherwise than its document says, each with a name.
pub const DEVIATIONS: [Deviation; 10] = [
    Deviation { name: "an error has other codes in `status`, and sometimes a `message`", apply: error_codes },
    Deviation { name: "a wait that was too short is answered with 408", apply: wait_late },
    Deviation { name: "an event's `request` can be null", apply: null_request },
    Deviation { name: "the names in an answer about regions begin with capitals", apply: capital_regions },
    Deviation { name: "a destroy is answered with `ok`", apply: destroy_ok },
    Deviation {
        name: "an app is also named by `app_name`, and its making is answered with it",
        apply: app_name,
    },
    Deviation { name: "an app is destroyed with `force`, and that is answered", apply: app_force },
    Deviation { name: "an address names its network", apply: address_network },
    Deviation { name: "apps have network policies", apply: policies },
    Deviation { name: "each call can be refused with a status that is not documented", apply: refusals },
];

/// One thing that is otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Deviation {
    /// What it is.
    pub name: &'static str,
    apply: fn(&mut Value),
}

/// Statuses with an error that any call can have.
const REFUSALS: [&str; 11] = ["400", "401", "403", "404", "409", "412", "422", "429", "500", "502", "503"];

fn refusals(document: &mut Value) {
    for call in document["calls"].as_array_mut().expect("a list") {
        for status in REFUSALS {
            call["answers"][status] = json!({ "$ref": "ErrorResponse" });
        }
    }
}

fn error_codes(document: &mut Value) {
    let error = &mut document["schemas"]["ErrorResponse"]["properties"];
    error["status"] = json!({ "type": "string" });
    error["message"] = json!({ "type": "string" });
}

fn wait_late(document: &mut Value) {
    call_mut(document, "wait")["answers"]["408"] = json!({ "$ref": "ErrorResponse" });
}

fn null_request(document: &mut Value) {
    document["schemas"]["MachineEvent"]["properties"]["request"] =
        json!({ "type": "object", "nullable": true });
}

fn capital_regions(document: &mut Value) {
    for schema in ["main.regionResponse", "main.regionRow"] {
        let properties = document["schemas"][schema]["properties"].as_object().expect("properties").clone();
        let capitals = properties.into_iter().map(|(name, schema)| {
            let (first, rest) = name.split_at(1);
            (format!("{}{rest}", first.to_uppercase()), schema)
        });
        document["schemas"][schema]["properties"] = Value::Object(capitals.collect());
    }
}

fn destroy_ok(document: &mut Value) {
    let calls = document["calls"].as_array_mut().expect("a list").iter_mut();
    let destroy = calls.filter(|call| call["method"] == "DELETE" && call["answers"].get("200").is_some());
    for call in destroy {
        call["answers"]["200"] = json!({ "type": "object", "properties": { "ok": { "type": "boolean" } } });
    }
}

fn app_name(document: &mut Value) {
    document["schemas"]["CreateAppRequest"]["properties"]["app_name"] = json!({ "type": "string" });
    let calls = document["calls"].as_array_mut().expect("a list").iter_mut();
    for call in calls.filter(|call| call["path"] == "/apps") {
        let properties = json!({ "id": { "type": "string" }, "created_at": { "type": "integer" } });
        call["answers"]["201"] = json!({ "type": "object", "properties": properties });
    }
}

fn app_force(document: &mut Value) {
    let calls = document["calls"].as_array_mut().expect("a list").iter_mut();
    for call in calls.filter(|call| call["method"] == "DELETE" && call["path"] == "/apps/{app_name}") {
        call["query"]["force"] = json!({ "type": "boolean" });
        call["answers"]["202"] = json!({ "type": "object" });
    }
}

fn address_network(document: &mut Value) {
    let properties = json!({ "name": { "type": "string" }, "org_slug": { "type": "string" } });
    document["schemas"]["IPAssignment"]["properties"]["network"] =
        json!({ "type": "object", "properties": properties });
}

/// As the guide to them has it.
fn policies(document: &mut Value) {
    let port = json!({ "protocol": { "type": "string" }, "port": { "type": "integer" } });
    let rule = json!({
        "action": { "type": "string", "enum": ["allow"] },
        "direction": { "type": "string", "enum": ["ingress", "egress"] },
        "ports": { "type": "array", "items": { "type": "object", "properties": port } },
    });
    let policy = json!({ "type": "object", "properties": {
        "id": { "type": "string" },
        "name": { "type": "string" },
        "selector": { "type": "object" },
        "rules": { "type": "array", "items": { "type": "object", "properties": rule } },
    } });
    let path = "/apps/{app_name}/network_policies";
    let list = json!({ "type": "array", "items": { "$ref": "NetworkPolicy" } });
    document["schemas"]["NetworkPolicy"] = policy;
    let calls = document["calls"].as_array_mut().expect("a list");
    calls.push(json!({ "method": "GET", "path": path, "query": {}, "answers": { "200": list } }));
    calls.push(json!({ "method": "POST", "path": path, "query": {}, "request": { "$ref": "NetworkPolicy" },
        "answers": { "200": { "$ref": "NetworkPolicy" } } }));
}

fn call_mut<'a>(document: &'a mut Value, last: &str) -> &'a mut Value {
    let mut calls = document["calls"].as_array_mut().expect("a list").iter_mut();
    calls.find(|call| call["path"].as_str().is_some_and(|path| path.ends_with(last))).expect("the call")
}

/// The document, as the wire has it.
#[derive(Debug)]
pub(crate) struct Document(Value);

impl Document {
    pub(crate) fn new() -> Self {
        let mut document: Value =
            serde_json::from_str(include_str!("machines-api.json")).expect("the document is JSON");
        for deviation in DEVIATIONS {
            (deviation.apply)(&mut document);
        }
        Self(document)
    }

    /// What is wrong with a request to `path`, whose parts in braces are any.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        query: &[(String, String)],
        body: Option<&Value>,
    ) -> Result<(), String> {
        let call = self.call(method, path)?;
        for (name, value) in query {
            let schema = call["query"].get(name).ok_or_else(|| format!("there is no parameter `{name}`"))?;
            self.check(schema, &typed(schema, value), name)?;
        }
        match (call.get("request"), body) {
            (Some(schema), Some(body)) => self.check(schema, body, "body"),
            (Some(_), None) => Err("it has no body".to_owned()),
            (None, Some(_)) => Err("it has a body".to_owned()),
            (None, None) => Ok(()),
        }
    }

    /// What is wrong with an answer.
    pub(crate) fn answer(&self, method: &str, path: &str, status: u16, body: &Value) -> Result<(), String> {
        let call = self.call(method, path)?;
        let schema = call["answers"].get(status.to_string());
        self.check(schema.ok_or_else(|| format!("it is never answered with {status}"))?, body, "body")
    }

    fn call(&self, method: &str, path: &str) -> Result<&Value, String> {
        let is_it = |call: &&Value| {
            let template = call["path"].as_str().expect("a path");
            call["method"] == method && matches(template, path)
        };
        self.0["calls"]
            .as_array()
            .expect("a list")
            .iter()
            .find(is_it)
            .ok_or_else(|| "there is no such call".to_owned())
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            return self.check(&self.0["schemas"][name], value, at);
        }
        if value.is_null() && schema["nullable"] == true {
            return Ok(());
        }
        let kind = schema["type"].as_str().unwrap_or("any");
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            _ => true,
        };
        if !fits {
            return Err(format!("{at} is {value}, and not of type {kind}"));
        }
        if let Some(values) = schema["enum"].as_array().filter(|values| !values.contains(value)) {
            return Err(format!("{at} is {value}, and not one of {}", Value::from(values.clone())));
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            for (index, item) in values.iter().enumerate() {
                self.check(items, item, &format!("{at}[{index}]"))?;
            }
        }
        value.as_object().map_or(Ok(()), |object| self.check_object(schema, object, at))
    }

    fn check_object(&self, schema: &Value, object: &Map<String, Value>, at: &str) -> Result<(), String> {
        let (known, others) = (schema["properties"].as_object(), schema.get("additionalProperties"));
        if known.is_none() && others.is_none() {
            return Ok(());
        }
        for (name, value) in object {
            let schema = known.and_then(|known| known.get(name)).or(others);
            let schema = schema.ok_or_else(|| format!("{at} has no property `{name}`"))?;
            self.check(schema, value, &format!("{at}.{name}"))?;
        }
        Ok(())
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let same = |(expected, got): (&&str, &&str)| expected.starts_with('{') || expected == got;
    template.len() == path.len() && template.iter().zip(&path).all(same)
}

/// A parameter's text as what it stands for.
fn typed(schema: &Value, text: &str) -> Value {
    match schema["type"].as_str() {
        Some("string") | None => text.into(),
        Some(_) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINES: &str = "/apps/a/machines";

    fn create(body: &Value) -> Result<(), String> {
        Document::new().request("POST", MACHINES, &[], Some(body))
    }

    #[test]
    fn a_request_is_held_to_the_document() {
        assert_eq!(create(&json!({"name": "a", "config": {"restart": {"policy": "no"}}})), Ok(()));
        let wrong = create(&json!({"config": {"restart": {"policy": "sometimes"}}})).expect_err("wrong");
        assert!(wrong.starts_with("body.config.restart.policy is \"sometimes\", and not one of"), "{wrong}");
        assert_eq!(create(&json!({"colour": 1})), Err("body has no property `colour`".to_owned()));
        let wrong = create(&json!({"config": {"guest": {"cpus": "2"}}}));
        assert_eq!(wrong, Err("body.config.guest.cpus is \"2\", and not of type integer".to_owned()));
        let document = Document::new();
        let wrong = document.request("GET", MACHINES, &[("colour".to_owned(), "red".to_owned())], None);
        assert_eq!(wrong, Err("there is no parameter `colour`".to_owned()));
        let wait = "/apps/a/machines/1/wait";
        let query = |timeout: &str| [("timeout".to_owned(), timeout.to_owned())];
        assert!(document.request("GET", wait, &query("60"), None).is_ok());
        assert!(document.request("GET", wait, &query("long"), None).is_err());
        assert_eq!(document.request("PUT", wait, &[], None), Err("there is no such call".to_owned()));
    }

    #[test]
    fn an_answer_is_held_to_the_document_and_its_deviations() {
        let document = Document::new();
        let answer = |status, body: Value| document.answer("GET", "/apps/a/machines/1", status, &body);
        assert_eq!(answer(200, json!({"id": "1", "events": [{"type": "launch", "request": null}]})), Ok(()));
        assert!(answer(200, json!({"id": null})).is_err());
        assert_eq!(answer(404, json!({"error": "x", "status": "name_taken"})), Ok(()));
        assert_eq!(answer(418, json!({})), Err("it is never answered with 418".to_owned()));
        let regions = json!({"Regions": [{"Code": "iad"}]});
        assert_eq!(document.answer("GET", "/platform/regions", 200, &regions), Ok(()));
    }
}
