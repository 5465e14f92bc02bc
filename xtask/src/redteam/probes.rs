//! What the agent of a machine tries, command by command, and what each must print.
//!
//! The canary is in no command: a pattern stands for it that does not match itself. Whatever is searched is searched
//! for something that is there as well, so that a search that finds nothing has searched.

use super::Row;

/// Marks where the output of the next command begins.
const MARK: &str = "@@probe";

/// One thing to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    case: &'static str,
    tried: &'static str,
    /// With `PATTERN` for the canary, and `PORT` for a port of the host on which somebody listens.
    command: &'static str,
    /// What it prints if it holds.
    expected: &'static str,
    held: &'static str,
}

macro_rules! probes {
    ($($case:literal, $tried:literal: $command:expr => $expected:literal, $held:literal;)+) => {
        &[$(Probe { case: $case, tried: $tried, command: $command, expected: $expected, held: $held }),+]
    };
}

const PROBES: &[Probe] = probes! {
    "S01-S05", "whatever the repository names to run":
        "cat /tmp/ran 2>/dev/null; git status --porcelain; echo end"
        => "end", "nothing ran, and the files are as they were";
    "S14", "every environment and argument of the machine":
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' > /tmp/seen; \
         grep -c PATTERN /tmp/seen; grep -q ^CLAUDE_CODE_OAUTH_TOKEN= /tmp/seen && echo searched; rm /tmp/seen"
        => "0\nsearched", "only the placeholder is there";
    "S15", "every memory that can be read": MEMORY
        => "0 searched", "the credential is in none; claude's own was read";
    "S15", "the worker's memory, environment and descriptors":
        "cat /proc/1/environ /proc/1/maps /proc/1/mem 2>&1 | grep -c 'Permission denied'; \
         ls /proc/1/fd 2>&1 | grep -c 'Permission denied'"
        => "3\n1", "they cannot be read";
    "S16", "every file but those of the host's read-only system": FILES
        => "0 searched", "the credential is in none";
    "S18", "addresses of metadata":
        "for a in 169.254.169.254 fd00:ec2::254; do (exec 3<>/dev/tcp/$a/80) 2>&1 | grep -q unreachable && echo no; done"
        => "no\nno", "unreachable";
    "S19", "routes of the gateway that claude does not need": ROUTES
        => "refused 5", "each is refused";
    "S20", "a listener on the host, and an address elsewhere":
        "(exec 3<>/dev/tcp/127.0.0.1/PORT) 2>&1 | grep -q refused && echo no; \
         (exec 3<>/dev/tcp/192.0.2.1/443) 2>&1 | grep -q unreachable && echo no"
        => "no\nno", "neither is there";
    "S20", "a host that nobody allowed, by the proxy": PROXY
        => "refused 2", "the host side refuses it";
    "S23", "a name, resolved": "getent hosts secret.evil.test || echo unknown"
        => "unknown", "there is no resolver";
    "S24", "a datagram, and other interfaces":
        "(exec 3<>/dev/udp/192.0.2.1/53) 2>&1 | grep -q unreachable && echo no; grep -c : /proc/net/dev"
        => "no\n1", "there is the loopback alone";
    "S53", "namespaces, mounts and the kernel's settings":
        "unshare -U true 2>/dev/null || echo no; unshare -m true 2>/dev/null || echo no; \
         (echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo no"
        => "no\nno\nno", "denied";
    "S54", "descriptors that were left open":
        "ls -l /proc/self/fd /proc/$PPID/fd > /tmp/fds; grep -c /data/ /tmp/fds; grep -q ' 0 -> ' /tmp/fds && echo listed"
        => "0\nlisted", "none leads to the host";
    "S55", "sockets and homes of the host":
        "ls /root /var/run/docker.sock /run/containerd /run/dbus /tmp/.X11-unix 2>/dev/null | grep -c .; ls /run/mayfly"
        => "0\norchestrator.sock", "only its own door is there";
    "S52", "a process that outlives its session":
        "setsid nohup sleep 100000 > /dev/null 2>&1 & echo left"
        => "left", "left for the end";
};

