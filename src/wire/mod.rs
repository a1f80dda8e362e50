//! Messages that cross a boundary between our own processes: data only, no policy.
//!
//! Every socket between roles is `SOCK_SEQPACKET`: one message is one datagram, so there is no length field to
//! lie about (CVE-2021-43784) and no stream to fall out of step. A message is at most
//! [`FRAME_BYTES_MAX`] bytes of postcard. The closed enums are the protocol:
//! an unknown variant, trailing bytes or a bound exceeded is a [`BadFrame`], on which the reader closes.
//!
//! Roles of one version talk to each other, except that an agent may outlive the daemon that made it:
//! [`agent::VERSION`] is the first thing that it says.

pub mod agent;
pub mod bucket;
pub mod fetch;
pub mod gateway;
pub mod launch;
pub mod mount;
pub mod unpack;
pub mod usage;
pub mod worker;

use serde::{Deserialize, Serialize};

use crate::limits::FRAME_BYTES_MAX;

/// A message that is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid message")]
pub struct BadFrame;

/// The bytes of a message.
///
/// # Errors
/// When it is larger than a frame may be.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, BadFrame> {
    let bytes = postcard::to_stdvec(message).map_err(|_| BadFrame)?;
    if bytes.len() > FRAME_BYTES_MAX { Err(BadFrame) } else { Ok(bytes) }
}

/// The bytes of what goes into a file and not into a frame.
///
/// # Errors
/// When they are more than `most`.
pub fn encode_long<T: Serialize>(message: &T, most: usize) -> Result<Vec<u8>, BadFrame> {
    let bytes = postcard::to_stdvec(message).map_err(|_| BadFrame)?;
    if bytes.len() > most { Err(BadFrame) } else { Ok(bytes) }
}

/// The message in these bytes, all of them.
///
/// # Errors
/// When the bytes are not exactly one message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadFrame> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(BadFrame),
    }
}
