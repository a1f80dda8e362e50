//! `recording`: what was recorded of terminals and commands.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::segment;
use super::copy::save;
use super::daemon::Daemon;
use super::failure::Failure;
use super::{OWN_FAILURE, show};
use crate::api::schema::recordings::{RecordOptions, RecordSetting, RecordingList};
use crate::sandbox::RecordingView;

pub(super) const HELP: &str = "\
Recordings are made with `shell --record` and `exec --record`, in the format of asciinema (asciicast v2).

Examples:
  stockade shell work --record                     prints the recording's id at the end
  stockade recording ls work
  stockade recording get work k3v9x2m7q4w8 -o demo.cast
  stockade recording get work k3v9x2m7q4w8 | asciinema play -";

/// What to do with recordings.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List the recordings of a sandbox.
    Ls(List),
    /// Write a recording to a file, or to stdout.
    Get(Get),
    /// Delete recordings.
    Rm(Remove),
}

/// Arguments of `recording ls`.
#[derive(Args, Debug)]
pub struct List {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Print ids alone.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `recording get`.
#[derive(Args, Debug)]
pub struct Get {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The recording.
    #[arg(value_name = "RECORDING")]
    pub recording: String,
    /// Where to [default: stdout].
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// Arguments of `recording rm`.
#[derive(Args, Debug)]
pub struct Remove {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The recordings.
    #[arg(value_name = "RECORDING", required = true)]
    pub recordings: Vec<String>,
}

/// Whether what is started is recorded.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Recording {
    /// Record what is seen, for asciinema; `stockade recording` has it.
    #[arg(long, help_heading = "Recording")]
    pub record: bool,
    /// Record what is typed too, passwords among it.
    #[arg(long, help_heading = "Recording")]
    pub record_input: bool,
}

impl Recording {
    /// As a request says it.
    pub(super) fn wanted(self) -> Option<RecordSetting> {
        let how = RecordOptions { input: self.record_input };
        (self.record || self.record_input).then_some(RecordSetting::How(how))
    }
}

/// Says where what was recorded is.
pub(super) fn tell(sandbox: &str, recording: Option<&str>) {
    if let Some(id) = recording {
        show::say(&format!("stockade: recorded; `stockade recording get {sandbox} {id}` has it"));
    }
}

/// `stockade recording`.
pub(super) async fn recording(daemon: Daemon, action: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    let all = |sandbox: &str| format!("/v1/sandboxes/{}/recordings", segment(sandbox));
    match action {
        Action::Ls(list) => {
            let found: RecordingList = client.get(&all(&list.sandbox)).await?;
            print_list(&found, list.quiet, json)?;
        }
        Action::Get(get) => {
            let path = format!("{}/{}", all(&get.sandbox), segment(&get.recording));
            if get.output.is_none() && std::io::stdout().is_terminal() {
                let hint = "a recording is for a player; give --output, or `| asciinema play -`";
                return Err(Failure::Usage(hint.to_owned()));
            }
            save(client, &path, "application/x-asciicast", get.output.as_deref()).await?;
        }
        Action::Rm(remove) => {
            let mut code = 0;
            for id in &remove.recordings {
                match client.delete(&format!("{}/{}", all(&remove.sandbox), segment(id))).await {
                    Err(failure) => {
                        failure.show(json);
                        code = OWN_FAILURE;
                    }
                    Ok(()) if json => show::print_json(&serde_json::json!({ "removed": id }))?,
                    Ok(()) => show::print(&format!("{id}\n"))?,
                }
            }
            return Ok(code);
        }
    }
    Ok(0)
}

fn print_list(list: &RecordingList, quiet: bool, json: bool) -> Result<(), Failure> {
    if json {
        return show::print_json(list);
    }
    if quiet {
        let ids: Vec<String> = list.recordings.iter().map(|one| format!("{}\n", one.id)).collect();
        return show::print(&ids.concat());
    }
    let row = |one: &RecordingView| {
        vec![
            one.id.clone(),
            one.terminal.as_ref().map_or_else(|| "command".to_owned(), |name| format!("terminal {name}")),
            one.program.clone(),
            format!("{:.1} s", one.duration_ms / 1000.0),
            show::size(one.size_bytes),
            if one.recording { "goes on".to_owned() } else { one.created_at.clone() },
            if one.left_out_bytes > 0 { show::size(one.left_out_bytes) } else { "-".to_owned() },
        ]
    };
    let rows: Vec<Vec<String>> = list.recordings.iter().map(row).collect();
    show::print(&show::table(&["ID", "OF", "PROGRAM", "TIME", "SIZE", "CREATED", "LEFT OUT"], &rows))
}
