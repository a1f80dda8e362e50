//! All of the kernel that rustix, nix and landlock do not offer safely, and all unsafe code.
//!
//! Contract of this folder: a function takes typed descriptors and returns [`Errno`]; it keeps no state,
//! decides nothing and logs nothing. Every `unsafe` block has a proof that names the man page's precondition
//! and the line that meets it.

pub mod attempt;
pub mod channel;
pub mod dialled;
pub mod exec;
pub mod heap;
pub mod huge;
pub mod landlock;
pub mod mount;
pub mod netlink;
pub mod network;
pub mod path;
pub mod peer;
pub mod privilege;
pub mod process;
pub mod quota;
pub mod resident;
pub mod socket;
pub mod stream;
pub mod terminal;
pub mod watched;

pub use rustix::io::Errno;

/// What the kernel said in an error of the standard library's; `EIO` when that is no error of the kernel's.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
