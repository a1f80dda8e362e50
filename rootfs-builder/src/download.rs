//! Downloads by sha256 into a cache that outlives the build.
//!
//! ```text
//! CACHE/sha256/<hex>            a file that matched its sum, moved here in one step
//! CACHE/sha256/<hex>.<pid>.part a download under way
//! ```
//!
//! A file in the cache is trusted by its name only after its sum was computed again: a disk that lost
//! power may hold the right name and the wrong bytes.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::progress::Bar;
use crate::{digest, signal};

/// Downloads under way at the same time. Package mirrors are limited by round trips, not by bandwidth.
const PARALLEL: usize = 8;
/// Tries for one file, with a growing pause between them.
const ATTEMPTS: u32 = 4;
/// The largest index or metadata document that is read into memory.
const DOCUMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The server answered, and the answer is that the file is not there any more.
#[derive(Debug)]
pub(crate) struct Gone(pub(crate) String);

impl std::fmt::Display for Gone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "locked but gone from the mirror: {}\n\
             fix: refresh the lock with `rootfs-builder lock`, or build with --relock",
            self.0
        )
    }
}

impl std::error::Error for Gone {}

/// An HTTP client that trusts the machine's certificates.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
}

impl Client {
    pub(crate) fn new() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let certificates: Vec<Certificate<'static>> =
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let roots = if certificates.is_empty() {
            RootCerts::WebPki
        } else {
            RootCerts::Specific(Arc::new(certificates))
        };
        let agent = ureq::Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .user_agent(concat!("stockade-rootfs-builder/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self { agent }
    }

    /// A whole document.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses after several tries.
    pub(crate) fn get(&self, address: &str) -> Result<Vec<u8>> {
        self.get_as(address, "*/*")
    }

    /// A whole document in one of the media types of `accept`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn get_as(&self, address: &str, accept: &str) -> Result<Vec<u8>> {
        retry(address, || {
            let mut body = self.open(address, accept)?;
            let mut bytes = Vec::new();
            body.by_ref().take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        })
    }

    fn open(&self, address: &str, accept: &str) -> Result<impl Read + use<>> {
        match self.agent.get(address).header("accept", accept).call() {
            Ok(response) => Ok(response.into_body().into_reader()),
            Err(ureq::Error::StatusCode(404 | 410)) => Err(anyhow!(Gone(address.to_owned()))),
            Err(error) => Err(error.into()),
        }
    }
}

fn retry<T>(address: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        signal::check()?;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if error.is::<Gone>() => return Err(error),
            Err(error) => {
                tries += 1;
                if tries == ATTEMPTS {
                    let hint = "fix: check the network and the configured mirrors (see --help)";
                    return Err(error.context(format!("download {address}\n{hint}")));
                }
                std::thread::sleep(Duration::from_millis(300 << tries));
            }
        }
    }
}

/// One file that the lock names.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) label: String,
    pub(crate) sha256: String,
    pub(crate) place: Place,
}

/// Where a file lies, without saying on which host.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Debian { archive: String, path: String },
    Wheel { project: String, file: String },
    Npm { name: String, version: String },
}

/// Finds addresses for places; asked only for what the cache does not hold.
pub(crate) trait Locate: Sync {
    /// # Errors
    /// When the machine's configuration names no server, or the server does not list the file.
    fn address(&self, client: &Client, place: &Place) -> Result<String>;
}

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    files: PathBuf,
}

impl Cache {
    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let files = directory.join("sha256");
        fs::create_dir_all(&files).with_context(|| {
            format!("make the download cache {}\nfix: name another with --cache", files.display())
        })?;
        Ok(Self { files })
    }

    /// Where a file of this sum lies once fetched.
    pub(crate) fn path(&self, sha256: &str) -> PathBuf {
        self.files.join(sha256)
    }

    /// Brings all items into the cache, several at a time, and checks every sum.
    ///
    /// # Errors
    /// The first failure, or all names of what is [`Gone`].
    pub(crate) fn fetch(
        &self,
        client: &Client,
        locate: &dyn Locate,
        items: &[Item],
        bar: &Bar,
    ) -> Result<()> {
        let queue: Mutex<VecDeque<&Item>> = Mutex::new(items.iter().collect());
        let failures: Mutex<Vec<anyhow::Error>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(items.len()) {
                scope.spawn(|| {
                    loop {
                        let Some(item) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) else {
                            return;
                        };
                        bar.message(&item.label);
                        if let Err(error) = self.fetch_one(client, locate, item)
                            && let Ok(mut failures) = failures.lock()
                        {
                            // Nothing else can succeed once one real failure is known; what is gone is
                            // collected, so that one message names all of it.
                            if !error.is::<Gone>()
                                && let Ok(mut queue) = queue.lock()
                            {
                                queue.clear();
                            }
                            failures.push(error);
                        }
                        bar.advance(1);
                    }
                });
            }
        });
        report(failures.into_inner().unwrap_or_default())
    }

    fn fetch_one(&self, client: &Client, locate: &dyn Locate, item: &Item) -> Result<()> {
        signal::check()?;
        let target = self.path(&item.sha256);
        if target.exists() {
            if digest::of_file(&target)? == item.sha256 {
                return Ok(());
            }
            fs::remove_file(&target).with_context(|| format!("remove the damaged {}", target.display()))?;
        }
        let gone = |error: anyhow::Error| {
            if error.is::<Gone>() {
                anyhow!(Gone(item.label.clone()))
            } else {
                error.context(item.label.clone())
            }
        };
        let address = locate.address(client, &item.place).map_err(gone)?;
        let part = self.files.join(format!("{}.{}.part", item.sha256, std::process::id()));
        let sum = retry(&address, || save(client.open(&address, "*/*")?, &part)).map_err(|error| {
            let _ = fs::remove_file(&part);
            gone(error)
        })?;
        if sum != item.sha256 {
            let _ = fs::remove_file(&part);
            bail!("{}: the mirror's file has sha256 {sum}, the lock says {}", item.label, item.sha256);
        }
        fs::rename(&part, &target).with_context(|| format!("keep {}", target.display()))
    }

    /// Downloads one file of unknown sum, for a lock in the making. Returns the sum.
    ///
    /// # Errors
    /// When the file cannot be had.
    pub(crate) fn adopt(&self, client: &Client, address: &str) -> Result<String> {
        let part = self.files.join(format!("adopted.{}.part", std::process::id()));
        let sum = retry(address, || save(client.open(address, "*/*")?, &part))?;
        fs::rename(&part, self.path(&sum)).context("keep the download")?;
        Ok(sum)
    }
}

fn save(mut body: impl Read, part: &Path) -> Result<String> {
    let mut file = File::create(part).with_context(|| format!("write {}", part.display()))?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        signal::check()?;
        let count = body.read(&mut buffer)?;
        if count == 0 {
            return Ok(digest::spell(&sum.finalize()));
        }
        sum.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
    }
}

fn report(failures: Vec<anyhow::Error>) -> Result<()> {
    let gone: Vec<String> =
        failures.iter().filter_map(|error| error.downcast_ref::<Gone>().map(|gone| gone.0.clone())).collect();
    let real = failures.into_iter().find(|error| !error.is::<Gone>());
    if let Some(error) = real {
        return Err(error);
    }
    if gone.is_empty() { Ok(()) } else { Err(Gone(gone.join(", ")).into()) }
}
