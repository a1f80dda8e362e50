//! Profiles: the JSON that people review, resolved into one table by system call number.
//!
//! ```text
//! { "why", "extends"?, "default_errno"?,
//!   "withdraw":  [{ "why", "syscalls" }]                     inherited rules of these calls are dropped
//!   "deny":      [{ "why", "syscalls", "errno", "args"? }]   asked first; without args nothing may allow it
//!   "allow":     [{ "why", "syscalls", "args"? }]            all args of a rule must match, any rule suffices
//!   "otherwise": [{ "why", "syscalls", "errno" }] }          the answer when no rule allows; else default_errno
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SeccompError;
use super::syscalls;

/// The built-in profiles by name.
const PROFILES: [(&str, &str); 10] = [
    ("command-default", include_str!("../../../seccomp-profiles/command-default.json")),
    ("command-hardened", include_str!("../../../seccomp-profiles/command-hardened.json")),
    ("command-compat", include_str!("../../../seccomp-profiles/command-compat.json")),
    ("serve", include_str!("../../../seccomp-profiles/serve.json")),
    ("launch", include_str!("../../../seccomp-profiles/launch.json")),
    ("agent", include_str!("../../../seccomp-profiles/agent.json")),
    ("bucket", include_str!("../../../seccomp-profiles/bucket.json")),
    ("fetch", include_str!("../../../seccomp-profiles/fetch.json")),
    ("gateway", include_str!("../../../seccomp-profiles/gateway.json")),
    ("unpack", include_str!("../../../seccomp-profiles/unpack.json")),
];

/// The errnos that profiles answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Errno {
    Eperm,
    Enosys,
    Einval,
    Enomem,
    Enotty,
    Eopnotsupp,
    Enoprotoopt,
    Eafnosupport,
}

impl Errno {
    /// The number that the kernel returns, negated, to the caller.
    pub(super) fn number(self) -> u32 {
        let number = match self {
            Self::Eperm => libc::EPERM,
            Self::Enosys => libc::ENOSYS,
            Self::Einval => libc::EINVAL,
            Self::Enomem => libc::ENOMEM,
            Self::Enotty => libc::ENOTTY,
            Self::Eopnotsupp => libc::EOPNOTSUPP,
            Self::Enoprotoopt => libc::ENOPROTOOPT,
            Self::Eafnosupport => libc::EAFNOSUPPORT,
        };
        number.unsigned_abs()
    }
}

/// 32 bits, written as a number or, where bits matter, as `"0x…"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Word(pub(super) u32);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Decimal(u32),
    Hexadecimal(String),
}

impl TryFrom<Written> for Word {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Decimal(value) => Ok(Self(value)),
            Written::Hexadecimal(text) => text
                .strip_prefix("0x")
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .map(Self)
                .ok_or_else(|| format!("{text} is not a 32-bit hexadecimal number")),
        }
    }
}

/// What one argument must be. Compared by its lower 32 bits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Condition {
    Eq { index: u8, value: Word },
    Ne { index: u8, value: Word },
    Ge { index: u8, value: Word },
    In { index: u8, values: Vec<Word> },
    MaskedEq { index: u8, mask: Word, value: Word },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "for the reader of the file; its presence is what is checked")]
    why: String,
    extends: Option<String>,
    default_errno: Option<Errno>,
    #[serde(default)]
    withdraw: Vec<Withdrawal>,
    #[serde(default)]
    deny: Vec<Denial>,
    #[serde(default)]
    allow: Vec<Permission>,
    #[serde(default)]
    otherwise: Vec<Answer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Withdrawal {
    #[expect(dead_code, reason = "for the reader of the file; its presence is what is checked")]
    why: String,
    syscalls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Denial {
    #[expect(dead_code, reason = "for the reader of the file; its presence is what is checked")]
    why: String,
    syscalls: Vec<String>,
    errno: Errno,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Permission {
    why: String,
    syscalls: Vec<String>,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[expect(dead_code, reason = "for the reader of the file; its presence is what is checked")]
    why: String,
    syscalls: Vec<String>,
    errno: Errno,
}

/// What is decided about one system call. No conditions means always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) deny: Vec<(Vec<Condition>, Errno)>,
    pub(super) allow: Vec<Vec<Condition>>,
    pub(super) otherwise: Option<Errno>,
}

impl Call {
    /// The errno that refuses this call whatever its arguments.
    fn denied_always(&self) -> Option<Errno> {
        self.deny.iter().find(|(conditions, _)| conditions.is_empty()).map(|(_, errno)| *errno)
    }
}

/// A profile with everything it extends.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) calls: BTreeMap<u32, Call>,
    /// The answer to all other calls; `None` allows them, which only a filter on top of another may do.
    pub(super) default: Option<Errno>,
}

impl Table {
    /// The start of a filter that only takes away.
    pub(super) fn allowing_everything() -> Self {
        Self { calls: BTreeMap::new(), default: None }
    }

