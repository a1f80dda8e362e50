//! `session`: make, list, run in, and end sessions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arguments::Session;
use super::client::{Client, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::environment;
use super::run::whole_input;
use super::show;
use crate::api::schema::{CommandResult, CreateSession, Encoding, RunCommand, SessionList, Written};
use crate::error::ErrorCode;
use crate::sandbox::SessionView;

/// `stockade session`.
pub(super) async fn session(daemon: Daemon, wanted: Session, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match wanted {
        Session::Create { sandbox, id, surroundings } => {
            let env = environment(&surroundings.env_file, &surroundings.env)?;
            let wanted = CreateSession { id, cwd: surroundings.cwd, env, user: surroundings.user };
            let (_, session) = client.post::<_, SessionView>(&path(&sandbox, None), &wanted).await?;
            if json {
                show::print_json(&session)?;
            } else {
                show::print(&format!("{}\n", session.id))?;
            }
            Ok(0)
        }
        Session::Ls { sandbox } => {
            let list: SessionList = client.get(&path(&sandbox, None)).await?;
            if json {
                show::print_json(&list)?;
            } else {
                let rows: Vec<Vec<String>> = list.sessions.iter().map(row).collect();
                show::print(&show::table(&["ID", "PID", "COMMANDS", "USER", "CREATED"], &rows))?;
            }
            Ok(0)
        }
        Session::Run { sandbox, session, timeout, stdin, line } => {
            let too_large = "the input is too large for a session; put it into a file with `stockade cp`";
            let stdin_base64 = if stdin { Some(whole_input(too_large).await?) } else { None };
            let shell = Some(line.join(" "));
            let command = RunCommand { shell, timeout_ms: timeout, stdin_base64, ..RunCommand::default() };
            run(client, &format!("{}/commands", path(&sandbox, Some(&session))), &command, json).await
        }
        Session::Rm { sandbox, ids } => client.delete_each(&path(&sandbox, None), &ids, json).await,
    }
}

fn path(sandbox: &str, session: Option<&str>) -> String {
    let sessions = format!("/v1/sandboxes/{}/sessions", segment(sandbox));
    session.map_or(sessions.clone(), |session| format!("{sessions}/{}", segment(session)))
}

fn row(session: &SessionView) -> Vec<String> {
    vec![
        session.id.clone(),
        session.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        session.commands.to_string(),
        session.user.clone(),
        session.created_at.clone(),
    ]
}

async fn run(client: &Client, path: &str, command: &RunCommand, json: bool) -> Result<u8, Failure> {
    let result = match client.post::<_, CommandResult>(path, command).await {
        Ok((_, result)) => result,
        Err(failure) => return ended(failure, json),
    };
    if json {
        show::print_json(&result)?;
    } else {
        show_written(&result.written)?;
    }
    if result.end.timed_out && !json {
        show::say("stockade: the command was interrupted because its time was up");
    }
    Ok(code(result.end.exit_code.into()))
}

/// The end of a session whose shell the line ended, as with `exit 5`: what it has written until then, and its exit
/// code.
fn ended(failure: Failure, json: bool) -> Result<u8, Failure> {
    let Failure::Refused(body) = &failure else { return Err(failure) };
    let Some(context) = body.context.as_ref().filter(|_| body.code == ErrorCode::SessionEnded) else {
        return Err(failure);
    };
    let Some(exit_code) = context["exit_code"].as_i64() else { return Err(failure) };
    if !json && let Ok(written) = serde_json::from_value::<Written>(context.clone()) {
        show_written(&written)?;
    }
    failure.show(json);
    Ok(code(exit_code))
}

fn code(exit_code: i64) -> u8 {
    u8::try_from(exit_code & 0xff).unwrap_or(u8::MAX)
}

fn show_written(written: &Written) -> Result<(), Failure> {
    put(&mut std::io::stdout(), &written.stdout, written.stdout_encoding)?;
    put(&mut std::io::stderr(), &written.stderr, written.stderr_encoding)
}

fn put(to: &mut impl std::io::Write, text: &str, encoding: Encoding) -> Result<(), Failure> {
    let bytes = match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        Encoding::Base64 => STANDARD.decode(text).unwrap_or_default(),
    };
    match to.write_all(&bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Failure::Local { what: "cannot write the command's output".to_owned(), source }),
        Ok(()) => Ok(()),
    }
}
