//! `run` and `exec`: a command, from its arguments to its exit code.
//!
//! `run` owns the sandbox that it makes: whatever happens after the sandbox was created, it is destroyed before
//! we end, also after signals and errors. When we are killed, a private daemon ends with us, and a running one
//! destroys the sandbox with the attachment.

use std::io::IsTerminal;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use tokio::io::AsyncReadExt;

use super::arguments::{Exec, Execution, Run, Sandbox, Surroundings};
use super::attach::{self, Ended, signalled};
use super::client::{Client, segment};
use super::daemon::{Daemon, Store};
use super::failure::Failure;
use super::quantity::environment;
use super::show;
use super::signals::Signals;
use crate::api::schema::processes::StartupProcess;
use crate::api::schema::{CommandResult, CreateSandbox, RunCommand};
use crate::error::ErrorCode;
use crate::limits::JSON_BODY_BYTES_MAX;
use crate::sandbox::SandboxView;
use crate::sandbox::catalog::{HOST_IMAGE, Image};
use crate::wire::launch;

/// Bytes of input that a command whose result is JSON can be given: base64 of it fits a request.
const STDIN_BYTES_MAX: usize = JSON_BODY_BYTES_MAX / 4 * 3 - 128 * 1024;

/// What the arguments say about a sandbox.
pub(super) fn specification(sandbox: Sandbox, surroundings: Surroundings) -> Result<CreateSandbox, Failure> {
    let env = environment(&surroundings.env_file, &surroundings.env)?;
    let limits = sandbox.limits;
    Ok(CreateSandbox {
        id: sandbox.id,
        image: sandbox.image,
        env,
        cwd: surroundings.cwd,
        user: surroundings.user,
        hostname: sandbox.hostname,
        labels: sandbox.label.into_iter().collect(),
        profile: sandbox.profile.into(),
        durability: if sandbox.durable { launch::Durability::Durable } else { launch::Durability::Volatile },
        resources: limits.into(),
        network: sandbox.network.policy()?,
        lifecycle: sandbox.lifecycle.into(),
        snapshot: None,
        startup: sandbox.startup.into_iter().map(startup).collect(),
        mounts: sandbox.mount,
    })
}

/// `ID=COMMAND`.
fn startup((id, shell): (String, String)) -> StartupProcess {
    StartupProcess { id, shell: Some(shell), ..StartupProcess::default() }
}

/// `stockade run`.
pub(super) async fn run(daemon: Daemon, arguments: Run, json: bool) -> Result<u8, Failure> {
    let wanted = specification(arguments.sandbox, arguments.surroundings)?;
    if arguments.command.is_empty() && wanted.image == HOST_IMAGE {
        return Err(Failure::Usage("a command is missing: the image `host` has none of its own".to_owned()));
    }
    let command = RunCommand {
        argv: (!arguments.command.is_empty()).then_some(arguments.command),
        timeout_ms: arguments.execution.timeout,
        ..RunCommand::default()
    };
    let mut signals = Signals::catch()?;
    let store = if wanted.image == HOST_IMAGE { Store::Any } else { Store::Images };
    let connection = daemon.running_or_private(store).await?;
    let client = &connection.client;
    let create = client.post::<_, SandboxView>("/v1/sandboxes", &wanted);
    let (created, interrupted) = uninterrupted(create, &mut signals).await;
    let (status, sandbox) = created?;
    let id = sandbox.id.to_string();
    if status != StatusCode::CREATED {
        return Err(Failure::Usage(format!(
            "there is a sandbox called {id} already; `stockade exec {id}` runs commands in it"
        )));
    }
    let ours = !arguments.keep;
    let mode = Mode { stdin: has_input(&arguments.execution), destroy: ours, json };
    let result = match interrupted {
        Some(signal) => Ok(signalled(signal)),
        None => match with_program(client, command, &sandbox).await {
            Ok(command) => command_in(client, &id, command, mode, &mut signals).await,
            Err(failure) => Err(failure),
        },
    };
    if !ours {
        if arguments.keep && !json {
            show::say(&format!("stockade: the sandbox {id} stays"));
        }
        return result;
    }
    let path = format!("/v1/sandboxes/{}", segment(&id));
    let (destroyed, _) = uninterrupted(client.delete(&path), &mut signals).await;
    match (result, destroyed) {
        (Err(failure), Err(second)) => {
            // Usually the daemon was faster: it destroys the sandbox with the attachment.
            if second.code() != Some(ErrorCode::SandboxNotFound) {
                second.show(json);
            }
            Err(failure)
        }
        (Err(failure), Ok(())) => Err(failure),
        // Somebody else was faster.
        (Ok(code), Err(failure)) if failure.code() == Some(ErrorCode::SandboxNotFound) => Ok(code),
        (Ok(_), Err(failure)) => Err(failure),
        (Ok(code), Ok(())) => Ok(code),
    }
}

