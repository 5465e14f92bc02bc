//! What the agents of the demo do, answer by answer.
//!
//! An agent of the pinned CLI has Read, Edit, Write and Bash; it searches with `grep` through Bash.

use serde_json::json;

use crate::reply::{Block, Rhythm, Turn};
use crate::scenario::{call, says};

const OLD_WORDS: &str = "# A word ends where a space follows it.
count_words() {";
const NEW_WORDS: &str = "# A word ends where a space follows it, or where its line ends.
count_words() {";
const OLD_LOOP: &str = r#"            fi
        done
    done
    echo "$words""#;
const NEW_LOOP: &str = r#"            fi
        done
        words=$((words + in_word))
    done
    echo "$words""#;

const TOP_TEST: &str = r#"top() { # top N TEXT: the words that `tally --top` lists, each as WORD:TIMES
    printf "$2" | ./tally --top "$1" | while read -r times word; do printf '%s:%s ' "$word" "$times"; done
}

check 'the most frequent word comes first' 'b:3 a:2 c:1 ' "$(top 5 'b a c\nb a\nb\n')"
check 'no more words than asked for' 'b:3 a:2 ' "$(top 2 'b a c\nb a\nb\n')"
check 'equally frequent words come in order' 'a:1 b:1 c:1 ' "$(top 3 'c\nb\na\n')"
check '--top without a number is an error' 1 "$(./tally --top >/dev/null 2>&1 </dev/null; echo $?)"
"#;

const OLD_USAGE: &str = "    ./tally < FILE                       a text on standard input
";
const NEW_USAGE: &str = "    ./tally < FILE                       a text on standard input
    ./tally --top N FILE...              the N most frequent words of each file, see below
";
const OLD_HEADING: &str = "## Tests
";
const NEW_HEADING: &str = "## The most frequent words

`--top N` lists the N most frequent words, each after the number of times it occurs. Words that occur equally often
come in alphabetical order. What stands between spaces is a word, so `boats` and `boats,` are two.

    $ ./tally --top 3 samples/harbour.txt
         12 the
          5 and
          3 boats

## Tests
";

const OLD_FIRST: &str = r#"if (($# == 0)); then
    # `all` reads the text three times, so it is kept in a file.
    text=$(mktemp)
    trap 'rm -f "$text"' EXIT
    cat >"$text"
    case $what in
    lines) echo "$(count_lines <"$text")" ;;
    words) echo "$(count_words <"$text")" ;;
    chars) echo "$(count_chars <"$text")" ;;
    top) top_words "$most" <"$text" ;;
    all) echo "$(count_lines <"$text") $(count_words <"$text") $(count_chars <"$text")" ;;
    esac
fi
"#;
const NEW_FIRST: &str = r#"# report FILE [LABEL]: prints what was asked for, with a label where there is one.
report() {
    local label=${2:+ $2}
    case $what in
    lines) echo "$(count_lines <"$1")$label" ;;
    words) echo "$(count_words <"$1")$label" ;;
    chars) echo "$(count_chars <"$1")$label" ;;
    top) top_words "$most" <"$1" ;;
    all) echo "$(count_lines <"$1") $(count_words <"$1") $(count_chars <"$1")$label" ;;
    esac
}

if (($# == 0)); then
    # `all` reads the text three times, so it is kept in a file.
    text=$(mktemp)
    trap 'rm -f "$text"' EXIT
    cat >"$text"
    report "$text"
fi
"#;
const OLD_SECOND: &str = r#"    case $what in
    lines) echo "$(count_lines <"$file") $file" ;;
    words) echo "$(count_words <"$file") $file" ;;
    chars) echo "$(count_chars <"$file") $file" ;;
    top) top_words "$most" <"$file" ;;
    all) echo "$(count_lines <"$file") $(count_words <"$file") $(count_chars <"$file") $file" ;;
    esac
"#;
const NEW_SECOND: &str = "    report \"$file\" \"$file\"\n";

