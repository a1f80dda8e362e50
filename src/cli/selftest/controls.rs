//! The same attacks where they must work.

use std::collections::BTreeMap;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use super::Failure;
use super::subject::Subject;
use crate::selftest::{Attack, Control, Place, Report, Scene};

/// Reports by attack.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Report>, Failure> {
    let lines = text.lines().map(serde_json::from_str::<Report>);
    let reports: Vec<Report> = lines.collect::<Result<_, _>>().map_err(Failure::NotOurs)?;
    Ok(reports.into_iter().map(|report| (report.attack.clone(), report)).collect())
}

/// Runs all controls that are allowed.
pub(super) async fn run(
    neighbour: &Subject<'_>,
    attacks: &[Attack],
    scene: &Scene,
    real_root: bool,
) -> Result<BTreeMap<String, Report>, Failure> {
    let mut reports = outside(attacks, scene, real_root).await?;
    let next_door = of_kind(attacks, Control::Neighbour);
    if !next_door.is_empty() {
        let scene = Scene { attacks: next_door, inside: true, ..scene.clone() };
        reports.append(&mut neighbour.attack(&scene, super::subject::USER, Place::Sandbox).await?);
    }
    Ok(reports)
}

fn of_kind(attacks: &[Attack], kind: Control) -> Vec<String> {
    attacks.iter().filter(|attack| attack.control == kind).map(|attack| attack.name.to_owned()).collect()
}

/// Runs those that need no sandbox.
pub(super) async fn outside(
    attacks: &[Attack],
    scene: &Scene,
    real_root: bool,
) -> Result<BTreeMap<String, Report>, Failure> {
    let mut reports = BTreeMap::new();
    let kinds = [
        (Control::Scratch, Place::Scratch),
        (Control::Host, Place::Host),
        (Control::RealRoot, Place::RealRoot),
    ];
    for (kind, place) in kinds {
        let attacks = of_kind(attacks, kind);
        if attacks.is_empty() || (kind == Control::RealRoot && !real_root) {
            continue;
        }
        super::say(format!("controls in place {}: {}", super::show::place(place), attacks.len()));
        reports.append(&mut here(&Scene { attacks, ..scene.clone() }, place).await?);
    }
    Ok(reports)
}

/// Runs a payload on this host.
async fn here(scene: &Scene, place: Place) -> Result<BTreeMap<String, Report>, Failure> {
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command.args(["selftest", "--payload", super::show::place(place)]);
    told(command, scene).await
}

/// Runs a payload as the last words of a shell command.
pub(super) async fn by(command: &str, scene: &Scene) -> Result<BTreeMap<String, Report>, Failure> {
    let own = std::env::current_exe()
        .map_err(|source| Failure::Local { what: "cannot find this program".to_owned(), source })?;
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &format!("exec {command} \"$@\""), "sh"]).arg(own);
    shell.args(["selftest", "--payload", super::show::place(Place::Sandbox)]);
    told(shell, scene).await
}

/// Starts a payload, tells it the scene, and hears its reports.
async fn told(
    mut command: tokio::process::Command,
    scene: &Scene,
) -> Result<BTreeMap<String, Report>, Failure> {
    let local = |source| Failure::Local { what: "cannot run a control".to_owned(), source };
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(local)?;
    let text = serde_json::to_vec(scene).map_err(Failure::NotOurs)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).await.map_err(local)?;
    }
    let output = child.wait_with_output().await.map_err(local)?;
    // One that could not be run at all has said why on stderr; its attacks then have no control.
    parse(&String::from_utf8_lossy(&output.stdout))
}
