//! `terminal`: what terminals there are, and what is done with them from outside.

use clap::{Args, Subcommand};

use super::client::segment;
use super::daemon::Daemon;
use super::failure::Failure;
use super::keys::Sequence;
use super::{shell, show};
use crate::api::schema::{SignalName, SignalTerminal, TerminalList};
use crate::sandbox::TerminalView;

pub(super) const HELP: &str = "\
Terminals are opened with `stockade shell`.

Examples:
  stockade shell work --name top --keep -- top     Ctrl-P Ctrl-Q leaves it running
  stockade terminal ls work
  stockade terminal attach work top
  stockade terminal signal work top TERM
  stockade terminal close work top";

/// What can be done with terminals.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List the terminals of a sandbox.
    Ls(List),
    /// Show one, with all that is known of it, as JSON.
    Inspect(Named),
    /// Look at one, and type on it; what it showed before is shown again. As `shell --attach`.
    Attach(Attach),
    /// Send a signal to its program.
    Signal(Signal),
    /// Close terminals, and kill what runs on them.
    #[command(visible_alias = "rm")]
    Close(Close),
}

/// Arguments of `terminal ls`.
#[derive(Args, Debug)]
pub struct List {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Only names.
    #[arg(long, short)]
    pub quiet: bool,
}

/// A terminal of a sandbox.
#[derive(Args, Debug)]
pub struct Named {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The terminal.
    #[arg(value_name = "TERMINAL")]
    pub terminal: String,
}

/// Arguments of `terminal attach`.
#[derive(Args, Debug)]
pub struct Attach {
    /// Which terminal.
    #[command(flatten)]
    pub named: Named,
    /// How it is left.
    #[command(flatten)]
    pub leaving: Leaving,
}

/// How a person leaves a terminal whose program goes on.
#[derive(Args, Debug)]
pub struct Leaving {
    /// Keys that leave the terminal, and let its program run: letters or ctrl-LETTER with commas between them; nothing
    /// for none.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", help_heading = "Terminal")]
    pub detach_keys: Sequence,
}

/// Arguments of `terminal signal`.
#[derive(Args, Debug)]
pub struct Signal {
    /// Which terminal.
    #[command(flatten)]
    pub named: Named,
    /// Name or number.
    #[arg(value_name = "SIGNAL")]
    pub signal: String,
    /// To everything that it started as well.
    #[arg(long)]
    pub tree: bool,
}

/// Arguments of `terminal close`.
#[derive(Args, Debug)]
pub struct Close {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Terminals.
    #[arg(value_name = "TERMINAL", required = true)]
    pub terminals: Vec<String>,
}

/// The route to the terminals of a sandbox.
pub(super) fn all(sandbox: &str) -> String {
    format!("/v1/sandboxes/{}/terminals", segment(sandbox))
}

fn path(named: &Named) -> String {
    format!("{}/{}", all(&named.sandbox), segment(&named.terminal))
}

/// `stockade terminal`.
pub(super) async fn terminal(daemon: Daemon, action: Action, json: bool) -> Result<u8, Failure> {
    if let Action::Attach(Attach { named, leaving }) = action {
        return shell::attach(daemon, &named.sandbox, &named.terminal, leaving.detach_keys).await;
    }
    let connection = daemon.running().await?;
    let client = &connection.client;
    match action {
        Action::Ls(list) => {
            let found: TerminalList = client.get(&all(&list.sandbox)).await?;
            print_list(&found, list.quiet, json)?;
        }
        Action::Inspect(named) => {
            let found: serde_json::Value = client.get(&path(&named)).await?;
            show::print_json(&found)?;
        }
        Action::Signal(signal) => {
            let body = SignalTerminal { signal: SignalName::Name(signal.signal), tree: signal.tree };
            client.post_empty(&format!("{}/signal", path(&signal.named)), &body).await?;
        }
        Action::Close(close) => {
            return client.delete_each(&all(&close.sandbox), &close.terminals, json).await;
        }
        Action::Attach(_) => {}
    }
    Ok(0)
}

fn print_list(list: &TerminalList, quiet: bool, json: bool) -> Result<(), Failure> {
    if json {
        return show::print_json(list);
    }
    if quiet {
        let names: Vec<String> = list.terminals.iter().map(|one| format!("{}\n", one.id)).collect();
        return show::print(&names.concat());
    }
    let row = |one: &TerminalView| {
        vec![
            one.id.clone(),
            match one.exit_code {
                _ if one.running => "running".to_owned(),
                code => format!("exited {}", code.unwrap_or_default()),
            },
            one.pid.to_string(),
            format!("{}x{}", one.columns, one.rows),
            one.viewers.to_string(),
            one.session.clone().unwrap_or_else(|| "-".to_owned()),
            one.created_at.clone(),
            one.argv.join(" "),
        ]
    };
    let rows: Vec<Vec<String>> = list.terminals.iter().map(row).collect();
    let heads = ["NAME", "STATE", "PID", "SIZE", "VIEWERS", "SESSION", "OPENED", "COMMAND"];
    show::print(&show::table(&heads, &rows))
}
