//! From what happened inside and outside to a verdict.

use serde::{Deserialize, Serialize};

use super::attacks::Control;

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The attack worked.
    Worked,
    /// The kernel said no.
    Refused,
    /// Nothing of what it looks for is there.
    Nothing,
    /// It was killed for the attempt.
    Killed,
    /// It did not come back in time.
    Stuck,
    /// The program itself failed: this says nothing about the wall.
    Broken,
}

/// One attempt, as a payload reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which attack.
    pub attack: String,
    /// What came of it.
    pub outcome: Outcome,
    /// An errno by name, or what was found.
    pub detail: String,
}

/// What to think of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It fails inside and works outside.
    Pass,
    /// It proves nothing here, for the reason that is given.
    Skip,
    /// It works inside, or could not be made where it must be.
    Fail,
}

/// Judges one attack by what it did inside and what its control did. The text says why.
pub fn judge(control_kind: Control, inside: Option<&Report>, control: Option<&Report>) -> (Verdict, String) {
    let Some(inside) = inside else {
        return (Verdict::Fail, "the payload ended before it reported".to_owned());
    };
    match inside.outcome {
        Outcome::Worked => return (Verdict::Fail, format!("it works: {}", inside.detail)),
        Outcome::Broken => return (Verdict::Fail, format!("it could not be made: {}", inside.detail)),
        Outcome::Stuck => return (Verdict::Fail, "it did not come back".to_owned()),
        Outcome::Refused | Outcome::Nothing | Outcome::Killed => {}
    }
    match control {
        Some(control) if control.outcome == Outcome::Worked => (Verdict::Pass, inside.detail.clone()),
        Some(control) => {
            let why =
                format!("{} inside, but outside it does not work either: {}", inside.detail, control.detail);
            (Verdict::Skip, why)
        }
        None => (Verdict::Skip, format!("{} inside; {}", inside.detail, control_kind.absence())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome) -> Report {
        Report { attack: "a".to_owned(), outcome, detail: "EPERM".to_owned() }
    }

    #[test]
    fn only_a_refusal_whose_control_works_passes() {
        let verdict = |inside: Option<Outcome>, control: Option<Outcome>| {
            let (inside, control) = (inside.map(report), control.map(report));
            judge(Control::Scratch, inside.as_ref(), control.as_ref()).0
        };
        for refused in [Outcome::Refused, Outcome::Nothing, Outcome::Killed] {
            assert_eq!(verdict(Some(refused.clone()), Some(Outcome::Worked)), Verdict::Pass);
            assert_eq!(verdict(Some(refused.clone()), Some(Outcome::Refused)), Verdict::Skip);
            assert_eq!(verdict(Some(refused), None), Verdict::Skip);
        }
        for control in [Some(Outcome::Worked), Some(Outcome::Refused), None] {
            for wrong in [Some(Outcome::Worked), Some(Outcome::Stuck), Some(Outcome::Broken), None] {
                assert_eq!(verdict(wrong, control.clone()), Verdict::Fail);
            }
        }
    }
}