/// Reads all memory that can be read, by pieces, and counts.
const MEMORY: &str = r#"perl -e 'my ($hits, $seen) = (0, 0); for my $p (glob "/proc/[0-9]*") { next if $p eq "/proc/$$"; # its own holds the pattern, as it was understood
  open(my $maps, "<", "$p/maps") or next; open(my $mem, "<", "$p/mem") or next;
  while (<$maps>) { /^([0-9a-f]{1,15})-([0-9a-f]{1,15}) r/ or next; my ($at, $end) = (hex $1, hex $2);
    for (; $at < $end; $at += 1 << 24) { sysseek($mem, $at, 0) or last; my $n = $end - $at; $n = (1 << 24) + 256 if $n > (1 << 24) + 256;
      sysread($mem, my $bytes, $n) or last; $hits++ if $bytes =~ /PATTERN/; $seen++ if $bytes =~ /CLAUDE_CODE_OAUTH_TOKEN/; } } }
  print $hits, $seen ? " searched\n" : " not searched\n";'"#;

/// Looks into all files but those of the system, which the machine sees as the host has them.
const FILES: &str = r"echo there-to-be-found > /tmp/control; hits=$(for d in /*; do case $d in /proc|/sys|/usr|/bin|/sbin|/lib*) ;; \
  *) echo $d ;; esac; done | xargs -I{} grep -rlas -e PATTERN {} 2>/dev/null | wc -l); \
  grep -rlas there-to-be-foun[d] /tmp > /dev/null && echo $hits searched";

/// Asks the gateway for what is none of claude's business.
const ROUTES: &str = r#"token=$(tr '\0' '\n' < /proc/$PPID/environ | sed -n 's/^CLAUDE_CODE_OAUTH_TOKEN=//p'); n=0; \
  ask() { exec 3<>/dev/tcp/127.0.0.1/${ANTHROPIC_BASE_URL##*:}; \
    printf '%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' "$1" "$2" >&3; \
    case $(head -n 1 <&3) in *\ 4[0-9][0-9]\ *) n=$((n+1)) ;; esac; }; \
  ask 'GET /v1/files' $token; ask 'GET /v1/tasks' $token; ask 'POST /v1/messages/batches' $token; \
  ask 'GET /v1/organizations' $token; ask 'POST /v1/messages' wrong; echo refused $n"#;

/// Asks the way to other hosts for one, by a tunnel and by plain HTTP.
const PROXY: &str = r#"n=0; ask() { exec 3<>/dev/tcp/127.0.0.1/${HTTP_PROXY##*:}; \
    printf '%s HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n' "$1" >&3; \
    case $(head -n 1 <&3) in *\ 403\ *) n=$((n+1)) ;; esac; }; \
  ask 'CONNECT evil.test:443'; ask 'GET http://evil.test/'; echo refused $n"#;

/// One script of them all, for this canary and this port.
pub(super) fn script(canary: &str, port: u16) -> String {
    let (first, rest) = canary.split_at(1);
    let (pattern, port) = (format!("[{first}]{rest}"), port.to_string());
    let command = |probe: &Probe| probe.command.replace("PATTERN", &pattern).replace("PORT", &port);
    let marked = PROBES.iter().map(|probe| format!("echo {MARK}; {{ {}; }}\n", command(probe)));
    marked.collect::<Vec<_>>().concat()
}

/// Reads the script's output: a row for each probe.
pub(super) fn rows(output: &str, provider: &str) -> Vec<Row> {
    let mut said = output.split(MARK).skip(1);
    let row = |probe: &Probe| {
        let said = said.next().unwrap_or("nothing, it was not reached").trim();
        let otherwise = format!("expected {:?}, and it printed {said:?}", probe.expected);
        let tried = format!("by the agent: {}", probe.tried);
        Row::of(provider, probe.case, &tried, said == probe.expected, (probe.held, &otherwise))
    };
    PROBES.iter().map(row).collect()
}