/// Adds the image's own program to a command that has none. Asks by digest: the name may mean another image by now.
async fn with_program(
    client: &Client,
    mut command: RunCommand,
    sandbox: &SandboxView,
) -> Result<RunCommand, Failure> {
    if command.argv.is_none() {
        let name = sandbox.image.digest.as_ref().unwrap_or(&sandbox.image.reference);
        let config = client.get::<Image>(&format!("/v1/images/{}", segment(name))).await?.config;
        let argv = [config.entrypoint, config.cmd].concat();
        if argv.is_empty() {
            let name = &sandbox.image.reference;
            return Err(Failure::Usage(format!("the image {name} says no command; give one after `--`")));
        }
        command.argv = Some(argv);
    }
    Ok(command)
}

/// Waits for work that must not be left half-done, and remembers the first signal that came meanwhile.
pub(super) async fn uninterrupted<T>(
    work: impl Future<Output = T>,
    signals: &mut Signals,
) -> (T, Option<i32>) {
    let mut work = std::pin::pin!(work);
    let mut first = None;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return (done, first),
            signal = signals.next() => {
                first.get_or_insert(signal);
            }
        }
    }
}

/// `stockade exec`.
pub(super) async fn exec(daemon: Daemon, arguments: Exec, json: bool) -> Result<u8, Failure> {
    let surroundings = arguments.surroundings;
    let command = RunCommand {
        argv: Some(arguments.command),
        env: environment(&surroundings.env_file, &surroundings.env)?,
        cwd: surroundings.cwd,
        user: surroundings.user,
        timeout_ms: arguments.execution.timeout,
        record: arguments.recording.wanted(),
        ..RunCommand::default()
    };
    let mut signals = Signals::catch()?;
    let connection = daemon.running().await?;
    let mode = Mode { stdin: has_input(&arguments.execution), destroy: false, json };
    command_in(&connection.client, &arguments.id, command, mode, &mut signals).await
}

/// A terminal is somebody who types to us, not to the command, unless they say so.
fn has_input(execution: &Execution) -> bool {
    execution.interactive || !std::io::stdin().is_terminal()
}

/// How a command is run.
#[derive(Clone, Copy, Debug)]
struct Mode {
    /// With our input.
    stdin: bool,
    /// The sandbox ends with it.
    destroy: bool,
    /// Its result is wanted, not its output.
    json: bool,
}

/// Runs a command in a sandbox: live, or with its result as JSON.
async fn command_in(
    client: &Client,
    sandbox: &str,
    command: RunCommand,
    mode: Mode,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    if mode.json {
        return tokio::select! {
            code = result_of(client, sandbox, command, mode.stdin) => code,
            // Leaving the connection kills the command.
            signal = signals.next() => Ok(signalled(signal)),
        };
    }
    let options = attach::Options { stdin: mode.stdin, destroy: mode.destroy };
    let ended = attach::attach(client, sandbox, &command, options, signals).await?;
    if let Ended::Command(end) = &ended
        && end.timed_out
    {
        show::say("stockade: the command was killed because its time was up");
    }
    Ok(ended.exit_code())
}

/// All of our input as a request has it, in base64.
pub(super) async fn whole_input(too_large: &str) -> Result<String, Failure> {
    let mut input = Vec::new();
    tokio::io::stdin()
        .take(STDIN_BYTES_MAX as u64 + 1)
        .read_to_end(&mut input)
        .await
        .map_err(|source| Failure::Local { what: "cannot read stdin".to_owned(), source })?;
    if input.len() > STDIN_BYTES_MAX {
        return Err(Failure::Usage(too_large.to_owned()));
    }
    Ok(STANDARD.encode(input))
}

async fn result_of(
    client: &Client,
    sandbox: &str,
    mut command: RunCommand,
    with_stdin: bool,
) -> Result<u8, Failure> {
    if with_stdin {
        let input = whole_input("the input is too large for --json; leave it out").await?;
        command.stdin_base64 = Some(input);
    }
    let path = format!("/v1/sandboxes/{}/commands", segment(sandbox));
    let (_, result) = client.post::<_, CommandResult>(&path, &command).await?;
    show::print_json(&result)?;
    Ok(Ended::Command(result.end).exit_code())
}
