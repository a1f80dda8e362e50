//! `file`: the files of a sandbox, one by one, under the names that they have everywhere.
//!
//! Paths are bytes on the way in and on the way out: what is no UTF-8 travels percent-encoded or as base64, and is
//! written to a pipe as it is.

mod look;
mod search;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use clap::{Args, Subcommand};
use percent_encoding::percent_encode;
use serde::Serialize;

use super::OWN_FAILURE;
use super::client::{Client, SEGMENT, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use crate::api::files::schema::{
    ChangeMode, ChangeOwner, CopyFile, MakeDirectory, MakeSymlink, PathText, RemoveFile, RenameFile,
};

pub(super) const HELP: &str = "\
Relative paths begin at the sandbox's working directory. Names that are no UTF-8 are arguments as all others, and are \
written to a pipe as they are; a terminal gets them escaped, and --json has them as base64.

Examples:
  stockade file ls work --recursive --long
  stockade file ls work /workspace --recursive --glob '*.py' --null | xargs -0 echo
  stockade file mkdir work -p src/lib && stockade file mv work notes.txt src/notes.txt
  stockade file exists work /workspace/out.csv && stockade file cat work /workspace/out.csv
  stockade file grep work 'TODO|FIXME' src --glob '*.rs'
  stockade file changes work /workspace            prints a status and a cursor, and next time:
  stockade file changes work /workspace --cursor CURSOR

`stockade cp` brings files and trees in and out, `stockade watch` shows changes as they happen.";

/// What can be done with files.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List a directory, in the order of names.
    Ls(look::List),
    /// Show what a file is.
    Stat(look::Stat),
    /// Say whether a file is there, by ending with 0 or 1.
    Exists(look::Exists),
    /// Write the content of files to stdout.
    Cat(Several),
    /// Search text in files, and end with 1 when there is none.
    Grep(search::Grep),
    /// Say whether something has changed since the last time.
    Changes(search::Changed),
    /// What changes files.
    #[command(flatten)]
    Change(Change),
}

/// What answers nothing but that it is done.
#[derive(Debug, Subcommand)]
pub enum Change {
    /// Make directories.
    Mkdir(Mkdir),
    /// Rename a file or directory, within one file system.
    Mv(Pair),
    /// Copy a file or tree within the sandbox. Links stay links; permissions are kept, owners are not.
    Cp(Pair),
    /// Remove files.
    Rm(Remove),
    /// Change permissions.
    Chmod(Chmod),
    /// Change the owner.
    Chown(Chown),
    /// Make a symbolic link.
    Ln(Ln),
}

/// A sandbox, and whose rights in it.
#[derive(Args, Debug)]
pub struct Within {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// Whose rights inside: a user of the sandbox [default: the sandbox's].
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// Some files.
#[derive(Args, Debug)]
pub struct Several {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// The files.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
}

/// Arguments of `file mkdir`.
#[derive(Args, Debug)]
pub struct Mkdir {
    /// Which.
    #[command(flatten)]
    pub several: Several,
    /// Missing ones above it too; and it may be there.
    #[arg(long, short)]
    pub parents: bool,
    /// Permissions, octal [default: 0755].
    #[arg(long, short, value_name = "MODE")]
    pub mode: Option<String>,
}

/// Arguments of `file mv` and `file cp`.
#[derive(Args, Debug)]
pub struct Pair {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// What.
    #[arg(value_name = "FROM")]
    pub from: OsString,
    /// Its new path, with its name.
    #[arg(value_name = "TO")]
    pub to: OsString,
    /// Replace what is there.
    #[arg(long)]
    pub overwrite: bool,
}

/// Arguments of `file rm`.
#[derive(Args, Debug)]
pub struct Remove {
    /// Which. Of a symbolic link the link itself.
    #[command(flatten)]
    pub several: Several,
    /// Directories with all that is in them.
    #[arg(long, short)]
    pub recursive: bool,
    /// They may be absent.
    #[arg(long, short)]
    pub force: bool,
}

/// Arguments of `file chmod`.
#[derive(Args, Debug)]
pub struct Chmod {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// Permissions, octal, at most 1777.
    #[arg(value_name = "MODE")]
    pub mode: String,
    /// The files.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
}

/// Arguments of `file chown`.
#[derive(Args, Debug)]
pub struct Chown {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// `user` or `user:group`, names or ids of the sandbox.
    #[arg(value_name = "OWNER")]
    pub owner: String,
    /// The files.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    /// Of a symbolic link itself rather than its target.
    #[arg(long)]
    pub no_follow: bool,
}

/// Arguments of `file ln`.
#[derive(Args, Debug)]
pub struct Ln {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// What it says; need not exist.
    #[arg(value_name = "TARGET")]
    pub target: OsString,
    /// The link.
    #[arg(value_name = "PATH")]
    pub path: OsString,
}

fn text(path: &OsStr) -> PathText {
    PathText::new(path.as_bytes().to_vec())
}

impl Within {
    fn route(&self, verb: &str) -> String {
        format!("/v1/sandboxes/{}/files/{verb}", segment(&self.sandbox))
    }