    /// Refuses `name` with the errno that `other` has for it when nothing allows it.
    pub(super) fn copy_refusal(&mut self, other: &Self, name: &str) {
        let Some(number) = syscalls::number(name) else { return };
        let call = other.calls.get(&number);
        let errno = call.and_then(|call| call.denied_always().or(call.otherwise)).or(other.default);
        if let Some(errno) = errno {
            let call = Call { deny: vec![(Vec::new(), errno)], ..Call::default() };
            self.calls.insert(number, call);
        }
    }

    /// Allows `name`, whatever was said of it.
    pub(super) fn allow_always(&mut self, name: &str) {
        if let Some(number) = syscalls::number(name) {
            self.calls.insert(number, Call { allow: vec![Vec::new()], ..Call::default() });
        }
    }

    /// Allows `name` when argument `index` is one of `values`, and refuses it with `EPERM` otherwise.
    pub(super) fn allow_when(&mut self, name: &str, index: u8, values: &[u32]) {
        if let Some(number) = syscalls::number(name) {
            let values = values.iter().copied().map(Word).collect();
            let conditions = vec![Condition::In { index, values }];
            let call = Call { allow: vec![conditions], otherwise: Some(Errno::Eperm), ..Call::default() };
            self.calls.insert(number, call);
        }
    }
}

/// Reads a built-in profile and what it extends.
pub(super) fn load(name: &str) -> Result<Table, SeccompError> {
    resolve(name, &read(name)?)
}

/// A table for each system call of each rule of a profile: the profile without it. What it was is in words.
#[cfg(test)]
pub(super) fn mutants(name: &str) -> Vec<(String, String, Result<Table, SeccompError>)> {
    let (_, text) = PROFILES.iter().find(|(known, _)| *known == name).expect("a profile");
    let whole: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let mut mutants = Vec::new();
    for section in ["withdraw", "deny", "allow", "otherwise"] {
        for (index, rule) in whole[section].as_array().into_iter().flatten().enumerate() {
            for (at, syscall) in rule["syscalls"].as_array().expect("calls").iter().enumerate() {
                let mut without = whole.clone();
                without[section][index]["syscalls"].as_array_mut().expect("calls").remove(at);
                let file: File = serde_json::from_value(without).expect("a profile");
                let syscall = syscall.as_str().expect("a name").to_owned();
                let what =
                    format!("{name}: {section} {syscall}: {}", rule["why"].as_str().expect("a reason"));
                mutants.push((what, syscall, resolve(name, &file)));
            }
        }
    }
    mutants
}

fn resolve(name: &str, file: &File) -> Result<Table, SeccompError> {
    let mut table = match &file.extends {
        Some(base) => load(base)?,
        None => Table { calls: BTreeMap::new(), default: None },
    };
    table.default = file.default_errno.or(table.default);
    if table.default.is_none() {
        return Err(SeccompError::NoDefault { profile: name.to_owned() });
    }
    for rule in &file.withdraw {
        for syscall in numbers(name, &rule.syscalls)? {
            if table.calls.remove(&syscall).is_none() {
                return Err(SeccompError::NothingToWithdraw { profile: name.to_owned(), syscall });
            }
        }
    }
    for rule in &file.deny {
        for syscall in numbers(name, &rule.syscalls)? {
            table.calls.entry(syscall).or_default().deny.push((rule.args.clone(), rule.errno));
        }
    }
    for rule in &file.allow {
        for syscall in numbers(name, &rule.syscalls)? {
            table.calls.entry(syscall).or_default().allow.push(rule.args.clone());
        }
    }
    for rule in &file.otherwise {
        for syscall in numbers(name, &rule.syscalls)? {
            table.calls.entry(syscall).or_default().otherwise = Some(rule.errno);
        }
    }
    match table.calls.iter().find(|(_, call)| call.denied_always().is_some() && !call.allow.is_empty()) {
        Some((syscall, _)) => {
            Err(SeccompError::Contradiction { profile: name.to_owned(), syscall: *syscall })
        }
        None => Ok(table),
    }
}

/// The reasons of the profile's own `allow` rules.
pub(super) fn reasons_to_allow(name: &str) -> Result<Vec<String>, SeccompError> {
    Ok(read(name)?.allow.into_iter().map(|rule| rule.why).collect())
}

fn read(name: &str) -> Result<File, SeccompError> {
    let (_, text) = PROFILES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| SeccompError::UnknownProfile { name: name.to_owned() })?;
    serde_json::from_str(text).map_err(|source| SeccompError::Parse { name: name.to_owned(), source })
}

fn numbers(profile: &str, names: &[String]) -> Result<Vec<u32>, SeccompError> {
    names
        .iter()
        .map(|name| {
            syscalls::number(name).ok_or_else(|| SeccompError::UnknownSyscall {
                profile: profile.to_owned(),
                syscall: name.clone(),
            })
        })
        .collect()
}
