//! Cloning a repository into a sandbox, by the image's own git.
//!
//! ```text
//! look ──▶ clone ──▶ settle            three commands of the sandbox, each with all of its restrictions
//!            │ failed, timed out, or the client left: killed, waited for
//!            └────▶ clear              nothing that was begun stays
//! ```
//!
//! git writes into a directory beside the destination, which takes its name only when it is whole: so a half clone is
//! never seen under the name that was asked for, whoever is killed when. Only where the destination is there already,
//! and empty, git writes into it, because its owner and mode are somebody's choice.
//!
//! # Credentials
//!
//! Name and password are in no argument, no variable, no file system and no log. They are the content of a sealed
//! file in memory, which the command gets as its stdin and moves to descriptor 3; a credential helper of one line,
//! configured for the one host of the URL, prints it when git asks. Another host, to which a redirect or a submodule
//! may lead, is not told. The image's and the user's own git configuration is left out then, so that nothing in it can
//! send them elsewhere. Processes of the same user in the sandbox can take them from git while it runs, as they could
//! from anything: credentials are for sandboxes that may have them.
//!
//! Why not serve's own git: what a repository holds is hostile, and git runs programs that its configuration names.

mod failure;
mod url;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

pub use url::RepositoryUrl;

use super::Sandbox;
use super::command::{Command, CommandExit, CommandSpec, Secret};
use crate::error::{Error, ErrorCode};
use crate::limits::{GIT_TIMEOUT_DEFAULT_S, PATH_BYTES_MAX};
use crate::wire::agent::Exit;

/// Bytes that are kept of what git says, the last ones.
const WORDS_MAX: usize = 16 * 1024;

/// How long a pipe of a command that has ended may still have a writer.
const ORPHAN: Duration = Duration::from_millis(100);

/// How long clearing away may take.
const CLEAR: Duration = Duration::from_secs(60);

/// Says `into` when the destination is an empty directory and `beside` when it is not there, and what else there is
/// by its code. Makes the directories above it.
const LOOK: &str = r#"command -v git >/dev/null 2>&1 || exit 71
if [ -d "$1" ]; then
  [ -z "$(ls -A "$1" 2>&1)" ] || exit 72
  [ -w "$1" ] || exit 73
  echo into
elif [ -e "$1" ] || [ -L "$1" ]; then exit 72
else mkdir -p "$2" 2>/dev/null && [ -w "$2" ] || exit 73; echo beside; fi"#;

/// Runs git with what was stdin as descriptor 3.
const CLONE: &str = r#"exec 3<&0 </dev/null; exec git "$@""#;

/// Gives the clone its name, and tells its commit and branch.
const SETTLE: &str = r#"if [ "$1" != "$2" ]; then
  if [ -e "$2" ] || [ -L "$2" ]; then exit 72; fi
  mv "$1" "$2" || exit 73
fi
git -C "$2" rev-parse --verify --quiet HEAD || echo
git -C "$2" symbolic-ref --short --quiet HEAD || echo"#;

