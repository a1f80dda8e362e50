//! The results: a table for people, a document for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Arguments, Failure, Row, terminal};
use crate::selftest::{Attack, Control, Group, Place, Verdict, audit};
use crate::wire::launch::Profile;

pub(super) fn profile(profile: Profile) -> &'static str {
    match profile {
        Profile::Default => "default",
        Profile::Hardened => "hardened",
        Profile::Compat => "compat",
    }
}

/// As `--payload` takes it.
pub(super) fn place(place: Place) -> &'static str {
    match place {
        Place::Sandbox => "sandbox",
        Place::Scratch => "scratch",
        Place::RealRoot => "real-root",
        Place::Host => "host",
        Place::Neighbour => "neighbour",
    }
}

/// As JSON has it.
pub(super) fn group(group: Group) -> String {
    word(&group)
}

fn word<T: Serialize>(value: &T) -> String {
    // Enums without content: strings.
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[derive(Serialize)]
struct Listed<'a> {
    attack: &'a str,
    group: Group,
    control: Control,
}

/// The attacks themselves.
pub(super) fn list(attacks: &[Attack], json: bool) -> Result<(), Failure> {
    let listed: Vec<Listed<'_>> = attacks
        .iter()
        .map(|attack| Listed { attack: attack.name, group: attack.group, control: attack.control })
        .collect();
    if json {
        return terminal::print_json(&listed);
    }
    let rows: Vec<Vec<String>> =
        listed.iter().map(|one| vec![one.attack.to_owned(), word(&one.group), word(&one.control)]).collect();
    terminal::print(&terminal::table(&["ATTACK", "GROUP", "CONTROL"], &rows))
}

#[derive(Serialize)]
struct Report<'a> {
    verdict: Verdict,
    kernel: String,
    counts: BTreeMap<String, usize>,
    attacks: &'a [Row],
    processes: &'a [audit::Row],
}

/// Everything that was found.
pub(super) fn report(
    rows: &[Row],
    roles: &[audit::Row],
    arguments: &Arguments,
    json: bool,
) -> Result<(), Failure> {
    let mut counts = BTreeMap::new();
    let verdicts = || rows.iter().map(|row| row.verdict).chain(roles.iter().map(|role| role.verdict));
    for verdict in verdicts() {
        *counts.entry(word(&verdict)).or_insert(0) += 1;
    }
    let failed = verdicts().any(|verdict| verdict == Verdict::Fail);
    let verdict = if failed { Verdict::Fail } else { Verdict::Pass };
    if json {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        return terminal::print_json(&Report { verdict, kernel, counts, attacks: rows, processes: roles });
    }
    let mut text = summary(rows);
    text.push_str(&details(rows, arguments.verbose));
    text.push_str(&processes(roles, arguments.verbose));
    let count = |verdict: Verdict| counts.get(&word(&verdict)).copied().unwrap_or(0);
    text.push_str(&format!(
        "\n{} PASS, {} FAIL, {} SKIP\n",
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Skip)
    ));
    terminal::print(&text)
}

/// A line per group, a column per sandbox and user: how many of each verdict.
fn summary(rows: &[Row]) -> String {
    let mut columns: Vec<String> = Vec::new();
    let mut cells: BTreeMap<(Group, String), [usize; 3]> = BTreeMap::new();
    for row in rows {
        let column = format!("{}/{}", row.profile, row.user);
        if !columns.contains(&column) {
            columns.push(column.clone());
        }
        cells.entry((row.group, column)).or_default()[row.verdict as usize] += 1;
    }
    let groups: std::collections::BTreeSet<Group> = rows.iter().map(|row| row.group).collect();
    let cell = |group: Group, column: &String| {
        let [pass, skip, fail] = cells.get(&(group, column.clone())).copied().unwrap_or_default();
        let mut text = format!("{pass} ok");
        for (number, word) in [(skip, "skip"), (fail, "FAIL")] {
            if number > 0 {
                text.push_str(&format!(", {number} {word}"));
            }
        }
        text
    };
    let lines: Vec<Vec<String>> = groups
        .into_iter()
        .map(|group| {
            [word(&group)].into_iter().chain(columns.iter().map(|column| cell(group, column))).collect()
        })
        .collect();
    let heads: Vec<&str> = ["ATTACKS"].into_iter().chain(columns.iter().map(String::as_str)).collect();
    terminal::table(&heads, &lines)
}

/// What did not pass, or everything; what is the same everywhere in one line.
fn details(rows: &[Row], everything: bool) -> String {
    let mut lines: Vec<(Verdict, &str, String, Vec<String>)> = Vec::new();
    for row in rows.iter().filter(|row| everything || row.verdict != Verdict::Pass) {
        let column = format!("{}/{}", row.profile, row.user);
        let same = lines
            .iter_mut()
            .find(|line| line.0 == row.verdict && line.1 == row.attack && line.2 == row.detail);
        match same {
            Some(line) => line.3.push(column),
            None => lines.push((row.verdict, row.attack, row.detail.clone(), vec![column])),
        }
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.0));
    let all =
        rows.iter().map(|row| (&row.profile, row.user)).collect::<std::collections::BTreeSet<_>>().len();
    let mut text = String::from(if lines.is_empty() { "" } else { "\n" });
    for (verdict, attack, detail, places) in lines {
        let places = if places.len() == all { String::new() } else { format!(" [{}]", places.join(" ")) };
        text.push_str(&format!("{} {attack}{places}: {}\n", word(&verdict), terminal::safe(&detail)));
    }
    text
}

fn processes(roles: &[audit::Row], everything: bool) -> String {
    let mut text = String::new();
    for role in roles.iter().filter(|role| everything || role.verdict != Verdict::Pass) {
        text.push_str(&format!(
            "{} process {} ({}), {}: {}\n",
            word(&role.verdict),
            role.pid,
            role.role,
            role.property,
            terminal::safe(&role.detail)
        ));
    }
    let passed = roles.iter().filter(|role| role.verdict == Verdict::Pass).count();
    if passed > 0 {
        let names: std::collections::BTreeSet<&str> = roles.iter().map(|role| role.role).collect();
        let names: Vec<&str> = names.into_iter().collect();
        text.push_str(&format!(
            "\nOur own processes ({}): {passed} properties as they must be\n",
            names.join(", ")
        ));
    }
    text
}

impl From<super::Profile> for Profile {
    fn from(profile: super::Profile) -> Self {
        match profile {
            super::Profile::Default => Self::Default,
            super::Profile::Hardened => Self::Hardened,
            super::Profile::Compat => Self::Compat,
        }
    }
}
