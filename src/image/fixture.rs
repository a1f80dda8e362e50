//! Archives for tests, well-formed and not: every byte of a header can be chosen.

use sha2::{Digest as _, Sha256};

use crate::id::Digest;

/// A tar in the making. Numbers and sums are right unless a test breaks them.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

/// One header, to be changed before it is added.
#[derive(Clone)]
pub(crate) struct Head([u8; 512]);

impl Head {
    pub(crate) fn new(kind: u8, path: &[u8]) -> Self {
        let mut head = Self([0; 512]);
        head.set(0, path);
        head.set(100, b"0000755\0");
        head.octal(108, 8, 0);
        head.octal(116, 8, 0);
        head.octal(124, 12, 0);
        head.octal(136, 12, 1_700_000_000);
        head.0[156] = kind;
        head.set(257, b"ustar\x0000");
        head
    }

    pub(crate) fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn octal(&mut self, at: usize, width: usize, value: u64) {
        let text = format!("{value:0width$o}\0", width = width - 1);
        self.set(at, text.as_bytes());
    }

    pub(crate) fn size(mut self, size: u64) -> Self {
        self.octal(124, 12, size);
        self
    }

    pub(crate) fn mode(mut self, mode: u64) -> Self {
        self.octal(100, 8, mode);
        self
    }

    pub(crate) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid);
        self.octal(116, 8, gid);
        self
    }

    pub(crate) fn link(mut self, target: &[u8]) -> Self {
        self.set(157, target);
        self
    }
}

impl Tar {
    pub(crate) fn head(mut self, mut head: Head) -> Self {
        head.set(148, b"        ");
        let sum: u64 = head.0.iter().map(|&byte| u64::from(byte)).sum();
        head.set(148, format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&head.0);
        self
    }

    pub(crate) fn bytes(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.head(Head::new(b'0', path.as_bytes()).size(content.len() as u64).mode(0o644)).bytes(content)
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.head(Head::new(b'5', path.as_bytes()))
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.head(Head::new(b'2', path.as_bytes()).link(target.as_bytes()))
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.head(Head::new(b'1', path.as_bytes()).link(target.as_bytes()))
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let content = pax_records(records);
        self.head(Head::new(b'x', b"pax").size(content.len() as u64)).bytes(&content)
    }

    /// Another archive's entries behind these.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// The archive with its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    /// The archive without its end.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        content.extend_from_slice(format!("{length} {key}=").as_bytes());
        content.extend_from_slice(value);
        content.push(b'\n');
    }
    content
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).expect("compress");
    encoder.finish().expect("compress")
}

/// An image: its layers' blobs, configuration and manifest.
pub(crate) struct Fixture {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Fixture {
    /// An image of these tars, each as a gzip blob.
    pub(crate) fn new(tars: &[Vec<u8>]) -> Self {
        let platform = crate::image::reference::host_platform();
        let diff_ids: Vec<_> = tars.iter().map(|tar| digest(tar).to_string()).collect();
        let config = serde_json::json!({
            "created": "2026-01-02T03:04:05Z",
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Env": ["A=b"], "Cmd": ["/bin/sh"], "WorkingDir": "/work", "User": "1000:1000"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let layers: Vec<_> = tars.iter().map(|tar| gzip(tar)).collect();
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest(layer).to_string(), "size": layer.len(),
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config).to_string(), "size": config.len(),
            },
            "layers": descriptors,
        });
        Self { layers, config, manifest: manifest.to_string().into_bytes() }
    }

    /// The image as a tar of an OCI layout, its table of contents first, with a name if there is one.
    pub(crate) fn layout(&self, name: Option<&str>) -> Vec<u8> {
        let mut descriptor = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&self.manifest).to_string(), "size": self.manifest.len(),
        });
        if let Some(name) = name {
            descriptor["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string();
        let mut tar = Tar::default()
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", index.as_bytes());
        for blob in self.layers.iter().chain([&self.config, &self.manifest]) {
            tar = tar.file(&format!("blobs/sha256/{}", digest(blob).hex()), blob);
        }
        tar.finish()
    }
}