/// Removes a directory beside the destination, or what is in one that was empty.
const CLEAR_AWAY: &str = r#"if [ "$1" != "$2" ]; then rm -rf "$1"; else
  cd "$2" && rm -rf ./* ./.[!.]* ./..?*
fi"#;

/// What answers when git asks for credentials: prints descriptor 3 from its beginning, as often as it is asked.
const ANSWER: &str =
    r#"!f() { [ "$1" != get ] || while IFS= read -r l; do printf '%s\n' "$l"; done </proc/self/fd/3; }; f"#;

/// Transports that a clone may use. `ext` runs any program; submodules get no local files (CVE-2022-39253).
const PROTOCOLS: [&str; 6] = [
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.ssh.allow=always",
    "protocol.git.allow=always",
    "protocol.file.allow=user",
];

/// A repository to clone.
#[derive(Clone, Debug)]
pub struct CloneSpec {
    /// From where.
    pub url: RepositoryUrl,
    /// To where: absolute, or below the sandbox's working directory. Without it, a directory named after the URL.
    pub path: Option<String>,
    /// Branch or tag; the repository's default without it.
    pub branch: Option<String>,
    /// Commits of history.
    pub depth: Option<u32>,
    /// Submodules too.
    pub submodules: bool,
    /// Whom git runs as; the sandbox's user without it.
    pub user: Option<String>,
    /// After which it is given up.
    pub timeout: Option<Duration>,
    /// What to show the host of the URL.
    pub login: Option<Login>,
}

/// A name and a password, or a token in the place of one. Not printed.
#[derive(Clone)]
pub struct Login {
    /// Name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// A repository that was cloned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloned {
    /// Where it is in the sandbox.
    pub path: String,
    /// The commit that is checked out; a repository without any has none.
    pub commit: Option<String>,
    /// The branch; a tag is on none.
    pub branch: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

impl Sandbox {
    /// Clones a repository. Ends early when `cancel` fires; what was begun is removed then, before this returns.
    ///
    /// # Errors
    /// One code per kind of failure: `GIT_…`, and what any command can meet.
    pub async fn clone_repository(
        self: &Arc<Self>,
        wanted: CloneSpec,
        cancel: &CancellationToken,
    ) -> Result<Cloned, Error> {
        let began = Instant::now();
        let timeout = wanted.timeout.unwrap_or(Duration::from_secs(GIT_TIMEOUT_DEFAULT_S));
        let work = Work { sandbox: self, wanted: &wanted, deadline: began + timeout, cancel };
        let destination = self.destination(&wanted)?;
        let (parent, name) = destination.rsplit_once('/').unwrap_or(("", &destination));
        let beside = format!("{parent}/.{name}.clone-{}", super::random::random_id());
        let parent = if parent.is_empty() { "/" } else { parent };
        let found = work.run(work.script(LOOK, &[&destination, parent])).await?;
        let target = match (code(&found.exit), found.stdout.trim_ascii()) {
            (0, b"beside") => &beside,
            (0, b"into") => &destination,
            (code, _) => return Err(failure::of_script(code, &destination)),
        };
        let mut cloned = work.clone_into(target, &destination).await;
        if let Ok(cloned) = &mut cloned {
            cloned.duration = began.elapsed();
        } else {
            work.clear(target, &destination).await;
        }
        cloned
    }

    /// Where a clone goes, as an absolute path that does not climb.
    fn destination(&self, wanted: &CloneSpec) -> Result<String, Error> {
        let path = wanted.path.clone().or_else(|| wanted.url.name()).ok_or_else(|| {
            Error::new(ErrorCode::InvalidRequest, "the URL does not say how to call the clone")
                .hint("name the destination as `path`")
                .context(serde_json::json!({"field": "path"}))
        })?;
        let path = if path.starts_with('/') {
            path
        } else {
            format!("{}/{path}", self.facts.cwd.trim_end_matches('/'))
        };
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let path = format!("/{}", parts.join("/"));
        let climbs = parts.contains(&"..") || path == "/" || path.contains(char::is_control);
        // Room for the name beside it.
        if climbs || path.len() + 64 > PATH_BYTES_MAX || parts.iter().any(|part| part.len() > 200) {
            return Err(Error::new(ErrorCode::InvalidRequest, "path is no destination for a clone")
                .hint("name a directory to make, or an empty one, by its path without `..`")
                .context(serde_json::json!({"field": "path"})));
        }
        Ok(path)
    }
}

/// What all steps of one clone need.
struct Work<'a> {
    sandbox: &'a Arc<Sandbox>,
    wanted: &'a CloneSpec,
    deadline: Instant,
    cancel: &'a CancellationToken,
}

/// How a step ended.
struct Step {
    exit: CommandExit,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Work<'_> {
    /// A command that runs a script with these arguments.
    fn script(&self, script: &str, arguments: &[&str]) -> CommandSpec {
        let fixed = ["/bin/sh", "-c", script, "sh"];
        let variables = [
            ("LC_ALL", "C"),
            ("LANGUAGE", ""),
            // No question to a terminal or a window that nobody looks at.
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
        ];
        let mut env: BTreeMap<String, String> =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        if self.wanted.login.is_some() {
            let private =
                [("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TRACE_REDACT", "1")];
            env.extend(private.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        CommandSpec {
            argv: fixed.iter().chain(arguments).map(|&argument| argument.to_owned()).collect(),
            env,
            cwd: Some("/".to_owned()),
            user: self.wanted.user.clone(),
            timeout: Some(self.deadline.saturating_duration_since(Instant::now())),
            ..CommandSpec::default()
        }
    }

    async fn clone_into(&self, target: &str, destination: &str) -> Result<Cloned, Error> {
        let arguments = match self.is_part_of_a_bundle().await? {
            true => arguments(&CloneSpec { depth: None, ..self.wanted.clone() }, target),
            false => arguments(self.wanted, target),
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = self.script(CLONE, &arguments);
        command.secret = self.wanted.login.as_ref().map(|Login { username, password }| {
            Secret::new(format!("username={username}\npassword={password}\n").into_bytes())
        });
        let Step { exit, stderr, .. } = self.run(command).await?;
        if code(&exit) != 0 {
            return Err(failure::of_git(&exit, &stderr, self.wanted));
        }
        let settled = self.run(self.script(SETTLE, &[target, destination])).await?;
        if code(&settled.exit) != 0 {
            return Err(failure::of_script(code(&settled.exit), destination));
        }
        let text = String::from_utf8_lossy(&settled.stdout);
        let mut lines = text.lines().map(|line| (!line.is_empty()).then(|| line.to_owned()));
        Ok(Cloned {
            path: destination.to_owned(),
            commit: lines.next().flatten(),
            branch: lines.next().flatten(),
            duration: Duration::ZERO,
        })
    }

    /// Whether a depth is asked of a bundle: git takes all of one, and by its path alone.
    async fn is_part_of_a_bundle(&self) -> Result<bool, Error> {
        let (Some(_), Some(path)) = (self.wanted.depth, self.wanted.url.local()) else { return Ok(false) };
        let found = self.run(self.script(r#"[ -f "$1" ]"#, &[path])).await?;
        Ok(code(&found.exit) == 0)
    }

    /// Runs a step to its end. When nobody waits for the clone any more it is killed, and its end is still waited
    /// for: what comes next may touch the same files.
    async fn run(&self, spec: CommandSpec) -> Result<Step, Error> {
        let mut command = self.sandbox.run(spec).await.map_err(failure::of_start)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit = {
            let pipes = (command.stdout.take(), command.stderr.take());
            let reading = async { tokio::join!(tail(pipes.0, &mut stdout), tail(pipes.1, &mut stderr)) };
            let (mut reading, mut ending) =
                (std::pin::pin!(reading), std::pin::pin!(end(&mut command, self.cancel)));
            tokio::select! {
                exit = &mut ending => {
                    // A pipe that still has a writer was given to another command.
                    let _ = tokio::time::timeout(ORPHAN, &mut reading).await;
                    exit
                }
                _ = &mut reading => ending.await,
            }
        };
        let exit = exit?;
        if self.cancel.is_cancelled() {
            return Err(Error::new(ErrorCode::GitFailed, "the clone was cancelled"));
        }
        if exit.timed_out {
            return Err(failure::timeout());
        }
        Ok(Step { exit, stdout, stderr })
    }

    /// Removes what a clone that failed has left.
    async fn clear(&self, target: &str, destination: &str) {
        let never = CancellationToken::new();
        let work = Work { deadline: Instant::now() + CLEAR, cancel: &never, ..*self };
        if let Err(error) = work.run(work.script(CLEAR_AWAY, &[target, destination])).await {
            // The sandbox may be gone, and its files with it.
            tracing::debug!(%error, "cannot clear a clone away");
        }
    }
}

/// Waits for a command, or kills it and waits.
async fn end(command: &mut Command, cancel: &CancellationToken) -> Result<CommandExit, Error> {
    tokio::select! {
        exit = command.wait() => return exit,
        () = cancel.cancelled() => {}
    }
    command.signal(libc::SIGKILL).await?;
    command.wait().await
}

/// Reads a pipe to its end and keeps the last of it.
async fn tail(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; WORDS_MAX];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(WORDS_MAX));
    }
}

/// The exit code as shells say it.
fn code(exit: &CommandExit) -> i32 {
    match exit.exit {
        Exit::Code(code) => code,
        Exit::Signal(number) => 128 + number,
    }
}

/// git's arguments.
fn arguments(wanted: &CloneSpec, target: &str) -> Vec<String> {
    let mut settings: Vec<String> = PROTOCOLS.map(str::to_owned).into();
    // An empty helper takes back those that the image or the user configured.
    settings.extend(
        ["credential.helper=", "credential.useHttpPath=false", "core.hooksPath=/dev/null"].map(str::to_owned),
    );
    settings.extend(["core.fsmonitor=false", "core.askPass="].map(str::to_owned));
    if let (Some(_), Some(host)) = (&wanted.login, wanted.url.host()) {
        settings.push(format!("credential.{host}.helper={ANSWER}"));
    }
    let mut arguments: Vec<String> =
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect();
    arguments.extend(["clone", "--quiet", "--template="].map(str::to_owned));
    if let Some(branch) = &wanted.branch {
        arguments.push(format!("--branch={branch}"));
    }
    if let Some(depth) = wanted.depth {
        arguments.push(format!("--depth={depth}"));
    }
    arguments
        .push(if wanted.submodules { "--recurse-submodules" } else { "--no-recurse-submodules" }.to_owned());
    if wanted.submodules && wanted.depth.is_some() {
        arguments.push("--shallow-submodules".to_owned());
    }
    let url = match (wanted.depth, wanted.url.local()) {
        // Of a path git copies what is there, all of it.
        (Some(_), Some(path)) => format!("file://{}", path.replace('%', "%25")),
        _ => wanted.url.as_str().to_owned(),
    };
    arguments.extend(["--".to_owned(), url, target.to_owned()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(url: &str) -> CloneSpec {
        CloneSpec {
            url: RepositoryUrl::parse(url).expect("URL"),
            path: None,
            branch: None,
            depth: None,
            submodules: false,
            user: None,
            timeout: None,
            login: Some(Login { username: "me".to_owned(), password: "hunter2".to_owned() }),
        }
    }

    #[test]
    fn the_password_is_in_no_argument_and_for_one_host() {
        let spec = wanted("https://git.example:8443/team/app.git");
        let all = arguments(&spec, "/x").join("\n");
        assert!(!all.contains("hunter2") && !format!("{spec:?}").contains("hunter2"));
        assert!(all.contains("credential.https://git.example:8443.helper=!f()"), "{all}");
        assert!(all.ends_with("--\nhttps://git.example:8443/team/app.git\n/x"), "{all}");
        let without = CloneSpec { login: None, ..spec };
        assert!(!arguments(&without, "/x").join("\n").contains("/proc/self/fd/3"));
    }

    #[test]
    fn submodules_come_only_when_asked_for() {
        let spec = CloneSpec { depth: Some(1), branch: Some("v1".to_owned()), ..wanted("/srv/app") };
        let plain = arguments(&spec, "/x");
        assert!(
            plain.contains(&"--no-recurse-submodules".to_owned())
                && plain.contains(&"--branch=v1".to_owned())
        );
        assert!(plain.contains(&"file:///srv/app".to_owned()), "a path would be copied whole: {plain:?}");
        let all = arguments(&CloneSpec { submodules: true, ..spec }, "/x");
        assert!(all.contains(&"--recurse-submodules".to_owned()) && all.contains(&"--depth=1".to_owned()));
    }

    #[tokio::test]
    async fn only_the_last_words_are_kept() {
        let (mut writer, reader) = tokio::io::duplex(4096);
        let write = async {
            use tokio::io::AsyncWriteExt;
            for _ in 0..100 {
                writer.write_all(&[b'x'; 1000]).await.expect("write");
            }
            writer.write_all(b"fatal: at last").await.expect("write");
            drop(writer);
        };
        let mut kept = Vec::new();
        tokio::join!(write, tail(Some(reader), &mut kept));
        assert!(kept.len() == WORDS_MAX && kept.ends_with(b"fatal: at last"));
    }
}
