//! Messages to the kernel's networking (netlink(7)): as many as two requests of ours need.
//!
//! Why not a netlink crate: those that encode nf_tables know no `redir`, and those that know it are C; what is left
//! to encode is a header and attributes.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::Errno;

/// linux/netlink.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;
const HEADER: usize = 16;

/// Make what is not there (`NLM_F_CREATE`).
pub const CREATE: u16 = 0x400;
/// Put it behind what is there (`NLM_F_APPEND`).
pub const APPEND: u16 = 0x800;

/// Messages that are sent together.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    sequence: u32,
    answers: usize,
}

/// The attributes of a message, or of one of its attributes.
#[derive(Debug)]
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Messages {
    /// Appends a message that the kernel answers.
    pub fn add(&mut self, kind: u16, flags: u16, head: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        self.answers += 1;
        self.append(kind, flags | NLM_F_ACK, head, fill);
    }

    /// Appends a message that only brackets others, and is not answered.
    pub fn mark(&mut self, kind: u16, head: &[u8]) {
        self.append(kind, 0, head, |_| {});
    }

    fn append(&mut self, kind: u16, flags: u16, head: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.sequence += 1;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(head);
        pad(&mut self.bytes);
        fill(&mut Attributes(&mut self.bytes));
        // Far below 2^32: a handful of attributes.
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sends them all to one subsystem (routes when absent, which are number 0) of this process's network namespace and waits for every answer.
    ///
    /// # Errors
    /// The first that the kernel answers.
    pub fn exchange(&self, subsystem: Option<Protocol>) -> Result<(), Errno> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            subsystem,
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        rustix::net::sendto(&socket, &self.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; 16 * 1024];
        let mut left = self.answers;
        while left > 0 {
            let (_, length) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            left -= answers(&buffer[..length])?.min(left);
        }
        Ok(())
    }
}

/// How many messages of a datagram are answers, all of them good.
fn answers(mut datagram: &[u8]) -> Result<usize, Errno> {
    let mut count = 0;
    while datagram.len() >= HEADER {
        let word = |at: usize| [datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]];
        let length = u32::from_ne_bytes(word(0)) as usize;
        let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
        if length < HEADER || length > datagram.len() {
            return Err(Errno::BADMSG);
        }
        if kind == NLMSG_ERROR {
            let code = if length >= HEADER + 4 { i32::from_ne_bytes(word(HEADER)) } else { 0 };
            if code != 0 {
                return Err(Errno::from_raw_os_error(-code));
            }
            count += 1;
        }
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    Ok(count)
}

impl Attributes<'_> {
    /// An attribute of these bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        pad(self.0);
        self
    }

    /// A number in network byte order, as nf_tables has them.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text with its NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Attributes in an attribute.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NLA_F_NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_kernel_reads_it() {
        let mut messages = Messages::default();
        messages.add(3, CREATE, &[9], |attributes| {
            attributes.text(1, "ab").nested(2, |inside| {
                inside.number(5, 1);
            });
        });
        let bytes = &messages.bytes;
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().expect("four")) as usize, bytes.len());
        assert_eq!(&bytes[16..20], [9, 0, 0, 0]);
        assert_eq!(&bytes[24..28], b"ab\0\0");
        assert_eq!(u16::from_ne_bytes([bytes[28], bytes[29]]), 12);
        assert_eq!(bytes.len(), 16 + 4 + 8 + 12);
    }

    #[test]
    fn a_refusal_is_the_kernels_errno_and_nonsense_is_none() {
        let mut answer = vec![20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        answer.extend((-17_i32).to_ne_bytes());
        assert_eq!(answers(&answer), Err(Errno::EXIST));
        answer[16..20].copy_from_slice(&[0; 4]);
        assert_eq!(answers(&answer), Ok(1));
        answer[0] = 200;
        assert_eq!(answers(&answer), Err(Errno::BADMSG));
        assert_eq!(answers(&[1, 2, 3]), Ok(0));
    }
}
