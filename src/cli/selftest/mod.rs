//! `stockade selftest`: attacks sandboxes on this host and says which attacks work.
//!
//! ```text
//! world     what the host and a neighbour have that nobody may reach
//! subjects  a sandbox per profile, attacked by an ordinary user and by its root
//! controls  the same attacks where they must work
//! show      one table for people, one document for programs
//! ```
//!
//! It is a client like any other: the payload is this program, written into the sandboxes by the files' routes and run by
//! the commands' route.

mod controls;
mod show;
mod subject;
mod world;

use std::collections::BTreeMap;

use clap::{Args, ValueEnum as _};

use super::arguments::Profile;
use super::daemon::{Daemon, Store};
use super::failure::Failure;
use super::show as terminal;
use crate::sandbox::catalog::HOST_IMAGE;
use crate::selftest::{self, Attack, Control, Place, Report, Scene, Verdict, audit};
use crate::wire::launch;
use subject::Subject;
use world::World;

/// The exit code when an attack works.
const BREACHED: u8 = 1;

pub(super) const HELP: &str = "\
Each attack is made in a sandbox of each profile, by an ordinary user and by the sandbox's root, and again outside, where nothing
stops it. PASS: it fails inside and works outside. FAIL: it works inside. SKIP: it works nowhere here, and the table says why.
Our own processes are compared with what they may be (capabilities, filters, descriptors). Ends with 1 when something fails.

Examples:
  stockade selftest                              everything, with the running daemon or one for this call
  stockade selftest --profile hardened --filter first-
  stockade selftest --json > report.json
  stockade selftest --list                       what is attacked, and where the control of each attack runs
  stockade selftest --without-sandbox            no sandbox at all: what FAIL looks like
  stockade selftest --by 'bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp'";

/// Arguments of `selftest`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Attack sandboxes of these profiles [default: all].
    #[arg(long, value_name = "PROFILE")]
    pub profile: Vec<Profile>,
    /// Attack from inside this image: it needs /bin/sh [default: host].
    #[arg(long, value_name = "REFERENCE", default_value = HOST_IMAGE, hide_default_value = true)]
    pub image: String,
    /// Make only the attacks whose name or group contains this.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Show every row, and not only those that did not pass.
    #[arg(long)]
    pub verbose: bool,
    /// Also run the controls that need the host's root: only on a host that may be lost.
    #[arg(long)]
    pub real_root: bool,
    /// Attack a process that is in no sandbox, to see that the attacks are some.
    #[arg(long)]
    pub without_sandbox: bool,
    /// Attack a process that this shell command starts instead, to compare other sandboxes.
    #[arg(long, value_name = "COMMAND", conflicts_with = "without_sandbox")]
    pub by: Option<String>,
    /// List the attacks and make none.
    #[arg(long)]
    pub list: bool,
    /// Be the program that attacks: the scene is on stdin.
    #[arg(long, hide = true, value_name = "PLACE")]
    pub payload: Option<Place>,
}

/// One attack in one sandbox by one user.
#[derive(Clone, Debug, serde::Serialize)]
struct Row {
    attack: &'static str,
    group: selftest::Group,
    control: Control,
    profile: String,
    user: &'static str,
    verdict: Verdict,
    detail: String,
}

/// Users that attack: an ordinary one, and root of the sandbox.
const USERS: [(&str, bool); 2] = [(subject::USER, false), ("0", true)];

/// `stockade selftest --payload`: to be called before anything has started a thread.
pub(super) fn payload(place: Place) -> Result<u8, Failure> {
    let local = |source| Failure::Local { what: "cannot attack".to_owned(), source };
    selftest::run(place).map(|()| 0).map_err(local)
}

/// `stockade selftest`.
pub(super) async fn selftest(daemon: Daemon, arguments: Arguments, json: bool) -> Result<u8, Failure> {
    let attacks = chosen(&arguments)?;
    if arguments.list {
        return show::list(&attacks, json).map(|()| 0);
    }
    let (rows, roles) = if let Some(command) = &arguments.by {
        (elsewhere(&attacks, command, arguments.real_root).await?, Vec::new())
    } else if arguments.without_sandbox {
        (unprotected(&attacks, &arguments).await?, Vec::new())
    } else {
        protected(daemon, &attacks, &arguments).await?
    };
    show::report(&rows, &roles, &arguments, json)?;
    let failed = rows.iter().map(|row| row.verdict).chain(roles.iter().map(|role| role.verdict));
    Ok(if failed.into_iter().any(|verdict| verdict == Verdict::Fail) { BREACHED } else { 0 })
}

