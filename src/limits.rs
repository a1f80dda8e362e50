//! Every bound in the system, with its unit in the name and its reason beside it.

/// Characters in a sandbox id: `{port}-{id}-{token}` must fit one DNS label of 63 bytes (RFC 1035 §2.3.4),
/// with 5 for the port, 16 for the token and 2 hyphens.
pub const SANDBOX_ID_BYTES_MAX: usize = 40;

/// Bytes in one message between our own processes. `SOCK_SEQPACKET` takes a message whole, so this is also what
/// the default socket buffer (`net.core.wmem_default`, 212,992) must hold.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;

/// Bytes in the arguments and environment of one command together, each with its NUL as execve(2) counts. They
/// travel in one frame, which keeps 8 KiB for the working directory, the user and the lengths of the strings; the
/// kernel's own bound (a quarter of the stack limit) is higher.
pub const EXEC_BYTES_MAX: usize = FRAME_BYTES_MAX - 8 * 1024;

/// Arguments plus environment entries of one command. `find … | xargs` of GNU packs 128 KiB; with file names of
/// eight bytes this many fill [`EXEC_BYTES_MAX`].
pub const EXEC_STRINGS_MAX: usize = 16 * 1024;

/// Bytes in a path: `PATH_MAX`, the terminating NUL included (limits.h).
pub const PATH_BYTES_MAX: usize = 4096;

/// Bytes of a path that an error names when the whole of it could be too long.
pub const PATH_SHOWN_BYTES: usize = 256;

/// Bytes in a JSON request body. Command input may be large; everything else is small.
pub const JSON_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Mounts that a sandbox can have: each bucket is a process of the host's.
pub const MOUNTS_MAX: u32 = 16;

/// Bytes of the operator's file of credentials.
pub const KEYS_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a bucket's name (63 by S3; others allow more), of a prefix, and of a key (1,024 by S3).
pub const BUCKET_BYTES_MAX: usize = 255;

/// See [`BUCKET_BYTES_MAX`].
pub const KEY_BYTES_MAX: usize = 1024;

/// Bytes of a bucket's cache on disk when the request does not say, and at most.
pub const BUCKET_CACHE_BYTES: u64 = 1 << 30;

/// See [`BUCKET_CACHE_BYTES`].
pub const BUCKET_CACHE_BYTES_MAX: u64 = 1 << 40;

/// How long, in milliseconds, one operation on a bucket may take, all attempts together.
pub const BUCKET_PATIENCE_MS: u64 = 25_000;

/// How long, in milliseconds, attributes and names of a bucket are believed when the request does not say.
pub const BUCKET_TTL_MS: u64 = 1000;

/// How long, in milliseconds, unmounting waits for uploads when the request does not say, and at most.
pub const UNMOUNT_MS: u64 = 60_000;

/// See [`UNMOUNT_MS`].
pub const UNMOUNT_MS_MAX: u64 = 3_600_000;

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

/// Sandboxes that one fork makes.
pub const FORKS_MAX: usize = 64;

/// Globs of one snapshot, and bytes in each: together below a frame.
pub const EXCLUDES_MAX: usize = 64;
/// See [`EXCLUDES_MAX`].
pub const EXCLUDE_BYTES_MAX: usize = 1024;

/// Bytes of a `.gitignore` that are looked at.
pub const GITIGNORE_BYTES_MAX: u64 = 256 * 1024;

/// Bytes in a snapshot's name.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 256;

/// Saved file systems on top of each other; then they are made one. Overlay takes 500 layers (`OVL_MAX_STACK`), an image may
/// have 128 of them, and looking up a name that is not there asks each.
pub const SAVED_DEPTH_MAX: usize = 64;

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

/// The least that disk throttles may allow, per second: below it a sandbox cannot even be built, and the request
/// that waits for it would wait for ever.
pub const IO_BYTES_MIN: u64 = 64 * 1024;

/// The same in operations.
pub const IO_OPERATIONS_MIN: u64 = 16;

