//! `git clone`.

use super::arguments::{Clone, Git, GitAction};
use super::client::segment;
use super::daemon::Daemon;
use super::failure::Failure;
use super::images::read_text;
use super::show;
use super::signals::Signals;
use crate::api::schema::{CloneRepository, ClonedRepository};
use crate::cli::attach::signalled;
use crate::limits::SECRET_BYTES_MAX;

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
