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

use super::arguments::{Images, ImagesAction, Pull};
use super::client::{Body, Client, Events, json as json_of, segment};
use super::daemon::{Daemon, Store};
use super::failure::Failure;
use super::progress::Progress;
use super::{OWN_FAILURE, layout, show};
use crate::api::schema::images::{ImageList, PullImage};
use crate::limits::{CA_PEM_BYTES_MAX, SECRET_BYTES_MAX};
use crate::sandbox::catalog::Image;

/// Bytes of an upload read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Arguments of `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// OCI layout directory or archive; `-` reads an archive from stdin.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The image's name here [default: what the archive says].
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
}

/// `stockade images`, `stockade images rm`.
pub(super) async fn images(daemon: Daemon, arguments: Images, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running_or_private(Store::Images).await?;
    let client = &connection.client;
    if let Some(ImagesAction::Rm { references }) = arguments.action {
        return remove(client, &references, json).await;
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

async fn remove(client: &Client, references: &[String], json: bool) -> Result<u8, Failure> {
    let mut code = 0;
    for reference in references {
        match client.delete(&format!("/v1/images/{}", segment(reference))).await {
            Err(failure) => {
                failure.show(json);
                code = OWN_FAILURE;
            }
            Ok(()) if json => {}
            Ok(()) => show::print(&format!("{reference}\n"))?,
        }
    }
    Ok(code)
}

/// `stockade pull`.
pub(super) async fn pull(daemon: Daemon, arguments: Pull, json: bool) -> Result<u8, Failure> {
    let password = match arguments.password_stdin {
        true => Some(read_text("stdin", tokio::io::stdin(), SECRET_BYTES_MAX as u64).await?),
        false => None,
    };
    let ca_pem = match &arguments.ca_file {
        Some(path) => {
            Some(read_text(&path.display().to_string(), open(path).await?, CA_PEM_BYTES_MAX as u64).await?)
        }
        None => None,
    };
    let wanted = PullImage {
        reference: arguments.reference,
        platform: arguments.platform,
        username: arguments.username,
        password: password.map(|password| password.trim_end_matches(['\r', '\n']).to_owned()),
        token: None,
        plain_http: arguments.plain_http,
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
    let body = archive(&arguments.path).await?;
    let query = match &arguments.reference {
        Some(reference) => format!("?reference={}", segment(reference)),
        None => String::new(),
    };
    let request = Request::post(format!("/v1/images/import{query}"))
        .header(header::HOST, "stockade")
        .header(header::CONTENT_TYPE, "application/x-tar")
        .header(header::ACCEPT, if json { "application/json" } else { "text/event-stream" })
        .body(body)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let connection = daemon.running_or_private(Store::Images).await?;
    let response = connection.client.send(request).await?;
    if json {
        show::print_json(&json_of::<serde_json::Value>(response).await?)?;
        return Ok(0);
    }
    follow(response).await
}

/// What is imported, as the bytes of an archive.
async fn archive(path: &Path) -> Result<Body, Failure> {
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
async fn follow(response: Response<hyper::body::Incoming>) -> Result<u8, Failure> {
    let mut events = Events::new(response);
    let mut progress = Progress::new();
    let mut images = Vec::new();
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "progress" => {
                progress.report(&serde_json::from_str(&event.data).map_err(Failure::NotOurs)?);
            }
            "image" => {
                images.push(serde_json::from_str::<Image>(&event.data).map_err(Failure::NotOurs)?);
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
