//! Rules about hosts: no text makes their readers panic, what is read reads back as it is written, no address is a name,
//! and a rule allows what has its labels and nothing else.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use mayfly_core::host::{Host, Rule, Target, USUAL_PORTS};

fn labels(name: &str) -> Vec<String> {
    name.split('.').map(str::to_owned).collect()
}

fuzz_target!(|texts: (&str, &str)| {
    let (rule, target) = (texts.0.parse::<Rule>(), Target::parse(texts.1, Some(443)));
    if let Ok(rule) = &rule {
        assert_eq!(rule.to_string().parse().as_ref(), Ok(rule));
    }
    if let Ok(target) = &target {
        assert_eq!(Target::parse(&target.to_string(), None).as_ref(), Ok(target));
        let name = target.host.as_str();
        assert_eq!(name.parse::<Host>().as_ref(), Ok(&target.host));
        assert!(name.parse::<IpAddr>().is_err() && !name.ends_with('.'), "{name}");
    }
    if let (Ok(rule), Ok(target)) = (rule, target) {
        let text = rule.to_string();
        let (name, port) = text.split_once(':').map_or((&*text, None), |(name, port)| (name, Some(port)));
        let at = port.map_or(USUAL_PORTS.contains(&target.port), |port| port == target.port.to_string());
        let own = labels(target.host.as_str());
        let named = match name.strip_prefix("*.") {
            Some(above) => own.len() > labels(above).len() && own.ends_with(&labels(above)),
            None => own == labels(name),
        };
        assert_eq!(rule.allows(&target), at && named, "{text} {target}");
    }
});