const FINDINGS: &str = "# Findings

1. `count_lines` in `lib/count.sh` does not count a last line without a newline, which the README says is one.
   See: `printf 'one\\ntwo' | ./tally --lines` prints 1.
";

/// What the refactoring compares before and after.
const PRINT_ALL: &str = "for what in '' --lines --words --chars '--top 3'; do \
    ./tally $what samples/harbour.txt; ./tally $what <samples/harbour.txt; done";

/// Where it keeps what was printed before: outside of the repository, and a place of its own.
const BEFORE: &str = "\"/tmp/before$(pwd | tr / -)\"";

pub(crate) fn fix() -> Vec<Turn> {
    vec![
        act("I'll run the tests first, to see what fails.", vec![bash("./test.sh", "Run all checks")]),
        act(
            "Both failing checks are about words at the end of a line. I'll look at how words are counted.",
            vec![
                bash("grep -n count_words -r . --include='*.sh' tally", "Find where words are counted"),
                read("lib/count.sh"),
            ],
        ),
        act(
            "There it is: a word is added only when a space comes after it, so the last word of each line is lost \
             unless the line ends with a space. That also explains the check that passes. The count has to be \
             completed where the line ends.",
            vec![edit("lib/count.sh", OLD_LOOP, NEW_LOOP)],
        ),
        act(
            "The comment above the function says the same wrong thing.",
            vec![edit("lib/count.sh", OLD_WORDS, NEW_WORDS)],
        ),
        act(
            "Now the tests again, and one real text, against `wc`.",
            vec![
                bash("./test.sh", "Run all checks"),
                bash("./tally --words samples/harbour.txt; wc -w samples/harbour.txt", "Compare with wc"),
            ],
        ),
        done(
            "Fixed: `tally` lost the last word of every line.\n\n\
             - **Cause**: `count_words` in `lib/count.sh` added a word only at the space after it, and nothing did so at \
             the end of a line.\n\
             - **Fix**: the open word is added once the line is read; the comment now says so.\n\
             - **Checked**: `./test.sh` had 2 failures before and now passes all 6 checks; on `samples/harbour.txt` \
             `tally` and `wc -w` agree on 52 words.",
        ),
    ]
}

pub(crate) fn test() -> Vec<Turn> {
    vec![
        act(
            "Let me see how the present checks are written and what `--top` promises.",
            vec![read("test.sh"), read("test/words.sh"), read("lib/count.sh")],
        ),
        act(
            "`top_words` sorts by frequency, then alphabetically, and cuts after N. I'll see its raw output before I \
             write down what to expect.",
            vec![bash(
                "printf 'b a c\\nb a\\nb\\n' | ./tally --top 2 | cat -A",
                "Show the exact output of --top",
            )],
        ),
        act(
            "The counts are padded, so the checks should not depend on the width. One helper and four checks.",
            vec![write("test/top.sh", TOP_TEST)],
        ),
        act(
            "Now I'll run the new file, then everything.",
            vec![
                bash("./test.sh test/top.sh", "Run the new checks"),
                bash("./test.sh | tail -n 8", "Run all checks"),
            ],
        ),
        act(
            "A check that cannot fail is worth nothing, so I'll break the sorting in a copy and see that they notice.",
            vec![bash(
                "copy=$(mktemp -d) && cp -r . \"$copy\" && sed -i 's/sort -k1,1nr -k2/sort -k2/' \"$copy/lib/count.sh\" \
                 && \"$copy/test.sh\" test/top.sh; rm -rf \"$copy\"",
                "Run the new checks on a broken copy",
            )],
        ),
        done(
            "Added `test/top.sh` with four checks for `tally --top`: the order by frequency, the limit, the order of \
             equally frequent words, and the error when the number is missing.\n\n\
             All four pass; with the sorting broken in a throw-away copy, two of them fail, as they should.\n\n\
             Note: `./test.sh` as a whole still reports 2 failures. Both are in `test/words.sh` and were there before: \
             `--words` loses the last word of a line. I left that alone, as it is another job.",
        ),
    ]
}

