//! Debian's docker-registry.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::image::Image;
use super::{host, host_command, scratch};

/// Debian's docker-registry, running until dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    pub address: String,
    directory: tempfile::TempDir,
}

impl Registry {
    /// Starts it with more lines of configuration; `None` when it is not installed.
    pub fn start(more: &str) -> Option<Self> {
        let directory = scratch();
        // Bound, read and let go: nothing else on this host takes ports that fast.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let root = directory.path().display();
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http:\n  addr: {address}\n{}",
            more.replace("ROOT", &root.to_string())
        );
        fs::write(directory.path().join("config.yml"), configuration).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        if more.contains("tls:") {
            certificates(directory.path());
        }
        if more.contains("htpasswd") {
            let line = host_command("htpasswd", &["-Bbn", "user", "secret"]);
            fs::write(directory.path().join("htpasswd"), line).unwrap();
        }
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .ok()?;
        host::wait_for("docker-registry to listen", || TcpStream::connect(&address).is_ok());
        Some(Self { child, address, directory })
    }

    /// Pushes an image by skopeo.
    pub fn push(&self, image: &Image, name: &str, more: &[&str]) {
        let layout = self.directory.path().join("layout");
        let _ = fs::remove_dir_all(&layout);
        image.write_layout(&layout, "x");
        let (from, to) = (format!("oci:{}:x", layout.display()), format!("docker://{}/{name}", self.address));
        let fixed = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
        host_command("skopeo", &[&fixed[..], more, &[&from, &to]].concat());
    }
}

impl Registry {
    /// Where its certificates and blobs are.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes an authority and a certificate for 127.0.0.1 that it signed.
fn certificates(directory: &Path) {
    let path = |name: &str| directory.join(name).display().to_string();
    fs::write(
        directory.join("san"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    let (ca_key, ca, key, request, certificate) =
        (path("ca.key"), path("ca.pem"), path("tls.key"), path("tls.csr"), path("tls.pem"));
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    host_command(
        "openssl",
        &[
            &["req", "-x509"][..],
            &curve,
            &["-keyout", &ca_key, "-out", &ca, "-subj", "/CN=test authority", "-days", "2"],
        ]
        .concat(),
    );
    host_command(
        "openssl",
        &[&["req"][..], &curve, &["-keyout", &key, "-out", &request, "-subj", "/CN=registry"]].concat(),
    );
    host_command(
        "openssl",
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-out",
            &certificate,
            "-days",
            "2",
            "-extfile",
            &path("san"),
        ],
    );
}
