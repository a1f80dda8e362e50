//! What the values of a request may be that is about something that lasts: a session or a terminal.

use std::time::Duration;

use serde_json::json;

use super::border::{ARGV_OR_SHELL, command, env, exec_size, output_bytes_max, refuse, stdin, text, within};
use super::schema::processes::StartupProcess;
use super::schema::recordings::RecordSetting;
use super::schema::{CreateSession, OpenTerminal, RunCommand, TerminalSize};
use crate::error::{Error, ErrorCode};
use crate::id::ItemId;
use crate::limits;
use crate::sandbox::{CommandSpec, SessionScript, SessionSpec, StartupSpec, TerminalSpec, Work};

/// The name of a session or terminal.
pub(super) fn item_id(id: &str) -> Result<ItemId, Error> {
    ItemId::parse(id).map_err(|why| {
        Error::new(ErrorCode::InvalidId, format!("the id {why}"))
            .hint("leave it out to have one chosen")
            .context(json!({"field": "id"}))
    })
}

/// What a sandbox declares to be started, if its values are sane.
pub(crate) fn startup(wanted: Vec<StartupProcess>) -> Result<Vec<StartupSpec>, Error> {
    if wanted.len() > limits::STARTUP_MAX {
        return Err(refuse(
            "startup",
            format!("has more than {}", limits::STARTUP_MAX),
            "start some from others",
        ));
    }
    let mut all: Vec<StartupSpec> = Vec::new();
    for StartupProcess { id, argv, shell, cwd, env, user } in wanted {
        let id = item_id(&id)?.to_string();
        if all.iter().any(|one| one.id == id) {
            return Err(Error::new(ErrorCode::ProcessConflict, format!("startup has {id} twice"))
                .hint("give each an id of its own")
                .context(json!({"field": "startup"})));
        }
        let given = RunCommand { argv, shell, cwd, env, user, ..RunCommand::default() };
        let CommandSpec { argv, env, cwd, user, .. } = command(given)?.spec;
        all.push(StartupSpec { id, argv, env, cwd, user });
    }
    Ok(all)
}

/// A session to make, if its values are sane.
pub(crate) fn session(wanted: CreateSession) -> Result<SessionSpec, Error> {
    env(&wanted.env)?;
    Ok(SessionSpec {
        id: wanted.id.as_deref().map(item_id).transpose()?,
        cwd: wanted.cwd,
        env: wanted.env,
        user: wanted.user,
    })
}

/// A command for a session, and how much of its output to keep, if its values are sane.
pub(crate) fn session_command(wanted: RunCommand) -> Result<(SessionScript, usize), Error> {
    if wanted.user.is_some() {
        return Err(refuse(
            "user",
            "is the session's, for all of its commands",
            "make a session with another user",
        ));
    }
    let script = match (wanted.argv, wanted.shell) {
        (Some(argv), None) => {
            arguments(&argv)?;
            Work::Argv(argv)
        }
        (None, Some(script)) => {
            text("shell", &script, limits::JSON_BODY_BYTES_MAX)?;
            Work::Script(script)
        }
        (Some(_), Some(_)) => return Err(refuse("shell", "and argv exclude each other", ARGV_OR_SHELL)),
        (None, None) => return Err(refuse("argv", "is missing, and so is shell", ARGV_OR_SHELL)),
    };
    env(&wanted.env)?;
    if let Some(cwd) = &wanted.cwd {
        text("cwd", cwd, limits::PATH_BYTES_MAX - 1)?;
    }
    let timeout = within("timeout_ms", wanted.timeout_ms, 1, limits::TIMEOUT_MS_MAX)?;
    let kept = output_bytes_max(wanted.output_bytes_max)?;
    let script = SessionScript {
        script,
        env: wanted.env,
        cwd: wanted.cwd,
        timeout: timeout.map(Duration::from_millis),
        input: stdin(wanted.stdin, wanted.stdin_base64)?,
        record: wanted.record.and_then(RecordSetting::spec),
    };
    Ok((script, kept))
}

fn arguments(argv: &[String]) -> Result<(), Error> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(refuse("argv", "must begin with a program", ARGV_OR_SHELL));
    }
    for (index, argument) in argv.iter().enumerate() {
        text(&format!("argv[{index}]"), argument, limits::EXEC_BYTES_MAX)?;
    }
    exec_size("argv", argv.len(), argv.iter().map(|argument| argument.len() + 1).sum())
}

/// A terminal to open, if its values are sane.
pub(crate) fn terminal(wanted: OpenTerminal) -> Result<TerminalSpec, Error> {
    if let Some(argv) = &wanted.argv {
        arguments(argv)?;
    }
    env(&wanted.env)?;
    let (rows, columns) = terminal_size(TerminalSize { rows: wanted.rows, columns: wanted.columns })?;
    Ok(TerminalSpec {
        id: wanted.id.as_deref().map(item_id).transpose()?,
        argv: wanted.argv,
        env: wanted.env,
        cwd: wanted.cwd,
        user: wanted.user,
        rows,
        columns,
        session: wanted.session,
        record: wanted.record.and_then(RecordSetting::spec),
    })
}

/// Rows and columns.
pub(crate) fn terminal_size(wanted: TerminalSize) -> Result<(u16, u16), Error> {
    let side = |field, value: u64| {
        let most = limits::TERMINAL_SIDE_MAX;
        match u16::try_from(value) {
            Ok(side) if (1..=most).contains(&side) => Ok(side),
            _ => Err(refuse(
                field,
                format!("must be between 1 and {most}"),
                "give the size of the screen, in characters",
            )),
        }
    };
    Ok((side("rows", wanted.rows)?, side("columns", wanted.columns)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::extract::parse;

    fn field<T>(result: Result<T, Error>) -> Option<String> {
        let context = result.err()?.context?;
        context["field"].as_str().map(str::to_owned)
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_field() {
        for (body, wrong) in [
            (r#"{"shell":"a","user":"nobody"}"#, "user"),
            (r#"{"shell":"a","argv":["a"]}"#, "shell"),
            ("{}", "argv"),
            (r#"{"shell":"a\u0000"}"#, "shell"),
            (r#"{"argv":[""]}"#, "argv"),
            (r#"{"shell":"a","timeout_ms":0}"#, "timeout_ms"),
        ] {
            let wanted = parse(body.as_bytes()).expect("well-formed");
            assert_eq!(field(session_command(wanted)).as_deref(), Some(wrong), "{body}");
        }
        for (body, wrong) in [
            (r#"{"rows":0}"#, "rows"),
            (r#"{"columns":65536}"#, "columns"),
            (r#"{"columns":4097}"#, "columns"),
            (r#"{"id":"../x"}"#, "id"),
            (r#"{"argv":[]}"#, "argv"),
            (r#"{"env":{"A=":"b"}}"#, "env.A="),
        ] {
            let wanted = parse(body.as_bytes()).expect("well-formed");
            assert_eq!(field(terminal(wanted)).as_deref(), Some(wrong), "{body}");
        }
        for id in ["", ".", "-a", "a/b", "a b", &"a".repeat(65)] {
            let wanted = CreateSession { id: Some(id.to_owned()), ..CreateSession::default() };
            assert_eq!(field(session(wanted)).as_deref(), Some("id"), "{id:?}");
        }
    }
}