pub(crate) fn docs() -> Vec<Turn> {
    vec![
        act(
            "I'll read what is there and what the option really does.",
            vec![read("README.md"), read("tally"), read("lib/count.sh")],
        ),
        act(
            "The example should be real output, so I'll run it, and try what happens with ties and punctuation.",
            vec![
                bash("./tally --top 3 samples/harbour.txt", "Show the example for the README"),
                bash("printf 'boats, b a boats\\n' | ./tally --top 4", "Try ties and punctuation"),
            ],
        ),
        act("Clear enough. First the line in the overview.", vec![edit("README.md", OLD_USAGE, NEW_USAGE)]),
        act("And a section of its own, before the tests.", vec![edit("README.md", OLD_HEADING, NEW_HEADING)]),
        act(
            "I'll check that the example in the README is what the program prints.",
            vec![bash(
                "diff <(sed -n '/^    \\$ .*--top/,/^$/p' README.md | sed '1d;/^$/d;s/^    //') \
             <(./tally --top 3 samples/harbour.txt) && echo same",
                "Compare the example with real output",
            )],
        ),
        done(
            "`--top` is documented in `README.md`: a line in the overview, and a section **The most frequent words** with \
             what counts as a word, how ties are ordered, and an example.\n\n\
             The example is real: I compared it with the output of `./tally --top 3 samples/harbour.txt`, and they are \
             the same. No code was changed.",
        ),
    ]
}

pub(crate) fn refactor() -> Vec<Turn> {
    vec![
        act(
            "Before I touch anything, I'll keep what it prints now, for every option, from a file and from standard input.",
            vec![
                read("tally"),
                bash(
                    &format!("before={BEFORE}; ({PRINT_ALL}) >\"$before\"; wc -l <\"$before\""),
                    "Keep the present output",
                ),
            ],
        ),
        act(
            "The two `case` blocks differ only in the file that they read and in the name at the end. One function with an \
             optional label says both.",
            vec![edit("tally", OLD_FIRST, NEW_FIRST)],
        ),
        act("Now the loop over files uses it too.", vec![edit("tally", OLD_SECOND, NEW_SECOND)]),
        act(
            "The output has to be the same to the byte, and the tests no worse than before.",
            vec![
                bash(
                    &format!(
                        "before={BEFORE}; diff \"$before\" <({PRINT_ALL}) && echo same; rm -f \"$before\""
                    ),
                    "Compare the output with before",
                ),
                bash("./test.sh | tail -n 1", "Run all checks"),
            ],
        ),
        done(
            "`tally` now has one function, `report`, in place of two copies of the same `case`; the branch for standard \
             input and the loop over files both call it. A new option now has one place to go.\n\n\
             What it prints is the same to the byte for every option, from a file and from standard input. `./test.sh` \
             gives the same as before: 4 passed, 2 failed; those two are a bug in `lib/count.sh` that this change does \
             not touch.",
        ),
    ]
}