/// Bytes of a sandbox's `/dev/shm` (tmpfs: charged to the sandbox's memory).
pub const TMPFS_BYTES_DEFAULT: u64 = 512 * 1024 * 1024;

/// Bytes of the extended headers before one tar entry: two paths and 64 KiB of attributes many times over.
pub const TAR_METADATA_BYTES_MAX: u32 = 1024 * 1024;

/// Pieces of one sparse file. CVE-2025-58183 was an unbounded number.
pub const TAR_SPARSE_PIECES_MAX: usize = 10_000;

/// Components of a path in a layer.
pub const PATH_DEPTH_MAX: usize = 256;

/// Bytes of one component of a path: `NAME_MAX` (limits.h).
pub const NAME_BYTES_MAX: usize = 255;

/// Entries of one layer. The largest public images have some 300,000; every one costs an inode.
pub const LAYER_ENTRIES_MAX: u64 = 2_000_000;

/// Bytes of one layer's tar, holes of sparse files counted as if they were stored.
pub const LAYER_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Bytes that a layer may unpack to however small its blob is: below this a bomb is only a nuisance.
pub const LAYER_BYTES_FREE: u64 = 1024 * 1024 * 1024;

/// Beyond [`LAYER_BYTES_FREE`], bytes that a layer may unpack to for each byte of its blob. Deflate reaches 1,032,
/// zstd far more; software reaches 10.
pub const LAYER_RATIO_MAX: u64 = 200;

/// Window of a zstd frame, as a power of two: 128 MiB, what `zstd --ultra` writes at most without `--long=31`.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bytes of the value of one extended attribute: `XATTR_SIZE_MAX` (limits.h).
pub const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one blob, compressed.
pub const BLOB_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;

/// Bytes of what a configuration sets for commands: environment, entry point, working directory. They travel in
/// one frame, and with every command, within [`EXEC_BYTES_MAX`].
pub const IMAGE_SETTINGS_BYTES_MAX: u64 = 64 * 1024;

/// Layers of one pull that are downloaded at the same time. More do not fill a line better.
pub const LAYERS_IN_FLIGHT: usize = 4;

/// Pulls and imports that run at the same time, on the whole host: each is a process that may have a layer of each
/// of [`LAYERS_IN_FLIGHT`] connections in memory. More wait.
pub const FETCHES_MAX: usize = 16;

/// Processes of each of these kinds that launch starts, whatever serve asks: those of a serve that died may still be
/// ending when the next one asks.
pub const WORKERS_MAX: usize = 2 * FETCHES_MAX;

/// Layers that are unpacked at the same time, on the whole host. Each keeps two processors busy.
pub const LAYERS_UNPACKING: u32 = 2;

/// Attempts at one request to a registry that fails for reasons that pass.
pub const REGISTRY_ATTEMPTS_MAX: u32 = 5;

/// Redirects followed from one blob (RFC 9110 §15.4 advises five).
pub const REDIRECTS_MAX: u32 = 5;

/// Bytes of a token server's answer.
pub const TOKEN_BYTES_MAX: usize = 256 * 1024;

/// Seconds to connect to a registry, the handshake included.
pub const CONNECT_TIMEOUT_S: u64 = 15;

/// Seconds without a byte from a registry after which the connection is given up.
pub const IDLE_TIMEOUT_S: u64 = 30;

/// Seconds that a registry may ask us to wait before another attempt (`Retry-After`).
pub const RETRY_AFTER_MAX_S: u64 = 30;

/// Images in one archive.
pub const IMPORT_IMAGES_MAX: usize = 64;

/// Entries of an archive to import: blobs and a few files of metadata.
pub const IMPORT_ENTRIES_MAX: usize = 16 * 1024;

/// Bytes of an archive to import, decompressed.
pub const IMPORT_BYTES_MAX: u64 = 128 * 1024 * 1024 * 1024;

/// Bytes of additional certificates for one pull.
pub const CA_PEM_BYTES_MAX: usize = 64 * 1024;