    /// A question about a path.
    fn question(&self, verb: &str, path: &OsStr) -> String {
        format!("{}?{}", self.route(verb), self.query(path))
    }

    fn query(&self, path: &OsStr) -> String {
        let user = self.user.as_deref().map(|user| format!("&user={}", segment(user))).unwrap_or_default();
        format!("path={}{user}", percent_encode(path.as_bytes(), SEGMENT))
    }

    /// Has the same done to each of these files, also when one cannot be; gives the exit code.
    async fn each<B: Serialize>(
        &self,
        (client, json): (&Client, bool),
        verb: &str,
        paths: &[OsString],
        wanted: impl Fn(PathText) -> B,
    ) -> Result<u8, Failure> {
        let mut code = 0;
        for path in paths {
            if let Err(failure) = client.post_empty(&self.route(verb), &wanted(text(path))).await {
                failure.about(path).show(json);
                code = OWN_FAILURE;
            }
        }
        Ok(code)
    }
}

/// `stockade file`.
pub(super) async fn file(daemon: Daemon, action: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match action {
        Action::Ls(list) => look::list(client, &list, json).await,
        Action::Stat(stat) => look::stat(client, &stat, json).await,
        Action::Exists(exists) => look::exists(client, &exists, json).await,
        Action::Cat(several) => look::cat(client, &several, json).await,
        Action::Grep(grep) => search::grep(client, grep, json).await,
        Action::Changes(changed) => search::changes(client, &changed, json).await,
        Action::Change(change) => self::change((client, json), change).await,
    }
}

async fn change(to: (&Client, bool), change: Change) -> Result<u8, Failure> {
    match change {
        Change::Mkdir(Mkdir { several: Several { within, paths }, parents, mode }) => {
            let wanted =
                |path| MakeDirectory { path, mode: mode.clone(), parents, user: within.user.clone() };
            within.each(to, "mkdir", &paths, wanted).await
        }
        Change::Rm(Remove { several: Several { within, paths }, recursive, force }) => {
            let wanted = |path| RemoveFile { path, recursive, missing_ok: force, user: within.user.clone() };
            within.each(to, "remove", &paths, wanted).await
        }
        Change::Chmod(Chmod { within, mode, paths }) => {
            let wanted = |path| ChangeMode { path, mode: mode.clone(), user: within.user.clone() };
            within.each(to, "chmod", &paths, wanted).await
        }
        Change::Chown(Chown { within, owner, paths, no_follow }) => {
            let wanted =
                |path| ChangeOwner { path, owner: owner.clone(), no_follow, user: within.user.clone() };
            within.each(to, "chown", &paths, wanted).await
        }
        Change::Mv(Pair { within, from, to: new, overwrite }) => {
            let (from, new) = (text(&from), text(&new));
            let wanted = RenameFile { from, to: new, overwrite, user: within.user.clone() };
            to.0.post_empty(&within.route("rename"), &wanted).await.map(|()| 0)
        }
        Change::Cp(Pair { within, from, to: new, overwrite }) => {
            let (from, new) = (text(&from), text(&new));
            let wanted = CopyFile { from, to: new, overwrite, user: within.user.clone() };
            to.0.post_empty(&within.route("copy"), &wanted).await.map(|()| 0)
        }
        Change::Ln(Ln { within, target, path }) => {
            let (target, path) = (text(&target), text(&path));
            let wanted = MakeSymlink { target, path, user: within.user.clone() };
            to.0.post_empty(&within.route("symlink"), &wanted).await.map(|()| 0)
        }
    }
}
