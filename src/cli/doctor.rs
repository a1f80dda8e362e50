//! `stockade doctor`: what the examination of this host found, for people or as JSON.

use serde::Serialize;

use super::arguments::Doctor;
use super::failure::Failure;
use super::show;
use crate::config::Config;
use crate::doctor::{self, Category, Finding, Options, Status, Verdict};

/// The exit code when no sandbox can be made here.
const UNABLE: u8 = 1;

#[derive(Serialize)]
struct Report<'a> {
    verdict: Verdict,
    findings: &'a [Finding],
}

/// Examines the host as the daemon of this configuration would find it.
pub(super) fn doctor(arguments: &Doctor, json: bool) -> Result<u8, Failure> {
    let config =
        Config::load(arguments.config.as_deref()).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut options = Options::from(&config);
    for (place, flag) in
        [(&mut options.state_dir, &arguments.state_dir), (&mut options.runtime_dir, &arguments.runtime_dir)]
    {
        if let Some(path) = flag {
            // As serve would refuse it: it would mean another place for every role.
            *place = std::path::absolute(path).map_err(|source| Failure::Local {
                what: format!("cannot use {}", path.display()),
                source,
            })?;
        }
    }
    let findings = doctor::examine(&options);
    let verdict = doctor::verdict(&findings);
    if json {
        show::print_json(&Report { verdict, findings: &findings })?;
    } else {
        show::print(&report(&findings, verdict))?;
    }
    Ok(if verdict == Verdict::Unable { UNABLE } else { 0 })
}

/// A line per finding below its heading, and two more where something is not well.
fn report(findings: &[Finding], verdict: Verdict) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or_default();
    let mut heading = None;
    for finding in findings {
        if heading != Some(finding.category) {
            heading = Some(finding.category);
            text.push_str(&format!("\n{}\n", title(finding.category)));
        }
        let name = show::safe(&finding.name);
        let found = show::safe(&finding.found);
        text.push_str(&format!("  {:<8} {name:<width$}  {found}\n", mark(finding)));
        for (word, what) in [("lost:", &finding.lost), ("mend:", &finding.mend)] {
            if let Some(what) = what {
                text.push_str(&format!("  {:<8} {:<width$}  {word} {}\n", "", "", show::safe(what)));
            }
        }
    }
    text.push_str(match verdict {
        Verdict::Ready => "\nThis host has everything that isolation wants.\n",
        Verdict::Degraded => "\nSandboxes can be made here; what is marked is weaker than it could be.\n",
        Verdict::Unable => "\nSandboxes cannot be made here until what is marked MISSING is mended.\n",
    });
    text.trim_start().to_owned()
}

fn title(category: Category) -> &'static str {
    match category {
        Category::Kernel => "Kernel",
        Category::Storage => "Storage",
        Category::Limits => "Limits",
        Category::Settings => "Settings of the host",
        Category::Host => "Host",
    }
}

/// In capitals: without it there is no sandbox.
fn mark(finding: &Finding) -> &'static str {
    match (finding.status, finding.required) {
        (Status::Ok, _) => "ok",
        (Status::Degraded, _) => "weaker",
        (Status::Missing, false) => "missing",
        (Status::Missing, true) => "MISSING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &str, status: Status) -> Finding {
        let wrong = status != Status::Ok;
        Finding {
            name: name.to_owned(),
            category: Category::Kernel,
            status,
            found: "as the kernel says".to_owned(),
            lost: wrong.then(|| "something".to_owned()),
            mend: wrong.then(|| "sysctl x=1".to_owned()),
            required: wrong,
        }
    }

    #[test]
    fn what_is_missing_comes_with_what_is_lost_and_how_to_mend_it() {
        let text = report(&[finding("a", Status::Ok), finding("bb", Status::Missing)], Verdict::Unable);
        assert_eq!(
            text,
            "Kernel\n  ok       a   as the kernel says\n  MISSING  bb  as the kernel says\n               lost: something\n               \
             mend: sysctl x=1\n\nSandboxes cannot be made here until what is marked MISSING is mended.\n"
        );
    }
}