/// Connections of one uid to the API. A client of 200 sandboxes with an attachment to each fits.
pub const CONNECTIONS_PER_UID_MAX: usize = 512;

/// Connections to the API altogether; with three pipes per command below a usual limit of descriptors
/// (`RLIMIT_NOFILE`).
pub const CONNECTIONS_MAX: usize = 2048;

/// Bytes in the head of a request, and what is buffered of a connection at most.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Seconds that a connection may be idle or sending the head of a request (CWE-400).
pub const REQUEST_HEAD_TIMEOUT_S: u64 = 10;

/// Seconds that a client may take to send a JSON body.
pub const JSON_BODY_TIMEOUT_S: u64 = 30;

/// Seconds that an upload may pause. `docker save` thinks before it writes.
pub const UPLOAD_PAUSE_S: u64 = 120;

/// Bytes of a body that [`BUFFERED_BYTES_MAX`] does not count: most bodies are smaller.
pub const BODY_BYTES_FREE: usize = 64 * 1024;

/// Bytes of kept output and of large bodies in memory, of all requests together. Beyond it results are cut short
/// and large requests refused.
pub const BUFFERED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes in one message from the client of an attachment.
pub const ATTACH_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of an attachment's input that wait for the command.
pub const ATTACH_INPUT_BYTES_MAX: usize = 1024 * 1024;

/// Commands of one sandbox that outlive serve: processes, sessions, terminals. Each is some descriptors of the
/// agent's, and all of them are named in one frame.
pub const KEPT_COMMANDS_MAX: usize = 4096;

/// Background processes of one sandbox that are listed, those included that have ended.
pub const PROCESSES_MAX: usize = 4096;

/// Bytes in a process's id.
pub const PROCESS_ID_BYTES_MAX: usize = 64;

/// Bytes of a process's output that are kept on disk unless the request asks for another number.
pub const LOG_BYTES_DEFAULT: u64 = 8 * 1024 * 1024;

/// The least that is kept of a process's output: below it a file of the ring holds less than a pipe.
pub const LOG_BYTES_MIN: u64 = 64 * 1024;

/// Bytes that the logs of all processes of one sandbox may come to hold: as many as all of them by default.
pub const SANDBOX_LOG_BYTES_MAX: u64 = PROCESSES_MAX as u64 * LOG_BYTES_DEFAULT;

/// The most that is kept of a process's output.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes of logs in one answer unless the request asks for another number.
pub const LOG_ANSWER_BYTES_DEFAULT: usize = 1024 * 1024;

/// The most that one answer holds of logs.
pub const LOG_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of what is waited for in a log: a text, or a regular expression as it is written.
pub const WAIT_PATTERN_BYTES_MAX: usize = 4096;

/// Bytes of a compiled regular expression.
pub const WAIT_PATTERN_COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a line of a log that are looked at together.
pub const LOG_LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a terminal's output that are kept for whoever looks at it later.
pub const TERMINAL_REPLAY_BYTES: usize = 256 * 1024;

/// Terminals of a sandbox whose program has ended and that are kept for their exit code and last output.
pub const TERMINALS_ENDED_MAX: usize = 64;

/// Bytes of one recording, as many as of a process's log: hours of somebody who types, or minutes of a flood.
pub const RECORDING_BYTES_MAX: u64 = LOG_BYTES_DEFAULT;

/// Recordings of one sandbox: with [`RECORDING_BYTES_MAX`] half a gibibyte of the daemon's disk.
pub const RECORDINGS_MAX: usize = 64;

/// Rows and columns of a terminal: far beyond any screen, and little enough that no program's multiplication of
/// the two overflows.
pub const TERMINAL_SIDE_MAX: u16 = 4096;

/// Characters in the name of a session or terminal.
pub const ITEM_ID_BYTES_MAX: usize = 64;

/// Contexts of one sandbox at once. Each is a process of some megabytes, within the sandbox's own limits.
pub const CONTEXTS_MAX: usize = 256;

