//! What the values of a request may be that is about contexts.

use std::time::Duration;

use serde_json::json;

use super::border::{env, output_bytes_max, refuse, text, within};
use super::border_lasting::item_id;
use super::schema::contexts::{AnswerInput, CreateContext, RunCode};
use crate::error::{Error, ErrorCode};
use crate::limits;
use crate::sandbox::{ContextSpec, Language, RunSpec};

/// A context to make, if its values are sane.
pub(crate) fn context(wanted: CreateContext) -> Result<ContextSpec, Error> {
    env(&wanted.env)?;
    let language = wanted.language.unwrap_or(Language::Python);
    let id = wanted.id.as_deref().map(item_id).transpose()?;
    let misleading =
        |id: &str| Language::ALL.into_iter().any(|other| other != language && other.name() == id);
    if id.as_ref().is_some_and(|id| misleading(id.as_str())) {
        return Err(Error::new(ErrorCode::InvalidId, "the id is the name of another language")
            .hint("choose another id")
            .context(json!({"field": "id"})));
    }
    let timeout = within("timeout_ms", wanted.timeout_ms, 1, limits::TIMEOUT_MS_MAX)?;
    Ok(ContextSpec {
        id,
        language,
        cwd: wanted.cwd,
        env: wanted.env,
        user: wanted.user,
        timeout: timeout.map(Duration::from_millis),
    })
}

/// A cell, and how much of its output to keep, if its values are sane.
pub(crate) fn run(wanted: RunCode) -> Result<(RunSpec, usize), Error> {
    let missing = || refuse("code", "is missing", r#"give the cell as "code": "1 + 1"; it may be empty"#);
    let code = wanted.code.ok_or_else(missing)?;
    env(&wanted.env)?;
    if let Some(cwd) = &wanted.cwd {
        text("cwd", cwd, limits::PATH_BYTES_MAX - 1)?;
    }
    let timeout = within("timeout_ms", wanted.timeout_ms, 1, limits::TIMEOUT_MS_MAX)?;
    let kept = output_bytes_max(wanted.output_bytes_max)?;
    let spec = RunSpec {
        code,
        env: wanted.env,
        cwd: wanted.cwd,
        timeout: timeout.map(Duration::from_millis),
        stdin: wanted.stdin,
        detach: wanted.detach,
        wrong: None,
    };
    Ok((spec, kept))
}

/// An answer to code that asks; `None` is the end of the input.
pub(crate) fn answer(wanted: AnswerInput) -> Result<Option<String>, Error> {
    match (wanted.value, wanted.eof) {
        (Some(value), false) if !value.contains('\n') => Ok(Some(value)),
        (Some(_), false) => Err(refuse("value", "holds the end of a line", "answer one line at a time")),
        (None, true) => Ok(None),
        _ => Err(refuse("value", "and eof exclude each other, and one is needed", "give one of them")),
    }
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
            (r#"{"id":"../x"}"#, "id"),
            (r#"{"timeout_ms":0}"#, "timeout_ms"),
            (r#"{"env":{"A=":"b"}}"#, "env.A="),
        ] {
            let wanted = parse(body.as_bytes()).expect("well-formed");
            assert_eq!(field(context(wanted)).as_deref(), Some(wrong), "{body}");
        }
        for (body, wrong) in [
            ("{}", "code"),
            (r#"{"code":"1","cwd":"/a\u0000"}"#, "cwd"),
            (r#"{"code":"1","timeout_ms":0}"#, "timeout_ms"),
            (r#"{"code":"1","output_bytes_max":100000000}"#, "output_bytes_max"),
        ] {
            let wanted = parse(body.as_bytes()).expect("well-formed");
            assert_eq!(field(run(wanted)).as_deref(), Some(wrong), "{body}");
        }
        for body in ["{}", r#"{"value":"a","eof":true}"#, r#"{"value":"a\nb"}"#] {
            let wanted = parse(body.as_bytes()).expect("well-formed");
            assert_eq!(field(answer(wanted)).as_deref(), Some("value"), "{body}");
        }
        assert!(parse::<CreateContext>(br#"{"language":"cobol"}"#).is_err());
    }
}
