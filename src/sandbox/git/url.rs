//! What can be cloned: a URL, the short form of ssh, or a path in the sandbox.
//!
//! Parsed here so that nothing of it is an option, another program's name (`ext::…`) or a place for a password:
//! what stands in a URL stands on git's command line and in the clone's configuration.

use crate::error::{Error, ErrorCode};

/// Bytes in a URL.
const URL_BYTES_MAX: usize = 2048;

/// Transports with a URL.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryUrl {
    text: String,
    /// `https://host:port` of those that credentials can be shown to.
    host: Option<String>,
}

fn refused(why: &'static str, fix: &'static str) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("url {why}"))
        .hint(fix)
        .context(serde_json::json!({"field": "url"}))
}

const FORMS: &str =
    "write https://host/path, ssh://user@host/path, user@host:path, or an absolute path in the sandbox";

impl RepositoryUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// `INVALID_REQUEST` says what is wrong with it, and does not repeat it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > URL_BYTES_MAX {
            return Err(refused("is too long", FORMS));
        }
        if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(refused("holds a space or a control character", "percent-encode it"));
        }
        let host = match text.split_once("://") {
            Some((scheme, rest)) => parse_rest(&scheme.to_ascii_lowercase(), rest)?,
            None if text.starts_with('/') => None,
            None => {
                parse_short(text)?;
                None
            }
        };
        Ok(Self { text: text.to_owned(), host })
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port, where there is a place for credentials.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The path in the sandbox, if it is no URL.
    pub fn local(&self) -> Option<&str> {
        self.text.starts_with('/').then_some(&self.text)
    }

    /// What git would call the clone: the last part, without `.git` or `.bundle`.
    pub fn name(&self) -> Option<String> {
        let path = self.text.trim_end_matches('/');
        let path = path.strip_suffix("/.git").unwrap_or(path);
        let last = path.rsplit(['/', ':']).next().unwrap_or_default();
        let name = last.strip_suffix(".git").or_else(|| last.strip_suffix(".bundle")).unwrap_or(last);
        // `https://host` alone names no repository.
        let has_path = path.split_once("://").is_none_or(|(_, rest)| rest.contains('/'));
        (has_path && !matches!(name, "" | "." | "..")).then(|| name.to_owned())
    }
}

fn parse_rest(scheme: &str, rest: &str) -> Result<Option<String>, Error> {
    if !SCHEMES.contains(&scheme) {
        return Err(refused("has a scheme that clones do not use", FORMS));
    }
    if scheme == "file" {
        return if rest.starts_with('/') {
            Ok(None)
        } else {
            Err(refused("must name an absolute path", FORMS))
        };
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        let fix = "give them as `username` and `password`: a URL is kept in the clone and shown in lists";
        return Err(refused("holds a password", fix));
    }
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || host.starts_with('-') || user.starts_with('-') || !host.bytes().all(plain) {
        return Err(refused("has no valid host", FORMS));
    }
    Ok(matches!(scheme, "https" | "http").then(|| format!("{scheme}://{host}")))
}

/// `user@host:path`, as scp writes it.
fn parse_short(text: &str) -> Result<(), Error> {
    let Some((host, path)) = text.split_once(':') else { return Err(refused("is not one", FORMS)) };
    let valid = !host.is_empty() && !host.starts_with('-') && !host.contains('/');
    // `transport::address` runs the program `git-remote-transport`.
    if valid && !path.is_empty() && !path.starts_with(':') {
        Ok(())
    } else {
        Err(refused("is not one", FORMS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_can_clone_safely_is_taken_and_named_as_git_does() {
        for (text, host, name) in [
            ("https://example.org/team/app.git", Some("https://example.org"), Some("app")),
            ("HTTP://127.0.0.1:8080/app/", Some("http://127.0.0.1:8080"), Some("app")),
            ("https://me@example.org/app", Some("https://example.org"), Some("app")),
            ("https://[::1]:8/a/b/.git", Some("https://[::1]:8"), Some("b")),
            ("https://example.org", Some("https://example.org"), None),
            ("ssh://git@example.org:22/app", None, Some("app")),
            ("git@example.org:team/app.git", None, Some("app")),
            ("git://example.org/app", None, Some("app")),
            ("/workspace/app.bundle", None, Some("app")),
            ("file:///srv/app.git", None, Some("app")),
            ("/", None, None),
        ] {
            let url = RepositoryUrl::parse(text).expect(text);
            assert_eq!((url.host(), url.name().as_deref()), (host, name), "{text}");
        }
    }

    #[test]
    fn what_runs_programs_reads_options_or_holds_passwords_is_refused() {
        for text in [
            "",
            "app",
            "--upload-pack=touch /tmp/x",
            "--upload-pack=x:y",
            "-x:y",
            "ext::sh -c id",
            "ext::id",
            "transport::https://example.org/app",
            "ftp://example.org/app",
            "https://me:secret@example.org/app",
            "https:///app",
            "https://-oProxyCommand=x/app",
            "ssh://-oProxyCommand=x/app",
            "https://a=b.example/app",
            "https://exam ple.org/app",
            "https://example.org/a\nb",
            "file://relative",
            &format!("https://example.org/{}", "a".repeat(3000)),
        ] {
            let error = RepositoryUrl::parse(text).expect_err(text);
            assert!(error.hint.is_some() && !error.message.contains("secret"), "{text}: {error}");
        }
    }
}
