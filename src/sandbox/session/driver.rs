//! What a session's bash is told, and what it says: text only, no system calls.
//!
//! ```text
//! serve                                   bash: driver.bash, then loop.bash over and over
//!   script into memory file 21
//!   input  into memory file 22
//!   one line on socket 20         ──▶     read; eval: `. script`, as if typed at the top of a script
//!                                 ◀──     "nonce status flags"
//! ```
//!
//! - The three descriptors are led elsewhere around the loop, so bash keeps what they were, close-on-exec: programs do
//!   not inherit them. It takes the first numbers above that of what they are led to: 250, 251 and 252, where scripts
//!   have nothing, while they and bash itself use those from 10 on. The shell's own code could write to them; a result
//!   that does not name the nonce is no result. A shell that has closed one of them ends, before it runs what is not
//!   ours.
//! - `.` and not `eval`: line numbers, `return` and syntax errors are the script's own, and its length is not bounded
//!   by what bash reads from a socket, which is one byte at a time.
//! - `! .`: the script's status must not be a failure of *our* line under `set -e`. `PIPESTATUS` has it.
//! - `set -e`, `-x` and `-v` are off between scripts, so that none of this is traced, echoed or fatal; they are set
//!   again at the beginning of the script's own first line.
//! - A restricted shell (`set -r`) may not write to our socket; it ends instead, as nothing else can be done with it.
//! - `break` outside of a loop of the script would break ours, and `continue` skip the report. Then the next round, or
//!   the next copy of the loop, finds that a line was not answered, and reports `-`.
//! - bash is started with `-i` and a script: without prompts, history and job control, but aliases work, errors of
//!   expansion do not end it, and files like `.bashrc` do not turn back at their first line.
//!
//! A script that is to end, whatever it is in the middle of, gets signal [`INTERRUPT`]. Its trap returns from the
//! innermost function or from the script, and makes a DEBUG trap do the same for what is left above (bash(1),
//! `extdebug`). [`recover`] takes that back. What never returns to bash's own loop (`read < /dev/zero`) cannot be ended
//! so; then the session is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The signal that ends a script: a real-time signal that nothing else uses.
pub(super) const INTERRUPT: i32 = 57;

/// How bash is started; its standard input is the driver.
pub(super) const ARGV: [&str; 7] = ["bash", "--norc", "--noprofile", "-i", "+m", "+H", "/proc/self/fd/0"];

/// Where bash has the script, and its input; the socket has the number before.
const SCRIPT: &str = "/proc/self/fd/251";
const INPUT: &str = "/proc/self/fd/252";

/// Copies of the loop: how often one session may break ours.
const LOOPS: usize = 24;

/// The driver.
pub(super) fn driver() -> String {
    let mut text = include_str!("driver.bash").to_owned();
    for _ in 0..LOOPS {
        text.push_str(include_str!("loop.bash"));
    }
    text
}

/// What bash said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The script's status; `None` when its directory could not be entered.
    pub(super) status: Option<u8>,
    /// `$-` when it had ended.
    pub(super) flags: String,
}

impl Report {
    /// Reads a line, if it answers this nonce or nobody in particular.
    pub(super) fn parse(line: &str, nonce: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (name, status, flags) = (words.next()?, words.next()?, words.next()?);
        if name != nonce && name != "-" {
            return None;
        }
        let status = if status == "cwd" { None } else { Some(status.parse().ok()?) };
        Some(Self { status, flags: flags.to_owned() })
    }
}

/// A script to run.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// What the answer will begin with.
    pub(super) nonce: &'a str,
    /// Status of the script before, for `$?`.
    pub(super) status: u8,
    /// Directory for this script alone.
    pub(super) cwd: Option<&'a str>,
    /// Variables for this script alone; names must be [`is_name`].
    pub(super) env: &'a BTreeMap<String, String>,
    /// Whether its input is the memory file; else it has the session's.
    pub(super) input: bool,
}

