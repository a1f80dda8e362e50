//! `snapshot`, `fork`, `rollback`: files of sandboxes that are kept, given back, and given to others.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyper::{Request, header};

use super::client::{Client, json as json_of, segment, with_query};
use super::copy::save;
use super::daemon::Daemon;
use super::failure::Failure;
use super::images::{archive, identity};
use super::quantity::{self, Duration, Pair};
use super::{OWN_FAILURE, show};
use crate::api::IDENTITY;
use crate::api::schema::snapshots::{
    CommitSandbox, CreateSnapshot, ForkList, ForkSandbox, RestoreSandbox, RollBackSandbox, SnapshotList,
};
use crate::sandbox::catalog::Image;
use crate::sandbox::{SandboxView, SnapshotView};

pub(super) const HELP: &str = "\
Whatever runs in the sandbox is frozen while its files are kept. Restoring ends it; the next call wakes it.

Examples:
  stockade snapshot create work --name before-upgrade     prints the snapshot's id
  stockade exec work -- rm -rf /workspace/src
  stockade rollback work                                  to the latest snapshot of it
  stockade create --snapshot k3v9…                        a new sandbox with those files, to commit, push or export
  stockade snapshot export k3v9… work.tar                 an image of them, and there: stockade import work.tar
  stockade fork work --count 3                            three that begin as it is now";

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Keep the files of a sandbox as they are now.
    Create(Create),
    /// List snapshots.
    Ls(List),
    /// Show a snapshot as JSON.
    Inspect(Inspect),
    /// Delete snapshots. Sandboxes that were made of them keep their files.
    Rm(Remove),
    /// Give a sandbox the files of a snapshot.
    Restore(Restore),
    /// Save a snapshot as a file.
    Export(Export),
    /// Make a snapshot of a directory of such a file.
    Import(Import),
}

/// Arguments of `snapshot export`.
#[derive(Args, Debug)]
pub struct Export {
    /// The snapshot.
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// The file; `-` is stdout. Of a directory it is a tar that is compressed with zstd, for `snapshot import`; of all
    /// files an image, for `import`.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// `oci`, an image; or `tar`, the files alone, compressed with zstd [default: oci; of a directory tar].
    #[arg(long, value_name = "FORMAT", value_parser = ["oci", "tar"])]
    pub format: Option<String>,
    /// The image's name in the archive.
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
    /// Encrypt it so that only this recipient of age can read it: age1…
    #[arg(long, value_name = "KEY")]
    pub recipient: Option<String>,
}

