//! `export`, `push`: all files of a sandbox, on their way to another host.

use std::path::PathBuf;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::arguments::RegistryOptions;
use super::client::{segment, with_query};
use super::copy::save;
use super::daemon::Daemon;
use super::failure::Failure;
use super::images::{follow, login};
use super::mounts::Whose;
use super::show;
use crate::api::schema::export::{BucketObject, PushSandbox, StoreSandbox};
use crate::sandbox::{ExportFormat, StoredObject};

pub(super) const HELP: &str = "\
What runs in the sandbox is frozen for the moment in which its files are taken, and goes on.

Examples:
  stockade export work work.tar --reference team/work:1       and there: stockade import work.tar
  stockade export work work.tar.zst --format tar
  stockade export work work.age --recipient age1…             and there: stockade import work.age --identity key.txt
  stockade export work --bucket moves --key work.tar --endpoint https://s3.example.com
  stockade import --bucket moves --key work.tar --endpoint https://s3.example.com";

/// Arguments of `export`.
#[derive(Args, Debug)]
pub struct Export {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The file; `-` is stdout.
    #[arg(value_name = "FILE", required_unless_present_any = ["key", "bucket"], conflicts_with_all = ["key", "bucket"])]
    pub file: Option<PathBuf>,
    /// `oci`, an archive that `import` takes; or `tar`, the files alone, compressed with zstd.
    #[arg(long, value_name = "FORMAT", default_value = "oci", value_parser = ["oci", "tar"])]
    pub format: String,
    /// The image's name in the archive.
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
    /// Encrypt it so that only this recipient of age can read it: age1…
    #[arg(long, value_name = "KEY")]
    pub recipient: Option<String>,
    /// An object in a bucket instead of a file.
    #[command(flatten)]
    pub object: Object,
}

/// An object in a bucket.
#[derive(Args, Debug)]
pub struct Object {
    /// The object's key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Where it is.
    #[command(flatten)]
    pub whose: Whose,
}

impl Object {
    /// What is asked for, if it is an object.
    pub(super) fn wanted(self) -> Result<Option<BucketObject>, Failure> {
        let credentials = self.whose.credentials();
        let Whose { bucket, endpoint, region, addressing, .. } = self.whose;
        match self.key {
            Some(key) => Ok(Some(BucketObject { endpoint, bucket, key, region, addressing, credentials })),
            None if bucket.is_some() => {
                Err(Failure::Usage("--bucket wants --key, the object's name".to_owned()))
            }
            None => Ok(None),
        }
    }
}

/// Arguments of `push`.
#[derive(Args, Debug)]
pub struct Push {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// `[registry/]repository[:tag]`
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Whose it is, and how it is spoken to.
    #[command(flatten)]
    pub registry: RegistryOptions,
}

/// `stockade export`.
pub(super) async fn export(daemon: Daemon, export: Export, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let route = format!("/v1/sandboxes/{}", segment(&export.sandbox));
    let format = if export.format == "tar" { ExportFormat::Tar } else { ExportFormat::Oci };
    let Some(object) = export.object.wanted()? else {
        let parameters = [
            ("format", Some(export.format.as_str())),
            ("reference", export.reference.as_deref()),
            ("recipient", export.recipient.as_deref()),
        ];
        let route = with_query(&format!("{route}/export"), &parameters);
        let file = export.file.filter(|file| file.as_os_str() != "-");
        save(&connection.client, &route, "application/octet-stream", file.as_deref()).await?;
        return Ok(0);
    };
    let wanted = StoreSandbox { object, format, reference: export.reference, recipient: export.recipient };
    let (_, stored) = connection.client.post::<_, StoredObject>(&format!("{route}/store"), &wanted).await?;
    if json {
        show::print_json(&stored)?;
    } else {
        show::print(&format!("{} {}\n", show::safe(&stored.key), show::size(stored.size_bytes)))?;
    }
    Ok(0)
}

/// `stockade push`.
pub(super) async fn push(daemon: Daemon, push: Push, json: bool) -> Result<u8, Failure> {
    let (password, ca_pem) = login(&push.registry).await?;
    let wanted = PushSandbox {
        reference: push.reference,
        username: push.registry.username,
        password,
        token: None,
        plain_http: push.registry.plain_http,
        ca_pem,
    };
    let connection = daemon.running().await?;
    let (client, route) = (&connection.client, format!("/v1/sandboxes/{}/push", segment(&push.sandbox)));
    if json {
        let (_, pushed) = client.post::<_, Value>(&route, &wanted).await?;
        show::print_json(&pushed)?;
        return Ok(0);
    }
    follow(client.request(Method::POST, &route, Some(&wanted), "text/event-stream").await?).await
}
