//! `images`, `pull`, `import`.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response, header};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::ReaderStream;

use super::arguments::{Images, ImagesAction, Pull, RegistryOptions};
use super::client::{Body, Events, json as json_of, with_query};
use super::daemon::{Daemon, Store};
use super::export::Object;
use super::failure::Failure;
use super::progress::Progress;
use super::{layout, show};
use crate::api::IDENTITY;
use crate::api::schema::export::LoadImage;
use crate::api::schema::images::{ImageList, PullImage};
use crate::limits::{CA_PEM_BYTES_MAX, SECRET_BYTES_MAX};
use crate::sandbox::catalog::Image;

/// Bytes of an upload read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Arguments of `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// OCI layout directory or archive; `-` reads an archive from stdin.
    #[arg(value_name = "PATH", required_unless_present_any = ["key", "bucket"], conflicts_with_all = ["key", "bucket"])]
    pub path: Option<PathBuf>,
    /// The image's name here [default: what the archive says].
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
    /// It is a tar of files, plain, gzip or zstd, and becomes an image of one layer.
    #[arg(long)]
    pub rootfs: bool,
    /// It is encrypted to the identity of age in this file.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// An object in a bucket instead of a file.
    #[command(flatten)]
    pub object: Object,
}

/// `stockade images`, `stockade images rm`.
pub(super) async fn images(daemon: Daemon, arguments: Images, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running_or_private(Store::Images).await?;
    let client = &connection.client;
    if let Some(ImagesAction::Rm { references }) = arguments.action {
        return client.delete_each("/v1/images", &references, json).await;
    }
    let list: ImageList = client.get("/v1/images").await?;
    if json {
        show::print_json(&list)?;
    } else if arguments.quiet {
        let built_in = list.built_in.iter().map(|image| &image.reference);
        let all = built_in.chain(list.images.iter().map(|image| &image.reference));
        let names: Vec<String> = all.map(|name| format!("{name}\n")).collect();
        show::print(&names.concat())?;
    } else {
        let built_in = list.built_in.iter().map(|image| {
            let unknown = || "-".to_owned();
            vec![image.reference.clone(), unknown(), unknown(), unknown(), image.description.clone()]
        });
        let rows: Vec<Vec<String>> = built_in.chain(list.images.iter().map(row)).collect();
        show::print(&show::table(&["IMAGE", "DIGEST", "SIZE", "LAYERS", "PULLED"], &rows))?;
    }
    Ok(0)
}

fn row(image: &Image) -> Vec<String> {
    vec![
        image.reference.clone(),
        show::short(&image.digest.to_string()).to_owned(),
        show::size(image.size_bytes),
        image.layers.len().to_string(),
        image.pulled_at.clone(),
    ]
}

/// What a registry is told of oneself: password, certificates.
pub(super) async fn login(registry: &RegistryOptions) -> Result<(Option<String>, Option<String>), Failure> {
    let password = match registry.password_stdin {
        true => Some(read_text("stdin", tokio::io::stdin(), SECRET_BYTES_MAX as u64).await?),
        false => None,
    };
    let ca_pem = match &registry.ca_file {
        Some(path) => {
            Some(read_text(&path.display().to_string(), open(path).await?, CA_PEM_BYTES_MAX as u64).await?)
        }
        None => None,
    };
    Ok((password.map(|password| password.trim_end_matches(['\r', '\n']).to_owned()), ca_pem))
}

/// `stockade pull`.
pub(super) async fn pull(daemon: Daemon, arguments: Pull, json: bool) -> Result<u8, Failure> {
    let (password, ca_pem) = login(&arguments.registry).await?;
    let wanted = PullImage {
        reference: arguments.reference,
        platform: arguments.platform,
        username: arguments.registry.username,
        password,
        token: None,
        plain_http: arguments.registry.plain_http,
        ca_pem,
    };
    let connection = daemon.running_or_private(Store::Images).await?;
    let client = &connection.client;
    if json {
        let (_, image) = client.post::<_, serde_json::Value>("/v1/images/pull", &wanted).await?;
        show::print_json(&image)?;
        return Ok(0);
    }
    let response =
        client.request(Method::POST, "/v1/images/pull", Some(&wanted), "text/event-stream").await?;
    follow(response).await
}

async fn open(path: &Path) -> Result<tokio::fs::File, Failure> {
    tokio::fs::File::open(path)
        .await
        .map_err(|source| Failure::Local { what: format!("cannot open {}", path.display()), source })
}

