//! The program inside: makes the attacks that it is told, and writes a line about each.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::attacks::{self, Answer, Attack, Refusal};
use super::scene::Scene;
use super::verdict::{Outcome, Report};
use super::{attacks::keep_house, scratch};
use crate::sys::attempt::{self, Ended};
use crate::sys::{Errno, privilege};

/// Where a payload runs, and what it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// Where it is: a sandbox.
    Sandbox,
    /// In namespaces that it makes.
    Scratch,
    /// The same, with the host's root.
    RealRoot,
    /// On the host, as nobody.
    Host,
    /// In a sandbox, and makes no attack: it keeps what others attack.
    Neighbour,
}

/// How long an attack may take. Sweeps make hundreds of calls, and emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ids of a user without rights (Debian base-passwd: nobody, nogroup).
const NOBODY: u32 = 65_534;

/// Reads the scene, makes the attacks, writes the reports.
///
/// # Errors
/// When the scene is none, its place cannot be made, or nobody reads the reports.
pub fn run(place: Place) -> std::io::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let scene: Scene = serde_json::from_str(&text)?;
    let errno = |errno: Errno| std::io::Error::from(errno);
    match place {
        Place::Sandbox => attack(&scene),
        Place::Neighbour => keep_house(&scene.neighbour),
        Place::Host => {
            if rustix::process::geteuid().is_root() {
                privilege::become_user(NOBODY, NOBODY, &[]).map_err(errno)?;
            }
            attack(&scene)
        }
        Place::Scratch | Place::RealRoot => {
            // One that shows where a process came from, for the attacks that look for such.
            let _leaked = std::fs::File::open("/")?;
            let real = place == Place::RealRoot;
            scratch::inside(real, |place| {
                let scene = Scene { place: place.to_owned(), ..scene };
                // Nobody reads any more: then nobody hears why, either.
                let _ = attack(&scene);
            })
            .map_err(errno)
        }
    }
}

fn attack(scene: &Scene) -> std::io::Result<()> {
    let all = attacks::all();
    for name in &scene.attacks {
        let found = all.iter().find(|attack| attack.name == name);
        let found = found.ok_or_else(|| std::io::Error::other(format!("no attack is called {name}")))?;
        let mut line = serde_json::to_vec(&attempt(found, scene))?;
        line.push(b'\n');
        std::io::stdout().write_all(&line)?;
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Makes one attack, in a copy of this process.
fn attempt(attack: &Attack, scene: &Scene) -> Report {
    let ended = attempt::apart(PATIENCE, || {
        if !scene.inside {
            // What one attack mounts is not to be in the way of the next. Where this is refused the control is one that
            // mounts nothing.
            let _ = attempt::call(libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0, 0]);
        }
        encode(&(attack.run)(scene))
    });
    let (outcome, detail) = match ended {
        Ok(Ended::Said(words)) => serde_json::from_slice(&words)
            .unwrap_or_else(|error| (Outcome::Broken, format!("not understood: {error}"))),
        Ok(Ended::Killed { signal, .. }) => (Outcome::Killed, format!("killed by signal {signal}")),
        Ok(Ended::Silent(code)) => (Outcome::Broken, format!("it ended with {code}")),
        Ok(Ended::Stuck) => (Outcome::Stuck, format!("nothing for {PATIENCE:?}")),
        Err(errno) => (Outcome::Broken, format!("no process: {}", attacks::name(errno))),
    };
    Report { attack: attack.name.to_owned(), outcome, detail }
}

fn encode(answer: &Answer) -> Vec<u8> {
    let said = match answer {
        Ok(what) => (Outcome::Worked, what.clone()),
        Err(Refusal::Errno(errno)) => (Outcome::Refused, attacks::name(*errno)),
        Err(Refusal::Nothing(why)) => (Outcome::Nothing, why.clone()),
        Err(Refusal::Broken(why)) => (Outcome::Broken, why.clone()),
    };
    // Strings and an enum: there is nothing that could not be written.
    serde_json::to_vec(&said).unwrap_or_default()
}
