//! Cells that are rewritten before they are run: by a worker, with the rights that their code is going to have.

use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;

use super::frame::CodeError;
use super::interpreter::exhausted;
use super::language::Language;
use crate::error::Error;
use crate::limits::JSON_BODY_BYTES_MAX;
use crate::sandbox::files::Files;
use crate::sys::Errno;
use crate::wire::worker::Answer;

/// Bytes of what a cell may become: enums and imports are longer afterwards.
const REWRITTEN_BYTES_MAX: usize = 4 * JSON_BODY_BYTES_MAX;

/// What the interpreter is given for a cell, or what is wrong with it.
///
/// # Errors
/// When there can be no worker.
pub(super) async fn rewritten(
    files: &Files,
    language: Language,
    code: &str,
) -> Result<Result<String, CodeError>, Error> {
    let typescript = language == Language::Typescript;
    if let Some(expression) = as_expression(code)
        && let Ok(made) = attempt(files, typescript, &expression).await?
    {
        return Ok(Ok(made));
    }
    match attempt(files, typescript, code).await? {
        Ok(made) => Ok(Ok(made)),
        // node's own words are better, and it knows what is not wrong in a script.
        Err(Answer::SyntaxError { .. }) if !typescript => Ok(Ok(code.to_owned())),
        Err(Answer::SyntaxError { message, line, column }) => {
            let place = code.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
            let traceback = format!("cell.ts:{line}:{column}\n{place}\nSyntaxError: {message}");
            let name = "SyntaxError".to_owned();
            Ok(Err(CodeError { name, message, traceback, line: Some(line.into()), exit: None }))
        }
        Err(_) => Ok(Ok(code.to_owned())),
    }
}

/// What a cell becomes, or what else is said of it.
async fn attempt(files: &Files, typescript: bool, code: &str) -> Result<Result<String, Answer>, Error> {
    let file = memory(code.as_bytes()).map_err(exhausted)?;
    match files.rewrite(typescript, &file).await? {
        Answer::Done => {
            let bytes = contents(&file).map_err(exhausted)?;
            // Whoever shares the worker's user may have written to it meanwhile: it is that user's code.
            Ok(Ok(String::from_utf8_lossy(&bytes).into_owned()))
        }
        other => Ok(Err(other)),
    }
}

/// A cell as the object that it may be, as in node's own REPL: what begins with a brace and does not end with a semicolon
/// is a block only where it can be nothing else. `asExpression` is this for cells that are not rewritten.
fn as_expression(code: &str) -> Option<String> {
    let begin = code.len() - code.trim_start().len();
    let (space, rest) = code.split_at(begin);
    (rest.starts_with('{') && !rest.trim_end().ends_with(';')).then(|| format!("{space}({rest}\n)"))
}

fn memory(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create(c"cell", MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(&file, &bytes[written..], written as u64)?;
    }
    Ok(file)
}

fn contents(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while bytes.len() < REWRITTEN_BYTES_MAX {
        match rustix::io::pread(file, &mut chunk, bytes.len() as u64)? {
            0 => break,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(bytes)
}