pub(super) async fn read_text(
    name: &str,
    from: impl AsyncRead + Unpin,
    bytes_max: u64,
) -> Result<String, Failure> {
    let mut text = String::new();
    let read = from.take(bytes_max + 1).read_to_string(&mut text).await;
    match read {
        Ok(count) if count as u64 <= bytes_max => Ok(text),
        Ok(_) => Err(Failure::Usage(format!("{name} is larger than {bytes_max} bytes"))),
        Err(source) => Err(Failure::Local { what: format!("cannot read {name}"), source }),
    }
}

/// `stockade import`.
pub(super) async fn import(daemon: Daemon, arguments: Import, json: bool) -> Result<u8, Failure> {
    let identity = match &arguments.identity {
        Some(path) => Some(identity(path).await?),
        None => None,
    };
    let Some(path) = &arguments.path else {
        return load(daemon, arguments, identity, json).await;
    };
    let body = archive(path).await?;
    let rootfs = arguments.rootfs.to_string();
    let parameters = [("rootfs", Some(rootfs.as_str())), ("reference", arguments.reference.as_deref())];
    let mut request = Request::post(with_query("/v1/images/import", &parameters))
        .header(header::HOST, "stockade")
        .header(header::CONTENT_TYPE, "application/x-tar")
        .header(header::ACCEPT, if json { "application/json" } else { "text/event-stream" });
    if let Some(identity) = identity {
        request = request.header(IDENTITY, identity);
    }
    let request = request.body(body).map_err(|error| Failure::Usage(error.to_string()))?;
    let connection = daemon.running_or_private(Store::Images).await?;
    let response = connection.client.send(request).await?;
    if json {
        show::print_json(&json_of::<serde_json::Value>(response).await?)?;
        return Ok(0);
    }
    follow(response).await
}

/// The same, from a bucket.
async fn load(
    daemon: Daemon,
    arguments: Import,
    identity: Option<String>,
    json: bool,
) -> Result<u8, Failure> {
    let Import { reference, rootfs, object, .. } = arguments;
    let object = object.wanted()?.unwrap_or_default();
    let wanted = LoadImage { object, reference, rootfs, identity };
    let connection = daemon.running_or_private(Store::Images).await?;
    let (_, list) = connection.client.post::<_, ImageList>("/v1/images/load", &wanted).await?;
    if json {
        show::print_json(&list)?;
        return Ok(0);
    }
    for image in &list.images {
        show::print(&format!("{} {}\n", show::safe(&image.reference), image.digest))?;
    }
    Ok(0)
}

/// The identity in a file of `age-keygen`: the first line that is no remark.
pub(super) async fn identity(path: &Path) -> Result<String, Failure> {
    let name = path.display().to_string();
    let text = read_text(&name, open(path).await?, SECRET_BYTES_MAX as u64).await?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().map(str::to_owned).ok_or_else(|| Failure::Usage(format!("{name} holds no identity")))
}

/// What is imported, as the bytes of an archive.
pub(super) async fn archive(path: &Path) -> Result<Body, Failure> {
    if path == Path::new("-") {
        return Ok(body(ReaderStream::with_capacity(tokio::io::stdin(), CHUNK_BYTES)));
    }
    let what = || format!("cannot open {}", path.display());
    let metadata =
        tokio::fs::metadata(path).await.map_err(|source| Failure::Local { what: what(), source })?;
    if metadata.is_dir() {
        return Ok(body(layout::archive(path)?));
    }
    Ok(body(ReaderStream::with_capacity(open(path).await?, CHUNK_BYTES)))
}

/// A body that is sent as it comes.
pub(super) fn body(
    stream: impl futures_util::Stream<Item = io::Result<bytes::Bytes>> + Send + 'static,
) -> Body {
    StreamBody::new(stream.map_ok(Frame::data).boxed()).boxed_unsync()
}

/// Shows progress, then the images.
pub(super) async fn follow(response: Response<hyper::body::Incoming>) -> Result<u8, Failure> {
    /// What is shown of an image.
    #[derive(serde::Deserialize)]
    struct Named {
        reference: String,
        digest: String,
    }
    let mut events = Events::new(response);
    let mut progress = Progress::new();
    let mut images = Vec::new();
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "progress" => {
                progress.report(&serde_json::from_str(&event.data).map_err(Failure::NotOurs)?);
            }
            "image" => {
                images.push(serde_json::from_str::<Named>(&event.data).map_err(Failure::NotOurs)?);
            }
            "error" => {
                progress.end();
                return Err(event.refusal());
            }
            _ => {}
        }
    }
    progress.end();
    if images.is_empty() {
        return Err(Failure::Lost("it stopped before the image was there".into()));
    }
    for image in &images {
        let name = show::safe(&image.reference).into_owned();
        show::print(&format!("{name} {}\n", image.digest))?;
    }
    Ok(0)
}
