//! Every bound in the system, with its unit in the name and its reason beside it.

/// Characters in a sandbox id: `{port}-{id}-{token}` must fit one DNS label of 63 bytes (RFC 1035 §2.3.4),
/// with 5 for the port, 16 for the token and 2 hyphens.
pub const SANDBOX_ID_BYTES_MAX: usize = 40;

/// Bytes in one message between our own processes. `SOCK_SEQPACKET` takes a message whole, so this is also what
/// the default socket buffer (`net.core.wmem_default`, 212,992) must hold.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;

/// Bytes in the arguments and environment of one command together. They travel in one frame; the kernel's own
/// bound (execve(2), a quarter of the stack limit) is higher.
pub const EXEC_BYTES_MAX: usize = 96 * 1024;

/// Arguments plus environment entries of one command.
pub const EXEC_STRINGS_MAX: usize = 2048;

/// Bytes in a path: `PATH_MAX`, the terminating NUL included (limits.h).
pub const PATH_BYTES_MAX: usize = 4096;

/// Bytes in a JSON request body. Command input may be large; everything else is small.
pub const JSON_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of each of stdout and stderr that a buffered command result keeps unless the request asks for another
/// number. What comes after is read and dropped, and the result says `truncated`.
pub const OUTPUT_BYTES_DEFAULT: usize = 8 * 1024 * 1024;

/// The most that a request may ask to keep of each stream.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Labels of one sandbox.
pub const LABELS_MAX: usize = 64;

/// Bytes in a label's key and in its value.
pub const LABEL_BYTES_MAX: usize = 256;

/// Layers of one image. Overlay takes 500 (`OVL_MAX_STACK`); registries stop at 127 or 128.
pub const LAYERS_MAX: usize = 128;

/// Bytes in a manifest or index (CVE-2023-25153 was an unbounded one).
pub const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes in an image configuration.
pub const IMAGE_CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Uids and gids given to one sandbox: all that 16-bit ids can name, as images expect.
pub const IDS_PER_SANDBOX: u32 = 65_536;

/// Sandboxes that can exist at once on one host: one id range each.
pub const SANDBOXES_MAX: u32 = 8_192;

/// Bytes of an `/etc/passwd` or `/etc/group` that is looked at (CVE-2026-47262: a giant one hung a daemon).
pub const PASSWD_BYTES_MAX: usize = 1024 * 1024;

/// Supplementary groups of one command.
pub const GROUPS_MAX: usize = 256;

/// Processes of a sandbox unless the request asks for another number.
pub const PIDS_DEFAULT: u64 = 512;

/// Bytes of memory of a sandbox unless the request asks for another number.
pub const MEMORY_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;

/// The smallest memory limit that is accepted: below it not even the agent starts.
pub const MEMORY_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Bytes of a sandbox's `/dev/shm` (tmpfs: charged to the sandbox's memory).
pub const TMPFS_BYTES_DEFAULT: u64 = 512 * 1024 * 1024;
