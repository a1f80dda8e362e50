//! serve ⇄ worker: our own code inside a sandbox, with no more rights than a command of the same user.
//!
//! serve numbers its requests; each is answered once, in order.

use serde::{Deserialize, Serialize};

/// A request and the number that its reply will carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by serve.
    pub number: u64,
    /// What to do.
    pub call: Call,
}

/// What serve can ask of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Whether it is there.
    Ping,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// That of the request.
    pub number: u64,
    /// The answer, or what the kernel said (errno(3)).
    pub result: Result<Answer, i32>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is there.
    Pong,
}
