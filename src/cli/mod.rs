//! The command line: a client of the API like any other, over the same socket.
//!
//! ```text
//! arguments ─▶ daemon   a running one, or a private one for this call
//!                └▶ client   HTTP, events and WebSocket over the Unix socket
//!                     ├ run, exec ─▶ attach   live input, output, signals
//!                     ├ sandboxes, images, processes, ports   one request, one table or JSON
//!                     └ show, progress        what people see: text from elsewhere is escaped
//! ```
//!
//! Output is for programs on stdout and for people on stderr: a table or JSON on stdout, progress and errors on
//! stderr. With `--json` both are JSON. Exit codes are a shell's: the command's own, 126 and 127 when it cannot
//! be run, 128 + n after signal n; 125 is our own failure.

pub mod arguments;
mod attach;
mod client;
mod code;
mod contexts;
mod copy;
pub mod daemon;
mod doctor;
mod export;
mod failure;
pub mod files;
mod git;
pub mod images;
pub mod journal;
pub mod keys;
mod layout;
pub mod lifecycle;
pub mod limits;
pub mod mounts;
pub mod network;
pub mod ports;
pub mod processes;
mod progress;
mod quantity;
pub mod recordings;
mod run;
mod sandboxes;
pub mod selftest;
mod sessions;
mod shell;
mod show;
mod signals;
pub mod snapshots;
pub mod stats;
mod target;
pub mod terminals;
#[cfg(test)]
mod tests;
mod watch;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Subcommand};
use daemon::{Daemon, StartPrivate};
use failure::Failure;

/// What `main` gives to the command line, because it lies beside it and not below.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// `stockade serve`.
    pub serve: fn(arguments::Serve, Option<PathBuf>) -> ExitCode,
    /// A daemon for one call.
    pub private: StartPrivate,
}

/// Names the daemon's socket when `--socket` does not.
const SOCKET_VARIABLE: &str = "STOCKADE_SOCKET";

/// The exit code of a failure of our own.
const OWN_FAILURE: u8 = 125;

/// Reads the command line and does what it says.
pub fn main(hooks: Hooks) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    let Arguments { socket, json, command } = arguments;
    let from_environment = || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
    let socket = socket.or_else(|| from_environment().map(PathBuf::from));
    let result = match command {
        Subcommand::Serve(serve) => return (hooks.serve)(serve, socket),
        Subcommand::Doctor(arguments) => doctor::doctor(&arguments, json),
        Subcommand::Selftest(selftest::Arguments { payload: Some(place), .. }) => selftest::payload(place),
        command => client(command, Daemon { socket, start_private: hooks.private }, json),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.show(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Says what is wrong with the arguments, or what they ask to be told.
fn explain(error: &clap::Error) -> ExitCode {
    // What `--json` would have said is not known when parsing failed; what follows `--` is not ours.
    let ours = || std::env::args_os().take_while(|argument| argument != "--");
    if !error.use_stderr() || !ours().any(|argument| argument == "--json") {
        // A closed stderr leaves nobody to tell.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { OWN_FAILURE } else { 0 });
    }
    let text = error.render().to_string();
    let (message, usage) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = message.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let usage = usage.lines().find(|line| line.starts_with("Usage:")).unwrap_or("see `stockade --help`");
    let failure = Failure::Arguments { message, usage: usage.to_owned() };
    failure.show(true);
    ExitCode::from(failure.exit_code())
}

/// Carries out a command that needs the daemon.
fn client(command: Subcommand, daemon: Daemon, json: bool) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Local { what: "cannot start".to_owned(), source })?;
    let result = runtime.block_on(async {
        match command {
            Subcommand::Run(run) => run::run(daemon, run, json).await,
            Subcommand::Exec(exec) => run::exec(daemon, exec, json).await,
            Subcommand::Shell(wanted) => shell::shell(daemon, wanted).await,
            Subcommand::Terminal(action) => terminals::terminal(daemon, action, json).await,
            Subcommand::Recording(action) => {
                signals::or_signal(recordings::recording(daemon, action, json)).await
            }
            Subcommand::Session(wanted) => sessions::session(daemon, wanted, json).await,
            Subcommand::Context(action) => contexts::context(daemon, action, json).await,
            Subcommand::RunCode(wanted) => code::run_code(daemon, wanted, json).await,
            Subcommand::Create(create) => sandboxes::create(daemon, create, json).await,
            Subcommand::Ps(ps) => sandboxes::ps(daemon, ps, json).await,
            Subcommand::Git(git) => git::git(daemon, git, json).await,
            Subcommand::Inspect(inspect) => sandboxes::inspect(daemon, inspect).await,
            Subcommand::Stop(ids) => lifecycle::each(daemon, ids, "stop", json).await,
            Subcommand::Pause(ids) => lifecycle::each(daemon, ids, "pause", json).await,
            Subcommand::Start(ids) => lifecycle::each(daemon, ids, "start", json).await,
            Subcommand::Lifecycle(set) => lifecycle::set(daemon, set, json).await,
            Subcommand::Quota => stats::quota(daemon, json).await,
            Subcommand::Events(wanted) => journal::events(daemon, wanted, json).await,
            Subcommand::Audit(journal::Audit::Tail { lines, sandbox }) => {
                journal::tail(daemon, (lines, sandbox), json).await
            }
            Subcommand::Audit(journal::Audit::Verify { directory, expect }) => {
                journal::verify(&directory, expect.as_ref(), json)
            }
            Subcommand::Stats(wanted) => stats::stats(daemon, wanted, json).await,
            Subcommand::Top(wanted) => stats::top(daemon, wanted).await,
            Subcommand::Limits(action) => stats::change_limits(daemon, action, json).await,
            Subcommand::Snapshot(action) => {
                signals::or_signal(snapshots::snapshot(daemon, action, json)).await
            }
            Subcommand::Fork(fork) => snapshots::fork(daemon, fork, json).await,
            Subcommand::Export(export) => signals::or_signal(export::export(daemon, *export, json)).await,
            Subcommand::Push(push) => export::push(daemon, push, json).await,
            Subcommand::Commit(commit) => snapshots::commit(daemon, commit, json).await,
            Subcommand::Rollback(rollback) => snapshots::rollback(daemon, rollback, json).await,
            Subcommand::Rm(rm) => sandboxes::rm(daemon, rm, json).await,
            Subcommand::Images(images) => images::images(daemon, images, json).await,
            Subcommand::Pull(pull) => images::pull(daemon, pull, json).await,
            Subcommand::Import(import) => images::import(daemon, import, json).await,
            Subcommand::Cp(cp) => signals::or_signal(copy::cp(daemon, cp, json)).await,
            Subcommand::File(action) => files::file(daemon, action, json).await,
            Subcommand::Watch(watch) => watch::watch(daemon, watch, json).await,
            Subcommand::Process(action) => processes::process(daemon, action, json).await,
            Subcommand::Network(action) => network::network(daemon, action, json).await,
            Subcommand::Mount(action) => mounts::mount(daemon, action, json).await,
            Subcommand::Port(action) => ports::port(daemon, action, json).await,
            Subcommand::Forward(forward) => ports::forward(daemon, forward, json).await,
            Subcommand::Env(env) => processes::env(daemon, env, json).await,
            Subcommand::Selftest(wanted) => selftest::selftest(daemon, wanted, json).await,
            Subcommand::Info => sandboxes::info(daemon).await,
            Subcommand::Serve(_) | Subcommand::Doctor(_) => Ok(0),
        }
    });
    // A thread may wait in read(2) on our stdin for ever; nobody needs it any more.
    runtime.shutdown_background();
    result
}