impl Line<'_> {
    /// The line that runs the script.
    pub(super) fn write(&self) -> String {
        let mut run = format!("[[ -r {SCRIPT} && -r {INPUT} ]] || builtin exit; ");
        run.push_str(&self.with_directory());
        run.push('\n');
        run
    }

    /// The script, in its directory.
    fn with_directory(&self) -> String {
        let run = self.sourced();
        let Some(cwd) = self.cwd else { return run };
        let failed = report(self.nonce, "cwd", "$-");
        format!(
            "__stockade_cwd=$PWD; if builtin cd -- {} 2>/dev/null; then {run}; \
             builtin cd -- \"$__stockade_cwd\" 2>/dev/null; else {failed}; fi",
            quoted(cwd)
        )
    }

    /// The script and its report.
    fn sourced(&self) -> String {
        let mut run = "! ".to_owned();
        for (name, value) in self.env {
            // Writing to a string does not fail.
            let _ = write!(run, "{name}={} ", quoted(value));
        }
        // With `builtin` before it, programs would not see the variables.
        run.push_str(if self.env.is_empty() { "builtin . " } else { ". " });
        run.push_str(SCRIPT);
        if self.input {
            run.push_str(" <");
            run.push_str(INPUT);
        }
        if self.status != 0 {
            run = format!("if __stockade {}; then :; else {run}; fi", self.status);
        }
        run.push_str("; ");
        run.push_str(&report(self.nonce, "${PIPESTATUS[0]}", "$-"));
        run
    }
}

fn report(nonce: &str, status: &str, flags: &str) -> String {
    format!(
        "{{ builtin printf '%s\\n' \"{nonce} {status} {flags}\" >&250; builtin set +exv; __stockade=; }} 2>/dev/null || builtin exit"
    )
}

/// The script as it is written: after the options that it is to have.
pub(super) fn script(text: &str, flags: &str) -> String {
    let options: String = flags.chars().filter(|flag| "exvET".contains(*flag)).collect();
    if options.is_empty() { text.to_owned() } else { format!("set -{options};{text}") }
}

/// Takes back what an interruption has set up, and says the flags from before.
pub(super) fn recover(nonce: &str) -> String {
    format!(
        "{{ builtin trap - DEBUG; builtin shopt -u extdebug; \
         builtin printf '%s\\n' \"{nonce} 0 ${{__stockade_flags:-$-}}\" >&250; \
         builtin unset __stockade_flags; builtin set +exvET; __stockade=; }} 2>/dev/null\n"
    )
}

/// Asks for the working directory and the names of the exported variables.
pub(super) fn surroundings(nonce: &str) -> String {
    format!(
        "{{ builtin printf '%s\\0' \"$PWD\" >&250; builtin compgen -e >&250; {}; }} 2>/dev/null\n",
        report(nonce, "0", "$-")
    )
}

/// Asks for the values of variables, each ended by NUL.
pub(super) fn values(nonce: &str, names: &[&str]) -> String {
    let mut line = "{ ".to_owned();
    for name in names {
        // As above.
        let _ = write!(line, "builtin printf '%s\\0' \"${{{name}-}}\"; ");
    }
    format!("{line}}} >&250 2>/dev/null; {}\n", report(nonce, "0", "$-"))
}

/// Whether bash can have a variable of this name.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Arguments as a script of one command.
pub(super) fn command(argv: &[String]) -> String {
    argv.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

/// Text as one word, on one line (bash(1), `$'string'`).
fn quoted(text: &str) -> String {
    let mut word = "$'".to_owned();
    for letter in text.chars() {
        match letter {
            '\'' | '\\' => word.extend(['\\', letter]),
            '\n' => word.push_str("\\n"),
            _ => word.push(letter),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_reads_words_as_they_were_written() {
        let words =
            ["", "a b", "it's", "\\", "\\n", "two\nlines\n", "$HOME `id` $(id)", "!x", "ä🦀", "\t\r\u{1b}"];
        let argv: Vec<String> =
            ["printf", "%s\\0"].iter().chain(&words).map(|&word| word.to_owned()).collect();
        let script = command(&argv);
        assert!(!script.contains('\n'));
        let output = std::process::Command::new("bash").arg("-c").arg(script).output().expect("bash");
        let wanted: String = words.iter().map(|word| format!("{word}\0")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    }

    #[test]
    fn only_the_answer_to_this_script_is_one() {
        let report = Report::parse("abc 7 hiB", "abc").expect("an answer");
        assert_eq!((report.status, report.flags.as_str()), (Some(7), "hiB"));
        assert_eq!(Report::parse("abc cwd hiB", "abc").expect("an answer").status, None);
        assert!(Report::parse("- 1 hiB", "abc").is_some());
        for line in ["abd 7 hiB", "abc", "abc 7", "abc x hiB", "abc 256 hiB", ""] {
            assert_eq!(Report::parse(line, "abc"), None, "{line:?}");
        }
    }

    #[test]
    fn names_that_bash_cannot_have_are_known() {
        for (name, known) in
            [("A", true), ("_a9", true), ("9a", false), ("", false), ("a-b", false), ("a\n", false)]
        {
            assert_eq!(is_name(name), known, "{name:?}");
        }
    }

    #[test]
    fn the_driver_fits_what_bash_reads_at_once() {
        assert!(driver().len() < 8192, "{}", driver().len());
    }
}
