//! `git clone`.

use clap::Args;

use super::client::segment;
use super::daemon::Daemon;
use super::failure::Failure;
use super::images::read_text;
use super::quantity::{self, Duration};
use super::show;
use super::signals::Signals;
use crate::api::schema::{CloneRepository, ClonedRepository};
use crate::cli::attach::signalled;
use crate::limits::SECRET_BYTES_MAX;

const CLONE_HELP: &str = "\
The sandbox's own git clones, with the sandbox's network; the image must have git. The clone appears when it is whole.

Examples:
  stockade git clone work https://git.example/team/app.git
  stockade git clone work https://git.example/team/app.git /workspace/src --branch v2 --depth 1
  echo $TOKEN | stockade git clone work https://git.example/team/private.git --token-stdin";

/// Arguments of `git`.
#[derive(Args, Debug)]
pub struct Git {
    /// What to do.
    #[command(subcommand)]
    pub action: GitAction,
}

/// What can be done with git.
#[derive(Debug, clap::Subcommand)]
pub enum GitAction {
    /// Clone a repository into a sandbox, and print where it is.
    #[command(after_help = CLONE_HELP)]
    Clone(Clone),
}

/// Arguments of `git clone`.
#[derive(Args, Debug)]
pub struct Clone {
    /// The sandbox.
    pub id: String,
    /// `https://host/path`, `ssh://user@host/path`, `user@host:path`, or a path in the sandbox.
    #[arg(value_name = "URL")]
    pub url: String,
    /// Where to, in the sandbox: not there yet, or an empty directory [default: named after the URL].
    #[arg(value_name = "PATH")]
    pub path: Option<String>,
    /// Branch or tag to check out [default: the repository's].
    #[arg(long, short, value_name = "NAME")]
    pub branch: Option<String>,
    /// Commits of history [default: all].
    #[arg(long, value_name = "N")]
    pub depth: Option<u64>,
    /// Clone its submodules too.
    #[arg(long)]
    pub recurse_submodules: bool,
    /// User inside: name, uid, name:group or uid:gid.
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// Give up after this time: 30s, 5m [default: 10m].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// Name at the host.
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the password from stdin: it never stands on a command line.
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Read an access token from stdin.
    #[arg(long, conflicts_with = "password_stdin")]
    pub token_stdin: bool,
}

/// `stockade git …`.
pub(super) async fn git(daemon: Daemon, arguments: Git, json: bool) -> Result<u8, Failure> {
    let GitAction::Clone(arguments) = arguments.action;
    clone(daemon, arguments, json).await
}

async fn clone(daemon: Daemon, arguments: Clone, json: bool) -> Result<u8, Failure> {
    let secret = match arguments.password_stdin || arguments.token_stdin {
        true => Some(read_text("stdin", tokio::io::stdin(), SECRET_BYTES_MAX as u64).await?),
        false => None,
    };
    let secret = secret.map(|secret| secret.trim_end_matches(['\r', '\n']).to_owned());
    let (password, token) = if arguments.token_stdin { (None, secret) } else { (secret, None) };
    let wanted = CloneRepository {
        url: arguments.url,
        path: arguments.path,
        branch: arguments.branch,
        depth: arguments.depth,
        recurse_submodules: arguments.recurse_submodules,
        user: arguments.user,
        timeout_ms: arguments.timeout,
        username: arguments.username,
        password,
        token,
    };
    let mut signals = Signals::catch()?;
    let connection = daemon.running().await?;
    let path = format!("/v1/sandboxes/{}/git/clone", segment(&arguments.id));
    let cloned = tokio::select! {
        cloned = connection.client.post::<_, ClonedRepository>(&path, &wanted) => cloned?.1,
        // Leaving the connection ends the clone, and removes what there is of it.
        signal = signals.next() => return Ok(signalled(signal)),
    };
    if json {
        show::print_json(&cloned)?;
    } else {
        show::print(&format!("{}\n", show::safe(&cloned.path)))?;
    }
    Ok(0)
}