/// Runs of one context that wait for their turn.
pub const CONTEXT_QUEUE_MAX: usize = 64;

/// Bytes of one frame from a context's interpreter: a figure or a table. Each run holds a few at most.
pub const CONTEXT_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of each stream that are kept of what a context writes while none of its runs goes on.
pub const CONTEXT_BACKGROUND_BYTES_MAX: usize = 64 * 1024;

/// Milliseconds that code may take to hear that it is interrupted, before its context is killed; and once it has heard,
/// to end before it is interrupted again.
pub const CONTEXT_GRACE_MS: u64 = 1000;

/// Milliseconds after those for which code that has heard is interrupted again and again, before its context is killed.
pub const CONTEXT_CLEANUP_MS: u64 = 2000;

/// Runs of one context that are kept after their end, when they were to detach.
pub const CONTEXT_KEPT_RUNS_MAX: usize = 16;

/// Bytes of what came of all such runs. What finds no room is cut, and said to be.
pub const KEPT_RUNS_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Milliseconds that a client may wait for the end of one in one request.
pub const CONTEXT_RUN_WAIT_MS_MAX: u64 = 60_000;

/// Results and displays that one collected answer holds.
pub const CONTEXT_RESULTS_MAX: usize = 1000;

/// Milliseconds that a command may be given: a week.
pub const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// Seconds that a clone may take unless the request says: history of years over a slow line.
pub const GIT_TIMEOUT_DEFAULT_S: u64 = 600;

/// The largest size in bytes or operations that is taken for serious, a pebibyte: beyond it is a mistake of
/// units, and the kernel's page counters would overflow not far above.
pub const SIZE_MAX: u64 = 1 << 50;

/// Processes of one host (`PID_MAX_LIMIT`, proc(5)).
pub const PIDS_MAX: u64 = 4_194_304;

/// Processors of one sandbox: more than any host has.
pub const CPUS_MAX: u32 = 1000;

/// Bytes in a reference to an image: 255 of a name, 128 of a tag, a digest, a registry's host and port.
pub const REFERENCE_BYTES_MAX: usize = 1024;

/// Bytes of a password or token for a registry.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Symbolic links followed at the end of one path: `MAXSYMLINKS` (path_resolution(7)).
pub const SYMLINKS_MAX: u32 = 40;

/// Names of one directory that a walk keeps at once. A directory that has more is read again for the next ones.
pub const LIST_WINDOW_MAX: usize = 16 * 1024;

/// Seconds to connect to a port inside a sandbox. It is on this host: what takes longer does not accept.
pub const DIAL_TIMEOUT_S: i64 = 2;

/// Workers of one sandbox that connect to its ports, at once. One takes a tenth of a millisecond, unless nobody accepts.
pub const DIALERS_PER_SANDBOX_MAX: usize = 4;

/// Ports of one sandbox that are exposed at once.
pub const EXPOSED_PORTS_MAX: usize = 256;

/// Characters in a token of a preview: what is left in its label, see [`SANDBOX_ID_BYTES_MAX`].
pub const PREVIEW_TOKEN_BYTES_MAX: usize = 16;

/// Bytes in the name of an exposed port.
pub const PORT_NAME_BYTES_MAX: usize = 64;

/// Tokens of sandboxes that are gone, by which their addresses are known to be stale and not wrong.
pub const FORMER_TOKENS_MAX: usize = 1024;

/// Connections into one sandbox at once: for previews, for proxied requests, and forwarded. 85 browsers of six each.
pub const PORT_CONNECTIONS_MAX: usize = 512;

/// Milliseconds that a request may wait for a port on which nobody listens yet.
pub const PORT_WAIT_MS_MAX: u64 = 60_000;

/// Connections to the preview listener altogether. Each may bring one into a sandbox.
pub const PREVIEW_CONNECTIONS_MAX: usize = 4096;

/// Connections of one address to it. A TLS proxy in front of it is one address.
pub const PREVIEW_CONNECTIONS_PER_ADDRESS_MAX: usize = 2048;