fn chosen(arguments: &Arguments) -> Result<Vec<Attack>, Failure> {
    let mut attacks = selftest::all();
    if let Some(filter) = &arguments.filter {
        attacks.retain(|attack| attack.name.contains(filter) || show::group(attack.group).contains(filter));
    }
    if attacks.is_empty() {
        return Err(Failure::Usage(
            "no attack has such a name; `stockade selftest --list` shows them".to_owned(),
        ));
    }
    Ok(attacks)
}

fn names(attacks: &[Attack]) -> Vec<String> {
    attacks.iter().map(|attack| attack.name.to_owned()).collect()
}

/// Attacks sandboxes.
async fn protected(
    daemon: Daemon,
    attacks: &[Attack],
    arguments: &Arguments,
) -> Result<(Vec<Row>, Vec<audit::Row>), Failure> {
    let profiles = match &*arguments.profile {
        [] => Profile::value_variants(),
        some => some,
    };
    let store = if arguments.image == HOST_IMAGE { Store::Any } else { Store::Images };
    let connection = daemon.running_or_private(store).await?;
    let client = &connection.client;
    let world = World::make()?;
    let neighbour = Subject::create(client, &arguments.image, launch::Profile::Default, true).await?;
    let mut rows = Vec::new();
    let mut roles = Vec::new();
    let attacked = async {
        let scene = world.scene(&neighbour.house());
        neighbour.keep_house(&scene).await?;
        let mut controls = BTreeMap::new();
        for profile in profiles.iter().copied().map(launch::Profile::from) {
            let subject = Subject::create(client, &arguments.image, profile, false).await?;
            let scene = Scene { profile, sizes: subject.sizes, ..scene.clone() };
            if controls.is_empty() {
                let control = Scene { profile: launch::Profile::Hardened, inside: false, ..scene.clone() };
                controls = controls::run(&neighbour, attacks, &control, arguments.real_root).await?;
            }
            let done = async {
                for (user, root) in USERS {
                    let right: Vec<_> =
                        attacks.iter().copied().filter(|attack| attack.applies(profile, root)).collect();
                    let scene = Scene { attacks: names(&right), inside: true, ..scene.clone() };
                    say(format!("{}, user {user}: {} attacks", show::profile(profile), right.len()));
                    let reports = subject.attack(&scene, user, Place::Sandbox).await?;
                    rows.extend(judge(&right, &reports, &controls, show::profile(profile), user));
                }
                if roles.is_empty() {
                    say("our own processes".to_owned());
                    roles = subject.audit().await?;
                }
                Ok::<(), Failure>(())
            };
            let done = done.await;
            subject.remove().await?;
            done?;
        }
        Ok::<(), Failure>(())
    };
    let attacked = attacked.await;
    neighbour.remove().await?;
    attacked?;
    Ok((rows, roles))
}

/// Attacks a process that nothing protects, with the verdicts that a sandbox would get for the same.
async fn unprotected(attacks: &[Attack], arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let world = World::make()?;
    let scene = Scene { inside: false, ..world.scene(&selftest::Neighbour::default()) };
    let reports = controls::outside(attacks, &scene, arguments.real_root).await?;
    let outside: Vec<Attack> =
        attacks.iter().copied().filter(|attack| reports.contains_key(attack.name)).collect();
    Ok(judge(&outside, &reports, &reports, "none", "root"))
}

/// Attacks what somebody else protects. There is no neighbour.
async fn elsewhere(attacks: &[Attack], command: &str, real_root: bool) -> Result<Vec<Row>, Failure> {
    let world = World::make()?;
    let alone: Vec<Attack> =
        attacks.iter().copied().filter(|attack| attack.control != Control::Neighbour).collect();
    let scene = world.scene(&selftest::Neighbour::default());
    let scene = Scene { attacks: names(&alone), place: "/tmp".to_owned(), ..scene };
    let controls = controls::outside(&alone, &Scene { inside: false, ..scene.clone() }, real_root).await?;
    say(format!("{command}: {} attacks", alone.len()));
    let reports = controls::by(command, &scene).await?;
    let name = command.split_whitespace().next().unwrap_or_default();
    Ok(judge(&alone, &reports, &controls, name, "its own"))
}

fn judge(
    attacks: &[Attack],
    inside: &BTreeMap<String, Report>,
    controls: &BTreeMap<String, Report>,
    profile: &str,
    user: &'static str,
) -> Vec<Row> {
    let row = |attack: &Attack| {
        let (verdict, detail) =
            selftest::judge(attack.control, inside.get(attack.name), controls.get(attack.name));
        let Attack { name, group, control, .. } = *attack;
        Row { attack: name, group, control, profile: profile.to_owned(), user, verdict, detail }
    };
    attacks.iter().map(row).collect()
}

fn say(what: String) {
    terminal::say(&format!("stockade selftest: {what} ..."));
}