/// Arguments of `snapshot import`.
#[derive(Args, Debug)]
pub struct Import {
    /// The file: a tar, plain, gzip or zstd; `-` reads stdin.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The directory that it is of.
    #[arg(long, value_name = "DIR")]
    pub path: String,
    /// A name, for people.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Delete it after so long [default: never].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub ttl: Option<Duration>,
    /// It is encrypted to the identity of age in this file.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// Arguments of `snapshot create`.
#[derive(Args, Debug)]
pub struct Create {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// A name, for people.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A note of one's own.
    #[arg(long, value_name = "KEY=VALUE", value_parser = quantity::pair)]
    pub label: Vec<Pair>,
    /// Delete it after so long [default: never].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub ttl: Option<Duration>,
    /// Only this directory.
    #[arg(long, value_name = "DIR")]
    pub path: Option<String>,
    /// Leave out what matches in the directory: a name, or a path below it.
    #[arg(long, value_name = "GLOB", requires = "path")]
    pub exclude: Vec<String>,
    /// Leave out what `.gitignore` files in the directory say.
    #[arg(long, requires = "path")]
    pub gitignore: bool,
}

/// Arguments of `snapshot ls`.
#[derive(Args, Debug)]
pub struct List {
    /// Only those of this sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: Option<String>,
    /// Only ids.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `snapshot inspect`.
#[derive(Args, Debug)]
pub struct Inspect {
    /// The snapshot.
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
}

/// Arguments of `snapshot rm`.
#[derive(Args, Debug)]
pub struct Remove {
    /// Snapshots.
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub snapshots: Vec<String>,
}

/// Arguments of `snapshot restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The snapshot: of this sandbox, or of another one of the same image; one of a directory of any.
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// Where a snapshot of a directory goes [default: where it was].
    #[arg(long, value_name = "DIR")]
    pub path: Option<String>,
}

/// Arguments of `fork`.
#[derive(Args, Debug)]
pub struct Fork {
    /// The parent.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// How many [default: as many as there are names, or one].
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<usize>,
    /// Their names; chosen at random where there are none.
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<String>,
    /// Labels instead of the parent's.
    #[arg(long, value_name = "KEY=VALUE", value_parser = quantity::pair)]
    pub label: Vec<Pair>,
}

/// Arguments of `rollback`.
#[derive(Args, Debug)]
pub struct Rollback {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// One of its own snapshots [default: the latest].
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,
}

/// Arguments of `commit`.
#[derive(Args, Debug)]
pub struct Commit {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The image's name.
    #[arg(value_name = "NAME")]
    pub reference: String,
}

/// `stockade commit`.
pub(super) async fn commit(daemon: Daemon, commit: Commit, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let path = format!("/v1/sandboxes/{}/commit", segment(&commit.sandbox));
    let wanted = CommitSandbox { reference: commit.reference };
    let (_, image) = connection.client.post::<_, Image>(&path, &wanted).await?;
    if json {
        show::print_json(&image)?;
    } else {
        show::print(&format!("{} {}\n", show::safe(&image.reference), image.digest))?;
    }
    Ok(0)
}

/// `stockade snapshot`.
pub(super) async fn snapshot(daemon: Daemon, action: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match action {
        Action::Create(create) => {
            let labels = create.label.into_iter().collect();
            let wanted = CreateSnapshot {
                name: create.name,
                labels,
                ttl_ms: create.ttl,
                path: create.path,
                exclude: create.exclude,
                gitignore: create.gitignore,
            };
            let path = format!("/v1/sandboxes/{}/snapshots", segment(&create.sandbox));
            let (_, made) = client.post::<_, SnapshotView>(&path, &wanted).await?;
            if json { show::print_json(&made)? } else { show::print(&format!("{}\n", made.id))? }
        }
        Action::Ls(list) => {
            let path = match &list.sandbox {
                Some(sandbox) => format!("/v1/sandboxes/{}/snapshots", segment(sandbox)),
                None => "/v1/snapshots".to_owned(),
            };
            let found: SnapshotList = client.get(&path).await?;
            print_list(&found, list.quiet, json)?;
        }
        Action::Inspect(inspect) => {
            let path = format!("/v1/snapshots/{}", segment(&inspect.snapshot));
            show::print_json(&client.get::<serde_json::Value>(&path).await?)?;
        }
        Action::Rm(remove) => {
            let mut code = 0;
            for id in &remove.snapshots {
                match client.delete(&format!("/v1/snapshots/{}", segment(id))).await {
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
        Action::Export(export) => {
            let path = format!("/v1/snapshots/{}/archive", segment(&export.snapshot));
            let parameters = [
                ("format", export.format.as_deref()),
                ("reference", export.reference.as_deref()),
                ("recipient", export.recipient.as_deref()),
            ];
            let route = with_query(&path, &parameters);
            let file = (export.file.as_os_str() != "-").then_some(export.file.as_path());
            save(client, &route, "application/octet-stream", file).await?;
        }
        Action::Import(import) => {
            let made = upload(client, import).await?;
            if json { show::print_json(&made)? } else { show::print(&format!("{}\n", made.id))? }
        }
        Action::Restore(restore) => {
            let path = format!("/v1/sandboxes/{}/restore", segment(&restore.sandbox));
            let wanted = RestoreSandbox { snapshot: restore.snapshot, path: restore.path };
            let (_, sandbox) = client.post::<_, SandboxView>(&path, &wanted).await?;
            print_sandboxes(&[sandbox], json)?;
        }
    }
    Ok(0)
}

async fn upload(client: &Client, import: Import) -> Result<SnapshotView, Failure> {
    let ttl = import.ttl.map(|ttl| ttl.to_string());
    let parameters =
        [("path", Some(import.path.as_str())), ("name", import.name.as_deref()), ("ttl_ms", ttl.as_deref())];
    let mut request = Request::post(with_query("/v1/snapshots", &parameters))
        .header(header::HOST, "stockade")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if let Some(path) = &import.identity {
        request = request.header(IDENTITY, identity(path).await?);
    }
    let request = request.body(archive(&import.file).await?);
    json_of(client.send(request.map_err(|error| Failure::Usage(error.to_string()))?).await?).await
}

fn print_list(list: &SnapshotList, quiet: bool, json: bool) -> Result<(), Failure> {
    if json {
        return show::print_json(list);
    }
    if quiet {
        let ids: Vec<String> = list.snapshots.iter().map(|snapshot| format!("{}\n", snapshot.id)).collect();
        return show::print(&ids.concat());
    }
    let row = |snapshot: &SnapshotView| {
        vec![
            snapshot.id.clone(),
            snapshot.name.clone().unwrap_or_else(|| "-".to_owned()),
            snapshot.sandbox.clone().unwrap_or_else(|| "-".to_owned()),
            snapshot.image.reference.clone(),
            show::size(snapshot.size_bytes),
            snapshot.created_at.clone(),
            snapshot.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = list.snapshots.iter().map(row).collect();
    show::print(&show::table(&["ID", "NAME", "SANDBOX", "IMAGE", "SIZE", "CREATED", "EXPIRES"], &rows))
}

fn print_sandboxes(sandboxes: &[SandboxView], json: bool) -> Result<(), Failure> {
    for sandbox in sandboxes {
        if json { show::print_json(sandbox)? } else { show::print(&format!("{}\n", sandbox.id))? }
    }
    Ok(())
}

/// `stockade fork`.
pub(super) async fn fork(daemon: Daemon, fork: Fork, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let labels = (!fork.label.is_empty()).then(|| fork.label.into_iter().collect());
    let wanted = ForkSandbox { count: fork.count, ids: fork.ids, labels };
    let path = format!("/v1/sandboxes/{}/fork", segment(&fork.sandbox));
    let (_, made) = connection.client.post::<_, ForkList>(&path, &wanted).await?;
    print_sandboxes(&made.sandboxes, json)?;
    Ok(0)
}

/// `stockade rollback`.
pub(super) async fn rollback(daemon: Daemon, rollback: Rollback, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let path = format!("/v1/sandboxes/{}/rollback", segment(&rollback.sandbox));
    let wanted = RollBackSandbox { snapshot: rollback.snapshot };
    let (_, sandbox) = connection.client.post::<_, SandboxView>(&path, &wanted).await?;
    print_sandboxes(&[sandbox], json)?;
    Ok(0)
}
