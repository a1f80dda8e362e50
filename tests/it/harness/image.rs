//! Writes images: tar entries, layers, and the three forms in which images travel.
//!
//! Headers are written by hand (POSIX.1-1988 ustar), because the hostile ones cannot be had from a library that
//! means well.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Where Debian's busybox-static package puts its one program.
const BUSYBOX: &str = "/bin/busybox";

/// The applets that tests use.
const APPLETS: [&str; 38] = [
    "sh",
    "true",
    "false",
    "cat",
    "echo",
    "sleep",
    "ls",
    "id",
    "ps",
    "env",
    "pwd",
    "kill",
    "mkdir",
    "rm",
    "dd",
    "yes",
    "head",
    "tail",
    "wc",
    "touch",
    "setsid",
    "grep",
    "stat",
    "find",
    "sha256sum",
    "printf",
    "ln",
    "mv",
    "cp",
    "chmod",
    "chown",
    "test",
    "hostname",
    "readlink",
    "sort",
    "seq",
    "nc",
    "time",
];

/// A tar stream under construction.
#[derive(Clone, Debug, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// What a tar header says beside the name and the size.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Meta {
    pub const FILE: Self = Self { mode: 0o644, uid: 0, gid: 0 };
    pub const PROGRAM: Self = Self { mode: 0o755, uid: 0, gid: 0 };
    pub const DIRECTORY: Self = Self { mode: 0o755, uid: 0, gid: 0 };
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry of any type, with any name.
    pub fn entry(mut self, kind: u8, name: &str, link: &str, meta: Meta, content: &[u8]) -> Self {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        assert!(name.len() <= 100 && link.len() <= 100, "a long name needs an extended header: {name}");
        put(0, name.as_bytes());
        put(100, format!("{:07o}", meta.mode).as_bytes());
        put(108, format!("{:07o}", meta.uid).as_bytes());
        put(116, format!("{:07o}", meta.gid).as_bytes());
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, b"14524770000");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(148, b"        ");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, meta: Meta, content: &[u8]) -> Self {
        self.entry(b'0', name, "", meta, content)
    }

    pub fn directory(self, name: &str, meta: Meta) -> Self {
        self.entry(b'5', name, "", meta, b"")
    }

    pub fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(b'2', name, to, Meta { mode: 0o777, uid: 0, gid: 0 }, b"")
    }

    pub fn hardlink(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name, to, Meta::FILE, b"")
    }

    /// A PAX extended header (POSIX.1-2001) for the entry that follows.
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut content = String::new();
        for (key, value) in records {
            // The length counts itself.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.push_str(&format!("{length} {key}={value}\n"));
        }
        self.entry(b'x', "pax", "", Meta::FILE, content.as_bytes())
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

/// An image as data.
#[derive(Clone, Debug)]
pub struct Image {
    /// Uncompressed layers, the lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The `config` object of the image configuration.
    pub config: Value,
    pub architecture: String,
}

/// A descriptor and the bytes that it names.
#[derive(Clone, Debug)]
pub struct Blob {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

impl Blob {
    pub fn digest(&self) -> String {
        sha256(&self.bytes)
    }

    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len()})
    }
}

impl Image {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        let config = json!({"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]});
        Self { layers, config, architecture: "amd64".to_owned() }
    }

    /// A small complete system around busybox, or `None` when the host has no static busybox.
    pub fn busybox() -> Option<Self> {
        Some(Self::new(vec![busybox_layer()?]))
    }

    /// Manifest first, then the configuration, then the layers.
    pub fn blobs(&self) -> Vec<Blob> {
        let layers: Vec<Blob> =
            self.layers.iter().map(|tar| Blob { media_type: LAYER_GZIP, bytes: gzip(tar) }).collect();
        let config = json!({
            "architecture": self.architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": self.layers.iter().map(|tar| sha256(tar)).collect::<Vec<_>>()},
        });
        let config = Blob { media_type: CONFIG, bytes: config.to_string().into_bytes() };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob { media_type: MANIFEST, bytes: manifest.to_string().into_bytes() };
        let mut blobs = vec![manifest, config];
        blobs.extend(layers);
        blobs
    }

    /// Writes an OCI image layout (image-layout.md) with one tag.
    pub fn write_layout(&self, directory: &Path, tag: &str) {
        let blobs = self.blobs();
        let folder = directory.join("blobs/sha256");
        fs::create_dir_all(&folder).unwrap();
        for blob in &blobs {
            fs::write(folder.join(&blob.digest()["sha256:".len()..]), &blob.bytes).unwrap();
        }
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        fs::write(directory.join("index.json"), index(&blobs[0], tag).to_string()).unwrap();
    }

    /// The same layout as a tar.
    pub fn layout_tar(&self, tag: &str) -> Vec<u8> {
        let blobs = self.blobs();
        let top = index(&blobs[0], tag);
        layout_tar(&blobs, &top)
    }
}

fn index(manifest: &Blob, tag: &str) -> Value {
    let mut descriptor = manifest.descriptor();
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]})
}

/// A layout tar of these blobs under this index, whether or not they fit together.
pub fn layout_tar(blobs: &[Blob], index: &Value) -> Vec<u8> {
    let mut tar = Tar::new()
        .file("oci-layout", Meta::FILE, br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", Meta::FILE, index.to_string().as_bytes())
        .directory("blobs/", Meta::DIRECTORY)
        .directory("blobs/sha256/", Meta::DIRECTORY);
    for blob in blobs {
        tar = tar.file(&blob.digest().replace("sha256:", "blobs/sha256/"), Meta::FILE, &blob.bytes);
    }
    tar.finish()
}

/// The busybox layer, or `None` when the host has no static busybox.
pub fn busybox_layer() -> Option<Vec<u8>> {
    let path =
        std::env::var_os("STOCKADE_TEST_BUSYBOX").map_or_else(|| PathBuf::from(BUSYBOX), PathBuf::from);
    let busybox = fs::read(path).ok()?;
    let mut tar = Tar::new();
    for name in ["bin/", "etc/", "root/", "usr/", "workspace/", "home/", "home/alice/"] {
        tar = tar.directory(name, Meta::DIRECTORY);
    }
    tar = tar
        .directory("tmp/", Meta { mode: 0o1777, uid: 0, gid: 0 })
        .file("bin/busybox", Meta::PROGRAM, &busybox)
        // A set-user-id program: `no_new_privs` must make it harmless.
        .file("bin/busybox-suid", Meta { mode: 0o4755, uid: 0, gid: 0 }, &busybox)
        .file("bin/not-executable", Meta::FILE, b"#!/bin/sh\n")
        .file(
            "etc/passwd",
            Meta::FILE,
            b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
        )
        .file("etc/group", Meta::FILE, b"root:x:0:\nalice:x:1000:\ncrew:x:2000:alice\n");
    for applet in APPLETS {
        tar = tar.hardlink(&format!("bin/{applet}"), "bin/busybox");
    }
    Some(tar.finish())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `sha256:` and the digest of these bytes in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digest}")
}