/// Seconds that a connection to it may be idle: more than the 60 after which common TLS proxies let go of one themselves.
pub const PREVIEW_IDLE_S: u64 = 75;

/// Seconds from the first byte of a request's head to the last.
pub const PREVIEW_HEAD_TIMEOUT_S: u64 = 10;

/// Seconds that a request's body may keep its reader waiting altogether, and one more for each of these bytes: what
/// Apache's mod_reqtimeout has as default (`body=20,MinRate=500`).
pub const PREVIEW_BODY_GRACE_S: u64 = 20;

/// See there; bytes.
pub const PREVIEW_BODY_RATE_MIN: u64 = 500;

/// Bytes in the head of a proxied request or answer.
pub const PROXY_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Seconds that a server in a sandbox may take until the head of its answer is there. Interim answers count for nothing.
pub const PROXY_FIRST_BYTE_TIMEOUT_S: u64 = 120;

/// Seconds for which a preview's client may take nothing of what it is sent.
pub const PREVIEW_STALL_S: u64 = 300;

/// Seconds without a byte either way after which a preview's WebSocket is closed.
pub const PREVIEW_TUNNEL_IDLE_S: u64 = 3600;

/// Bytes of a compiled regular expression, and of the tables that it makes while it runs.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a line that are searched; what follows in the same line is counted and skipped.
pub const SEARCH_LINE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a line that are shown with a match.
pub const SEARCH_EXCERPT_BYTES: usize = 1024;

/// Files with several names that an archive remembers; the names of further ones become copies.
pub const HARDLINKS_KNOWN_MAX: usize = 65_536;

/// Workers of one sandbox at once, those that hang included. Each is a process of some hundred KiB.
pub const WORKERS_PER_SANDBOX_MAX: usize = 16;

/// Seconds after which a worker that has nothing to do is ended.
pub const WORKER_IDLE_S: u64 = 30;

/// Seconds that one step on a file may take: opening, renaming, looking.
pub const FILE_CALL_TIMEOUT_S: u64 = 30;

/// Entries of a list or lines of a search in one answer unless the request asks for another number.
pub const PAGE_DEFAULT: u32 = 1000;

/// The most that a request may ask for: some megabytes of JSON.
pub const PAGE_MAX: u32 = 10_000;

/// Bytes of a glob, a regular expression, or another text in a query.
pub const PATTERN_BYTES_MAX: usize = 8192;

/// Parameters of one query.
pub const QUERY_PAIRS_MAX: usize = 128;

/// Entity tags in one header.
pub const ETAGS_MAX: usize = 64;

/// Directories of one watch. The kernel's own bound (`fs.inotify.max_user_watches`) is often lower.
pub const WATCHED_DIRECTORIES_MAX: usize = 100_000;

/// Watches of one sandbox at once. Each is a process and an inotify instance.
pub const WATCHES_PER_SANDBOX_MAX: usize = 32;

/// Globs of one watch, of each kind.
pub const WATCH_GLOBS_MAX: usize = 64;

/// Seconds that arming a watch may take: it reads every directory once.
pub const WATCH_ARM_TIMEOUT_S: u64 = 120;

/// Seconds after which a watch that only answers "changed since" ends when nobody asks.
pub const CHANGES_IDLE_S: u64 = 600;

/// Directories above each other in a working directory: each that is missing is made before the sandbox is ready.
pub const CWD_DEPTH_MAX: usize = 64;

/// Rules of one policy, of each kind.
pub const POLICY_RULES_MAX: usize = 256;

/// Bytes in one rule of a policy: a name of 253 and some ports.
pub const RULE_BYTES_MAX: usize = 320;

/// Bytes in all rules of a policy: it travels in one frame beside the rest of a plan.
pub const POLICY_BYTES_MAX: usize = 48 * 1024;

/// Connections that one sandbox has through the gateway unless its policy says otherwise: a browser has some hundred.
pub const EGRESS_CONNECTIONS_DEFAULT: u32 = 256;