pub(crate) fn review() -> Vec<Turn> {
    vec![
        act(
            "I'll read the whole repository; it is small.",
            vec![read("README.md"), read("tally"), read("lib/count.sh")],
        ),
        act(
            "Three things look wrong to me besides what the tests say. I'll try each rather than guess.",
            vec![
                bash("./test.sh", "Run all checks"),
                bash("printf 'one\\ntwo' | ./tally --lines", "Count a last line without a newline"),
                bash("./tally --lines nothing.txt; echo \"exit $?\"", "Name a file that does not exist"),
                bash("printf '  a b\\n' | ./tally --top 3", "List words of an indented text"),
            ],
        ),
        act(
            "All three are real. I'll look up the lines.",
            vec![bash(
                "grep -nE 'read -r line; do|echo \"\\$\\(count_|tr -s' tally lib/count.sh",
                "Find the lines to name",
            )],
        ),
        done(
            "I found four mistakes; nothing was changed.\n\n\
             1. **Words at the end of a line are lost** (`lib/count.sh`, `count_words`): a word is added only at the space \
             after it. See: `printf 'one two\\n' | ./tally --words` prints 1. The tests show this one.\n\
             2. **A last line without a newline is not counted** (`lib/count.sh`, `count_lines`), against the README. See: \
             `printf 'one\\ntwo' | ./tally --lines` prints 1. `count_words` has the right loop condition.\n\
             3. **A file that cannot be read is not an error** (`tally`): `echo \"$(…)\"` throws the failure away. See: \
             `./tally --lines nothing.txt; echo $?` prints 0, where the README promises 1.\n\
             4. **Indented text gives an empty word** (`lib/count.sh`, `top_words`): `tr -s` turns leading spaces into an \
             empty first line. See: `printf '  a b\\n' | ./tally --top 3` lists a word without letters.\n\n\
             I would fix 3 first: a caller cannot notice it. Each of 2 to 4 needs a check; none has one.",
        ),
    ]
}

/// What it says is so whether or not the agent may write.
pub(crate) fn agent() -> Vec<Turn> {
    vec![
        act(
            "I'll see what is here, and what it is for.",
            vec![call("Glob", json!({"pattern": "**/*.sh", "path": "{cwd}"})), read("README.md")],
        ),
        act(
            "A program that counts lines has to say what a line is. I'll look at each loop that reads some.",
            vec![
                call(
                    "Grep",
                    json!({"pattern": "read -r line", "path": "{cwd}", "output_mode": "content", "-n": true}),
                ),
                read("lib/count.sh"),
            ],
        ),
        act(
            "The loop in `count_lines` ends before a last line without a newline. I'll write that down, and try it.",
            vec![
                write("FINDINGS.md", FINDINGS),
                edit("README.md", OLD_HEADING, "## Known mistakes\n\nSee FINDINGS.md.\n\n## Tests\n"),
                bash("printf 'one\\ntwo' | ./tally --lines", "Count a last line without a newline"),
            ],
        ),
        done(
            "`count_lines` in `lib/count.sh` does not count a last line without a newline: `read` gives it, and fails, and \
             the loop ends. `count_words` has the right condition.\n\n\
             I tried to write this to `FINDINGS.md` and to run it. Where I may not, that was refused above, and nothing has \
             changed.",
        ),
    ]
}

fn act(said: &str, calls: Vec<Block>) -> Turn {
    let said = Block::Text(said.into());
    Turn { rhythm: Rhythm::NATURAL, ..Turn::of([said].into_iter().chain(calls).collect()) }
}

fn done(said: &str) -> Turn {
    Turn { rhythm: Rhythm::NATURAL, ..says(said) }
}

fn at(path: &str) -> String {
    format!("{{cwd}}/{path}")
}

fn read(path: &str) -> Block {
    call("Read", json!({"file_path": at(path)}))
}

fn write(path: &str, content: &str) -> Block {
    call("Write", json!({"file_path": at(path), "content": content}))
}

fn edit(path: &str, old: &str, new: &str) -> Block {
    call("Edit", json!({"file_path": at(path), "old_string": old, "new_string": new}))
}

fn bash(command: &str, description: &str) -> Block {
    call("Bash", json!({"command": command, "description": description}))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_job_takes_a_few_seconds() {
        for (name, job) in [
            ("fix", fix()),
            ("test", test()),
            ("docs", docs()),
            ("refactor", refactor()),
            ("review", review()),
            ("agent", agent()),
        ] {
            let time: Duration = job.iter().map(Turn::duration).sum();
            assert!(Duration::from_secs(3) < time && time < Duration::from_secs(8), "{name}: {time:?}");
        }
    }
}
