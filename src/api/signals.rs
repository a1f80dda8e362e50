//! Names of signals (signal(7)). Numbers are those of x86 and ARM.

use super::schema::SignalName;

/// Standard signals, from 1.
pub(super) const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The last real-time signal (`SIGRTMAX`); they have numbers only, because where they begin is the C library's
/// choice.
const NUMBER_MAX: i32 = 64;

/// The name of a signal: `SIGKILL`, or the number of one that has no name.
pub(crate) fn name(number: i32) -> String {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => (*name).to_owned(),
        None => number.to_string(),
    }
}

/// The number of a signal that exists.
pub(crate) fn number(signal: &SignalName) -> Option<i32> {
    let number = match signal {
        SignalName::Number(number) => i32::try_from(*number).ok()?,
        SignalName::Name(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => {
                let name = name.to_ascii_uppercase();
                let wanted = name.strip_prefix("SIG").unwrap_or(&name);
                let index = NAMES.iter().position(|known| &known[3..] == wanted)?;
                i32::try_from(index).ok()? + 1
            }
        },
    };
    (1..=NUMBER_MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_name_or_number() {
        for (text, expected) in [
            ("SIGKILL", Some(9)),
            ("term", Some(15)),
            ("15", Some(15)),
            ("SIGSYS", Some(31)),
            ("0", None),
            ("65", None),
            ("-9", None),
            ("SIG", None),
            ("", None),
            ("SIGSIGKILL", None),
        ] {
            assert_eq!(number(&SignalName::Name(text.to_owned())), expected, "{text:?}");
        }
        assert_eq!(number(&SignalName::Number(64)), Some(64));
        assert_eq!(number(&SignalName::Number(1 << 40)), None);
        for signal in 1..=31 {
            assert_eq!(number(&SignalName::Name(name(signal))), Some(signal));
        }
        assert_eq!(name(34), "34");
    }
}
