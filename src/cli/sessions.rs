//! `session`: make, list, run in, and end sessions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arguments::Session;
use super::client::{Client, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::environment;
use super::show;
use crate::api::schema::{CommandResult, CreateSession, Encoding, RunCommand, SessionList};
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
        Session::Run { sandbox, session, timeout, line } => {
            let command =
                RunCommand { shell: Some(line.join(" ")), timeout_ms: timeout, ..RunCommand::default() };
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
    let (_, result) = client.post::<_, CommandResult>(path, command).await?;
    if json {
        show::print_json(&result)?;
    } else {
        let written = &result.written;
        put(&mut std::io::stdout(), &written.stdout, written.stdout_encoding)?;
        put(&mut std::io::stderr(), &written.stderr, written.stderr_encoding)?;
    }
    if result.end.timed_out && !json {
        show::say("stockade: the command was interrupted because its time was up");
    }
    Ok(u8::try_from(result.end.exit_code & 0xff).unwrap_or(u8::MAX))
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