/// The most that a policy may ask for. Each takes two descriptors of the gateway's.
pub const EGRESS_CONNECTIONS_MAX: u32 = 4096;

/// New connections per second of one sandbox unless its policy says otherwise.
pub const EGRESS_RATE_DEFAULT: u32 = 100;

/// The most that a policy may ask for.
pub const EGRESS_RATE_MAX: u32 = 10_000;

/// Decisions that are remembered of one sandbox.
pub const EGRESS_EVENTS_MAX: usize = 256;

/// Decisions in one answer of the gateway's: each takes below 1.5 KiB of a frame's 128.
pub const EGRESS_ANSWER_MAX: u32 = 80;

/// Addresses that are remembered with the names they were given for, of one sandbox.
pub const PINS_MAX: usize = 1024;

/// Questions for names that one sandbox may have open at the same time.
pub const QUESTIONS_MAX: usize = 64;

/// Hosts of one policy for which more is done than to let requests pass, and names whose TLS is opened.
pub const EGRESS_HOSTS_MAX: usize = 64;

/// Bytes of one credential.
pub const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a policy's secrets: that many credentials of that size, and a key.
pub const EGRESS_SECRETS_BYTES_MAX: usize = EGRESS_HOSTS_MAX * (CREDENTIAL_BYTES_MAX + 1024) + 64 * 1024;

/// Bytes of certificates that an operator adds: they travel in one frame with the other settings.
pub const CA_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a body that is read before it is signed. Services that take unsigned bodies have no such limit.
pub const SIGNED_BODY_BYTES_MAX: usize = 1024 * 1024;

/// How many such bodies are held at the same time, for all sandboxes.
pub const SIGNED_BODIES_MAX: usize = 16;

/// And of one sandbox.
pub const SIGNED_BODIES_PER_SANDBOX_MAX: usize = 2;

/// Seconds that a server may take until the head of its answer is there: models that do not stream answer after
/// minutes.
pub const EGRESS_FIRST_BYTE_TIMEOUT_S: u64 = 600;

/// Certificates of one sandbox that are remembered.
pub const LEAVES_MAX: usize = 128;

/// Bytes of a decision that outlives the gateway; a page holds a whole number of them.
pub const EGRESS_KEPT_SLOT: usize = 1024;

/// Bytes of the file in which decisions about one sandbox outlive the gateway.
pub const EGRESS_KEPT_BYTES: u64 = (EGRESS_KEPT_SLOT * (EGRESS_EVENTS_MAX + 1)) as u64;

/// The least and the most milliseconds of a sandbox's idle timeout and time to live: a tenth of a second, ten years.
pub const LIFECYCLE_MS_MIN: u64 = 100;
/// See [`LIFECYCLE_MS_MIN`].
pub const LIFECYCLE_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Milliseconds between two readings of what sandboxes use.
pub const STATS_INTERVAL_MS_DEFAULT: u64 = 1000;
/// The least: each reading takes the launcher a tenth of a millisecond per sandbox.
pub const STATS_INTERVAL_MS_MIN: u64 = 100;
/// The most: an hour.
pub const STATS_INTERVAL_MS_MAX: u64 = 3_600_000;

/// Events that are remembered for listeners who come back.
pub const FEED_EVENTS_MAX: usize = 8192;

/// Bytes of each of the two files in which they outlive the daemon: an event has some 200.
pub const FEED_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Events in one answer unless the request asks for another number, and the most that it may ask for.
pub const FEED_ANSWER_MAX: u32 = 1000;

/// Bytes of one file of the audit log.
pub const AUDIT_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Files of the audit log that are kept; a line has some 500 bytes.
pub const AUDIT_FILES_MAX: usize = 16;

/// Lines of the audit log in one answer.
pub const AUDIT_ANSWER_MAX: u32 = 1000;

/// Processes that one sandbox declares to be started with it: each delays its wake by a millisecond.
pub const STARTUP_MAX: usize = 32;
