//! From git's words to an error that says what to do.
//!
//! git has one code, 128, for everything that fails, and its words are all there is; with `LC_ALL=C` they are
//! English and have been the same for years. What is not recognised is `GIT_FAILED` with the last of them.

use super::CloneSpec;
use crate::error::{Error, ErrorCode};
use crate::sandbox::command::CommandExit;

/// Characters of git's words that are passed on.
const WORDS_MAX: usize = 600;

/// The image has no git, or no shell to run it.
fn missing() -> Error {
    Error::new(ErrorCode::GitNotInImage, "the image has no git")
        .hint("use an image with git and /bin/sh in its PATH")
}

/// The time is up.
pub(super) fn timeout() -> Error {
    Error::new(ErrorCode::GitTimeout, "the clone took too long and was given up")
        .hint("raise `timeout_ms`, or clone less with `depth`")
}

/// Why a step could not be started.
pub(super) fn of_start(error: Error) -> Error {
    match error.code {
        ErrorCode::CommandNotInImage | ErrorCode::CommandNotExecutable => missing(),
        _ => error,
    }
}

/// What the code of one of our own scripts means.
pub(super) fn of_script(code: i32, destination: &str) -> Error {
    let about = |error: Error| error.context(serde_json::json!({"field": "path", "path": destination}));
    match code {
        71 => missing(),
        72 => about(
            Error::new(ErrorCode::GitDestinationNotEmpty, "the destination is there already and not empty")
                .hint("name another `path`, or remove what is there"),
        ),
        73 => about(
            Error::new(ErrorCode::GitFailed, "the destination cannot be written")
                .hint("name a `path` that the user may write to, or another `user`; the disk may be full"),
        ),
        _ => Error::new(ErrorCode::GitFailed, "the sandbox's shell failed around the clone")
            .hint("the image needs a POSIX /bin/sh with ls, mkdir, mv and rm"),
    }
}

/// Parts of what git says, by what they mean. The first that is found counts.
const WORDS: &[(ErrorCode, &[&str])] = &[
    (ErrorCode::GitBranchNotFound, &["Remote branch", "Could not find remote branch"]),
    (
        ErrorCode::GitDenied,
        &[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "returned error: 401",
            "returned error: 403",
            "Permission denied (",
            "Access denied",
            "access denied",
            "Host key verification failed",
        ],
    ),
    (
        ErrorCode::GitUnreachable,
        &[
            "Could not resolve host",
            "Could not resolve hostname",
            "Failed to connect",
            "Couldn't connect",
            "Connection refused",
            "Connection timed out",
            "Connection reset",
            "Network is unreachable",
            "No route to host",
            "unable to connect",
            "unable to look up",
            "SSL",
            "TLS",
            "certificate",
            "RPC failed",
            "early EOF",
            "unexpected disconnect",
            "Empty reply from server",
            "returned error: 5",
            "Operation timed out",
        ],
    ),
    (
        ErrorCode::GitRepositoryNotFound,
        &[
            "not found",
            "does not exist",
            "does not appear to be a git repository",
            "No such file or directory",
            "returned error: 404",
            "not valid: is this a git repository",
            "Repository not exported",
        ],
    ),
    (ErrorCode::GitDestinationNotEmpty, &["already exists and is not an empty directory"]),
];

/// What the end of `git clone` means.
pub(super) fn of_git(exit: &CommandExit, stderr: &[u8], wanted: &CloneSpec) -> Error {
    let words = words(stderr, wanted);
    let code = if super::code(exit) == 127 {
        return missing();
    } else if exit.oom_killed {
        return Error::new(ErrorCode::GitFailed, "git was killed: the sandbox has too little memory for it")
            .hint("create the sandbox with higher `memory_bytes`, or clone less with `depth`");
    } else {
        let found = WORDS.iter().find(|(_, parts)| parts.iter().any(|part| words.contains(part)));
        found.map_or(ErrorCode::GitFailed, |(code, _)| *code)
    };
    let (message, hint) = match code {
        ErrorCode::GitBranchNotFound => {
            ("the repository has no such branch or tag", "check `branch`; leave it out for the default one")
        }
        ErrorCode::GitDenied => (
            "the repository's host wants credentials, or refuses these",
            "give `username` and `password`, or `token`; for ssh, put key and known_hosts into the sandbox",
        ),
        ErrorCode::GitUnreachable => (
            "the repository's host cannot be reached, or does not answer as it should",
            "check the host's name, and that the sandbox has a network that leads there",
        ),
        ErrorCode::GitRepositoryNotFound => (
            "there is no such repository",
            "check the URL; a private repository may need credentials to be seen",
        ),
        ErrorCode::GitDestinationNotEmpty => {
            ("the destination is there already and not empty", "name another `path`, or remove what is there")
        }
        _ => ("git could not clone the repository", "its own words are in `context.git`"),
    };
    Error::new(code, message).hint(hint).context(serde_json::json!({"git": words}))
}

/// The last of git's words, without what is secret: a host may repeat it.
fn words(stderr: &[u8], wanted: &CloneSpec) -> String {
    let mut text = String::from_utf8_lossy(stderr).into_owned();
    if let Some(login) = &wanted.login {
        text = text.replace(&login.password, "…");
    }
    let text = text.trim();
    let skip = text.chars().count().saturating_sub(WORDS_MAX);
    text.chars().skip(skip).filter(|character| !character.is_control() || *character == '\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::git::{Login, RepositoryUrl};
    use crate::wire::agent::{Exit, Usage};

    fn failed(stderr: &str) -> Error {
        let exit = CommandExit {
            exit: Exit::Code(128),
            usage: Some(Usage::default()),
            timed_out: false,
            oom_killed: false,
            duration: std::time::Duration::ZERO,
        };
        let wanted = CloneSpec {
            url: RepositoryUrl::parse("https://example.org/app").expect("URL"),
            path: None,
            branch: None,
            depth: None,
            submodules: false,
            user: None,
            timeout: None,
            login: Some(Login { username: "me".to_owned(), password: "hunter2".to_owned() }),
        };
        of_git(&exit, stderr.as_bytes(), &wanted)
    }

    #[test]
    fn gits_words_have_codes() {
        for (words, code) in [
            (
                "warning: Could not find remote branch x to clone.\nfatal: Remote branch x not found in upstream origin",
                ErrorCode::GitBranchNotFound,
            ),
            ("fatal: repository 'http://127.0.0.1:1/x/' not found", ErrorCode::GitRepositoryNotFound),
            ("fatal: '/x' does not appear to be a git repository", ErrorCode::GitRepositoryNotFound),
            ("fatal: repository '/x' does not exist", ErrorCode::GitRepositoryNotFound),
            (
                "fatal: could not read Username for 'http://h': terminal prompts disabled",
                ErrorCode::GitDenied,
            ),
            ("remote: no\nfatal: Authentication failed for 'http://h/x/'", ErrorCode::GitDenied),
            ("git@h: Permission denied (publickey).", ErrorCode::GitDenied),
            ("fatal: unable to access 'https://h/': Could not resolve host: h", ErrorCode::GitUnreachable),
            (
                "fatal: unable to access 'http://h/': Failed to connect to h port 1 after 0 ms: Couldn't connect",
                ErrorCode::GitUnreachable,
            ),
            ("fatal: something else", ErrorCode::GitFailed),
        ] {
            let error = failed(words);
            assert_eq!(error.code, code, "{words}");
            assert!(error.hint.is_some(), "{words}");
        }
    }

    #[test]
    fn a_host_that_repeats_the_password_is_not_quoted() {
        let error = failed("remote: 'hunter2' is wrong\nfatal: Authentication failed");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
