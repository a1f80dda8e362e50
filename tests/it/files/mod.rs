//! The file API, end to end: what it does, and what is tried against it.

mod archive;
mod attacks;
mod cli;
mod content;
mod copy;
mod model;
mod trees;
mod watch;

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Daemon, assert_error};

/// A sandbox of the host's files, and the file API on it.
struct Files {
    daemon: Daemon,
    id: String,
}

/// Percent-encodes every byte.
fn encoded(path: &[u8]) -> String {
    percent_encoding::percent_encode(path, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Files {
    #[track_caller]
    fn start() -> Self {
        Self::of(Daemon::start(), &json!({}))
    }

    #[track_caller]
    fn of(daemon: Daemon, spec: &Value) -> Self {
        let id = crate::harness::id(&daemon.create(spec.clone()));
        Self { daemon, id }
    }

    fn route(&self, verb: &str, path: impl AsRef<[u8]>, more: &str) -> String {
        format!("/v1/sandboxes/{}/files/{verb}?path={}{more}", self.id, encoded(path.as_ref()))
    }

    #[track_caller]
    fn read(&self, path: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Response {
        self.daemon.send("GET", &self.route("content", path, ""), headers, b"")
    }

    /// The content of a file that must be there.
    #[track_caller]
    fn content(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        let answer = self.read(path, &[]);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.body
    }

    #[track_caller]
    fn try_write(
        &self,
        path: impl AsRef<[u8]>,
        more: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.daemon.send("PUT", &self.route("content", path, more), headers, body)
    }

    #[track_caller]
    fn write(&self, path: impl AsRef<[u8]>, body: &[u8]) -> Value {
        let answer = self.try_write(path, "", &[], body);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    #[track_caller]
    fn get(&self, verb: &str, path: impl AsRef<[u8]>, more: &str) -> Response {
        self.daemon.request("GET", &self.route(verb, path, more), None)
    }

    #[track_caller]
    fn stat(&self, path: impl AsRef<[u8]>) -> Value {
        let answer = self.get("stat", path, "");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    #[track_caller]
    fn list(&self, path: impl AsRef<[u8]>, more: &str) -> Value {
        let answer = self.get("list", path, more);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// The paths of a list.
    #[track_caller]
    fn paths(&self, path: impl AsRef<[u8]>, more: &str) -> Vec<String> {
        let list = self.list(path, more);
        list["entries"].as_array().unwrap().iter().map(|entry| text(&entry["path"])).collect()
    }

    #[track_caller]
    fn post(&self, verb: &str, body: &Value) -> Response {
        self.daemon.request("POST", &format!("/v1/sandboxes/{}/files/{verb}", self.id), Some(body))
    }

    /// Something that must work and says nothing.
    #[track_caller]
    fn done(&self, verb: &str, body: Value) {
        let answer = self.post(verb, &body);
        assert_eq!(answer.status, 204, "{verb} {body}: {}", String::from_utf8_lossy(&answer.body));
    }

    #[track_caller]
    fn refused(&self, verb: &str, body: Value, status: u16, code: &str) {
        assert_error(&self.post(verb, &body), status, code);
    }

    #[track_caller]
    fn shell(&self, line: &str) -> String {
        self.daemon.shell(&self.id, line)
    }
}

/// A path as text: what is not UTF-8 as `base64:…`.
fn text(path: &Value) -> String {
    match path.as_str() {
        Some(text) => text.to_owned(),
        None => format!("base64:{}", path["base64"].as_str().unwrap()),
    }
}

/// Bytes without a pattern that compression or a mistake of offsets would keep.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
