//! Real S3 servers on loopback, and another client of them (`s3.py`): moto's, which starts in a second, and radosgw over
//! TLS, which checks more and starts in twenty.

mod ceph;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::tls::Authority;
use ceph::Ceph;

/// The server, with a bucket `photos`.
#[derive(Debug)]
pub struct S3 {
    child: Child,
    pipes: Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
    pub endpoint: String,
    /// The same server without TLS.
    pub plain: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    /// What whoever has the token may be.
    pub role_arn: String,
    pub token: String,
    /// Whom to trust, where the endpoint needs it.
    pub ca_pem: String,
    server: i32,
    _ceph: Option<Ceph>,
}

impl S3 {
    /// Starts moto's; nothing when Python lacks `moto`, which `cargo xtask test` installs for the tests of the clients.
    pub fn start() -> Option<Self> {
        Self::spawn(&[])
    }

    /// Starts radosgw over TLS, with a certificate of this authority's; nothing when it is not installed, which is what
    /// `cargo xtask test` does.
    pub fn ceph(authority: &Authority) -> Option<Self> {
        let ceph = Ceph::start(authority)?;
        let (access_key_id, secret_access_key) = (ceph::ACCESS_KEY_ID, ceph::SECRET_ACCESS_KEY);
        let server = json!({
            "endpoint": ceph.endpoint(),
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
            // It knows no web identities.
            "role_arn": "",
            "token": "",
            "pid": ceph.pid(),
        });
        let mut this = Self::spawn(&["client", &server.to_string(), authority.path().to_str().unwrap()])?;
        this.plain = ceph.plain();
        this.ca_pem = std::fs::read_to_string(authority.path()).unwrap();
        this._ceph = Some(ceph);
        Some(this)
    }

    fn spawn(arguments: &[&str]) -> Option<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), std::path::PathBuf::from);
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/harness/s3.py"))
            .args(arguments)
            .env("PYTHONPATH", target.join("clients/tools"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Ok(made) = serde_json::from_str::<Value>(&line) else {
            let _ = child.wait();
            return None;
        };
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Some(Self {
            child,
            pipes: Mutex::new((stdin, reader)),
            endpoint: text("endpoint"),
            plain: text("endpoint"),
            access_key_id: text("access_key_id"),
            secret_access_key: text("secret_access_key"),
            role_arn: text("role_arn"),
            token: text("token"),
            ca_pem: String::new(),
            server: i32::try_from(made["pid"].as_i64().unwrap()).unwrap(),
            _ceph: None,
        })
    }

    /// An operation of boto3, by the other client.
    pub fn try_call(&self, operation: &str, arguments: &Value) -> Value {
        let mut pipes = self.pipes.lock().unwrap();
        writeln!(pipes.0.as_mut().unwrap(), "{}", json!([operation, arguments])).unwrap();
        let mut line = String::new();
        pipes.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[track_caller]
    pub fn put(&self, key: &str, body: &str) {
        let answer = self.try_call("put_object", &json!({"Bucket": "photos", "Key": key, "Body": body}));
        assert!(answer["ok"].is_object(), "{answer}");
    }

    /// The same content under many keys.
    #[track_caller]
    pub fn put_all(&self, keys: &[String], body: &str) {
        let answer = self.try_call("put_all", &json!({"keys": keys, "body": body}));
        assert_eq!(answer["ok"], keys.len(), "{answer}");
    }

    /// An object's content, if there is one.
    pub fn get(&self, key: &str) -> Option<String> {
        let answer = self.try_call("get_object", &json!({"Bucket": "photos", "Key": key}));
        answer["body"].as_str().map(str::to_owned)
    }

    /// Keys of all objects, in their order.
    pub fn keys(&self) -> Vec<String> {
        let answer = self.try_call("list_objects_v2", &json!({"Bucket": "photos"}));
        let all = answer["ok"]["Contents"].as_array().into_iter().flatten();
        all.map(|object| object["Key"].as_str().unwrap().to_owned()).collect()
    }

    /// The body of a request for a mount of the bucket.
    pub fn mount(&self, path: &str) -> Value {
        json!({
            "path": path,
            "bucket": "photos",
            "endpoint": self.endpoint,
            "credentials": {
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key,
            },
        })
    }

    /// From now on it accepts connections and answers nothing.
    pub fn hang(&self) {
        kill(Pid::from_raw(self.server), Signal::SIGSTOP).unwrap();
    }

    /// It goes on.
    pub fn go_on(&self) {
        kill(Pid::from_raw(self.server), Signal::SIGCONT).unwrap();
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // The server ends by SIGKILL, stopped or not.
        self.pipes.get_mut().unwrap().0.take();
        let _ = self.child.wait();
    }
}
