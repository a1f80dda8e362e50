// Written by sdk/generate.mjs from tests/openapi.json. Change that and run it again.

/** Something to mount: a bucket, or a directory of the host. */
export interface AddMount {
  /** Where the bucket's name goes: `path`, or `host` for a label of the host's name. `host` when absent for Amazon, `path` for others. */
  addressing?: string | null;
  /** How many milliseconds names, sizes and times are believed without asking the bucket again; 1000 when absent. */
  attribute_ttl_ms?: number | null;
  /** The bucket. With `file://` a directory in the one that the endpoint names. */
  bucket?: string | null;
  /** Bytes of the host's disk for what is read and written; 1 GiB when absent. What is not in the bucket yet is never dropped. */
  cache_bytes?: number | null;
  /** Do not overwrite what somebody else has changed meanwhile: the writer is told ESTALE. The server must know `If-Match`. */
  conditional_writes?: boolean;
  credentials?: MountCredentials | null;
  /** Permissions of its directories; `755` when absent. */
  dir_mode?: string | null;
  /** Whose server: `https://host[:port][/path]`, `http://…`, or `file:///directory` of the host, if the operator lets. Amazon's of the region when absent. */
  endpoint?: string | null;
  /** Permissions of files of which a bucket does not say, in octal; `644` when absent. */
  file_mode?: string | null;
  /** Its gid; `uid` when absent. */
  gid?: number | null;
  /** Where, absolute; made when it is missing. */
  path: string;
  /** Only what is below this: a key without its last part, or a directory. */
  prefix?: string | null;
  /** Nothing can be changed in it. */
  read_only?: boolean;
  /** The bucket's region; `us-east-1` when absent, and `auto` is what some servers want. */
  region?: string | null;
  /** Uid that owns what is in it; 0 when absent. */
  uid?: number | null;
}

/** What the code that asks is told. */
export interface AnswerInput {
  /** That there are no more lines, instead. */
  eof?: boolean;
  /** One line, without its end. */
  value?: string | null;
}

/** What the server says in text frames of an attachment. Output comes in binary frames. */
export type AttachEvent = (StartedEvent & { event: "started" }) | (CommandEnd & { event: "exit" }) | (ErrorBody & { event: "error" });

/** Lines of the audit log. */
export interface AuditLines {
  /** And its hash. Who remembers both can tell later whether the end was cut off. */
  head: string;
  /** The log's last record: its number. */
  last: number;
  /** The oldest first. */
  lines: Line[];
}

/** One record. */
export interface AuditRecord {
  /** When (RFC 3339). */
  at: string;
  /** Of what the log says of itself: up to which record files were removed, how many bytes or requests it is about. */
  count?: number | null;
  /** Keyed digest (HMAC-SHA-256) of method, path, query and, for JSON, body. */
  digest?: string | null;
  /** Gid. */
  gid: number;
  /** What was asked for: an operation of the API's description, or `audit.…` for what the log says of itself. */
  operation: string;
  /** Pid, of which there may be another one by now; 0 when it cannot be seen from the daemon. */
  pid: number;
  /** Hash of the record before it. */
  previous: string;
  /** The request's id, as in the daemon's log. */
  request_id?: string | null;
  /** About which sandbox. */
  sandbox?: string | null;
  /** Its number; each is one more than that before. */
  seq: number;
  /** Uid of who asked. */
  uid: number;
  /** What became of it: `done`, or the code of the refusal or failure. */
  verdict: string;
}

/** A key of AWS that the sandbox does not see. */
export interface AwsCredential {
  /** Never shown again; a change that leaves key and secret out keeps them, and the token. */
  access_key_id?: string | null;
  /** The region in whose name requests are signed. */
  region: string;
  /** The same. */
  secret_access_key?: string | null;
  /** The service. `s3` takes bodies of any length; of others a body of more than 1 MiB needs its `x-amz-content-sha256`. */
  service: string;
  /** For keys that end. */
  session_token?: string | null;
}

/** A name and a password that the sandbox does not see. */
export interface BasicCredential {
  /** The same. */
  password?: string | null;
  /** Never shown again; a change that leaves both out keeps them. */
  username?: string | null;
}

/** An object in a bucket; with `file://` as endpoint, a file in a directory of the host, if the operator lets. */
export interface BucketObject {
  /** Where the bucket's name goes: `path` or `host`. */
  addressing?: string | null;
  /** The bucket. */
  bucket?: string | null;
  credentials?: MountCredentials | null;
  /** Whose server, as for a mount. Amazon's of the region when absent. */
  endpoint?: string | null;
  /** The object's key. */
  key: string;
  /** The bucket's region. */
  region?: string | null;
}

/** What a sandbox can be made of without an image in the store. */
export interface BuiltInImage {
  /** What it is. */
  description: string;
  /** Its name. */
  reference: string;
}

/** A caller, as the kernel names it (`SO_PEERCRED`, unix(7)). */
export interface CallerInfo {
  /** Whether it sees the sandboxes of all users. */
  operator: boolean;
  /** The user. */
  uid: number;
}

/** Changes of a sandbox's variables. They hold for what is started from now on. */
export interface ChangeEnvironment {
  /** To set. */
  set?: Record<string, string>;
  /** To remove; a name that is not there is no error. */
  unset?: string[];
}

/** A change that a watch reports; the event's name says which. */
export interface ChangeEvent {
  /** Whether it is a directory. */
  directory: boolean;
  from?: PathText | null;
  /** Below the directory that is watched; of a file that is watched itself its name. */
  path: PathText;
}

/** New permissions. */
export interface ChangeMode {
  /** Octal, at most 1777: set-user-id has no effect in a sandbox. */
  mode: string;
  /** Of what. */
  path: PathText;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** A new owner. */
export interface ChangeOwner {
  /** Whether of a symbolic link itself rather than its target. */
  no_follow?: boolean;
  /** `user` or `user:group`, names or ids of the sandbox. Without a group that stays. */
  owner: string;
  /** Of what. */
  path: PathText;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** See [`Changes`]. */
export type ChangeStatus = "unchanged" | "changed" | "resync";

/** Whether files have changed. */
export interface Changes {
  /** For the next question. */
  cursor: string;
  /** Whether they have. */
  status: ChangeStatus;
}

/** Data of the event `clear`. */
export interface ClearEvent {
  /** Whether what was shown stays until something new is. */
  wait: boolean;
}

/** A repository to clone into a sandbox. */
export interface CloneRepository {
  /** Branch or tag to check out. The repository's default when absent. */
  branch?: string | null;
  /** How many commits of history; all when absent, and always of a bundle. */
  depth?: number | null;
  /** See `username`. */
  password?: string | null;
  /** Where to: absolute, or below the sandbox's working directory; not there yet, or an empty directory. Named after the URL when absent. */
  path?: string | null;
  /** Clone its submodules too. */
  recurse_submodules?: boolean;
  /** After so long the clone is given up and removed. Ten minutes when absent. */
  timeout_ms?: number | null;
  /** An access token in the place of a password; `username` may be left out. */
  token?: string | null;
  /** `https://…`, `http://…`, `ssh://…`, `git://…`, `user@host:path`, or an absolute path in the sandbox: of a repository or a bundle. Without a password in it. */
  url: string;
  /** Whom git runs as. The sandbox's when absent. */
  user?: string | null;
  /** For hosts that want a name and a password. Shown to the URL's host and no other; never in an argument, the environment, a file or a log. */
  username?: string | null;
}

/** A repository that was cloned. */
export interface ClonedRepository {
  /** The branch that is checked out. A tag is on none. */
  branch?: string | null;
  /** The commit that is checked out. A repository without any has none. */
  commit?: string | null;
  /** From start to end, in milliseconds. */
  duration_ms: number;
  /** Where it is in the sandbox. */
  path: string;
}

/** How a run ended. Data of the event `end`. */
export interface CodeEnd {
  /** From its start to its end, in milliseconds. Waiting for its turn is not in it. */
  duration_ms: number;
  error?: CodeFailure | null;
  /** The cell's number, from 1. Absent when the interpreter is gone. */
  execution_count?: number | null;
  /** With which code the interpreter ended, if it did by itself; or what the code has given to `sys.exit` or `process.exit`, which end the cell alone. */
  exit_code?: number | null;
  /** The run. */
  id: string;
  /** Whether it was interrupted because somebody wanted it. */
  interrupted: boolean;
  /** Whether the kernel killed the interpreter because the sandbox's memory was used up. */
  oom_killed: boolean;
  /** Whether output was dropped that nobody took while the run was being ended. */
  output_dropped: boolean;
  /** Whether it was the first run after state was lost. */
  restarted: boolean;
  /** The signal that killed it. */
  signal?: string | null;
  /** Whether the interpreter is gone, and its variables with it. The next run begins in a new one. */
  state_lost: boolean;
  /** Whether it was interrupted because its time was up. */
  timed_out: boolean;
}

/** Why a cell did not succeed. */
export interface CodeFailure {
  /** The line of the cell, from 1. */
  line?: number | null;
  /** Its text. */
  message: string;
  /** The class of the exception; or `TimeoutError`, `KeyboardInterrupt`, `InterpreterDied`, `OutOfMemory` or `ContextRestarted`. */
  name: string;
  /** As the language shows it, line by line. */
  traceback: string[];
}

/** Data of the events `stdout` and `stderr` of a run. */
export interface CodeOutputEvent {
  /** Whether they were written by what earlier runs have left behind, as far as that can be known. */
  background: boolean;
  /** The bytes. */
  data: string;
  /** How they are written here. */
  encoding: Encoding;
}

/** A run and what came of it. */
export type CodeResult = CodeEnd & { background: string; results: RichOutput[]; stderr: string; stderr_bytes: number; stderr_encoding: Encoding; stdout: string; stdout_bytes: number; stdout_encoding: Encoding; truncated: CodeTruncated };

/** Runs of a context that were to detach. */
export interface CodeRunList {
  /** The oldest first. */
  runs: CodeRunView[];
}

/** A run that was to detach. */
export interface CodeRunView {
  /** When it was asked for (RFC 3339). */
  created_at: string;
  /** Whether it has ended. */
  ended: boolean;
  /** The run. */
  id: string;
  result?: CodeResult | null;
}

/** Which parts of a collected result are not whole. */
export interface CodeTruncated {
  /** What earlier runs have left behind wrote. */
  background?: boolean;
  /** What was shown. */
  results: boolean;
  /** Standard error. */
  stderr: boolean;
  /** Standard output. */
  stdout: boolean;
}

/** How a command ended. */
export interface CommandEnd {
  /** From start to end, in milliseconds. */
  duration_ms: number;
  /** As shells say it: the code, or 128 + n after signal n. */
  exit_code: number;
  /** The command. */
  id: string;
  /** Whether the kernel killed it, or a child whose end it passed on as 137, because the sandbox's memory was used up. The kernel counts per sandbox: what something else killed with SIGKILL while another command of the same sandbox ran out of memory looks the same. Always false where the host cannot limit memory. */
  oom_killed?: boolean;
  /** The signal that killed it. */
  signal?: string | null;
  /** Whether it was killed because its time was up. */
  timed_out: boolean;
  usage?: CommandUsage | null;
}

/** Commands that run. */
export interface CommandList {
  /** The oldest first. */
  commands: CommandView[];
}

/** How a command ended, and what it wrote. */
export type CommandResult = CommandEnd & Written & { recording?: string | null };

/** What a command used: time of everything that it started; the rest of its first process and of the children that were waited for (getrusage(2)). What is left in the background and nobody waits for is in nothing but the times. */
export interface CommandUsage {
  /** How often another one was let run. */
  involuntary_switches: number;
  /** Pages that had to be read from the disk. */
  major_faults: number;
  /** Pages that had to be found or made in memory. */
  minor_faults: number;
  /** Bytes read from the disk. */
  read_bytes: number;
  /** The largest resident set of one process, in KiB. At least that of the process which becomes the program: some 20 MiB. */
  resident_max_kib: number;
  /** Time in the kernel, in microseconds. */
  system_us: number;
  /** Time in user mode, in microseconds. */
  user_us: number;
  /** How often it waited for something. */
  voluntary_switches: number;
  /** Bytes written to it, or to be. */
  written_bytes: number;
}

/** A running command, in lists. */
export interface CommandView {
  /** Program and arguments. */
  argv: string[];
  /** Its name. */
  id: string;
  /** Pid of its first process, as seen in the sandbox. */
  pid: number;
  /** When it was started (RFC 3339). */
  started_at: string;
}

/** An image to make of a sandbox. */
export interface CommitSandbox {
  /** The image's name: `[registry/]repository[:tag]`. One that is there of that name is replaced. */
  reference: string;
}

/** Contexts of a sandbox. */
export interface ContextList {
  /** By name. */
  contexts: ContextView[];
}

/** A context, in lists. */
export interface ContextView {
  /** Whether a cell runs. */
  busy: boolean;
  /** When it was made (RFC 3339). */
  created_at: string;
  /** Where it begins. */
  cwd: string;
  /** What it was given beside the sandbox's environment. */
  env: Record<string, string>;
  /** The last cell's number; 0 when there was none since the interpreter was started. */
  execution_count: number;
  /** Its name. */
  id: string;
  input?: Prompt | null;
  /** Its language. */
  language: Language;
  /** When its last run was asked for (RFC 3339). */
  last_used_at: string;
  /** Pid of its interpreter, as seen in the sandbox, while there is one: it is started by the first run, and again after it was lost. */
  pid?: number | null;
  /** Milliseconds after which its runs are interrupted unless they say. */
  timeout_ms?: number | null;
  /** Whom it runs as. */
  user: string;
  /** Runs that wait for their turn. */
  waiting: number;
}

/** A file or tree to copy. */
export interface CopyFile {
  /** From. */
  from: PathText;
  /** Whether files that are there may be replaced, and directories filled. */
  overwrite?: boolean;
  /** To. */
  to: PathText;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** What has left a sandbox, and what has not, since the daemon was started or the sandbox got a network. */
export interface Counters {
  /** Connections and requests that a rule allowed. */
  allowed: number;
  /** Bytes into it. */
  bytes_received: number;
  /** Bytes out of the sandbox. */
  bytes_sent: number;
  /** Connections that are open. */
  connections_open: number;
  /** Connections, requests and questions for names that were refused. */
  denied: number;
  /** What was allowed and came to nothing: connections that nobody accepted, or with whom TLS could not be agreed on, and questions for names that no name server has answered. Each is in the log, with the reason. */
  failed: number;
  /** Connections refused because there were too many, or too many at once. They are reset, and are in the log. */
  limited: number;
  /** Questions for names. */
  names_asked: number;
}

/** Processor time since the sandbox was started last. */
export interface CpuUsage {
  /** In thousandths of a processor. */
  limit_millis?: number | null;
  /** What counts: `cgroup-v2` or `cgroup-v1`. */
  source?: string | null;
  /** In the kernel. */
  system_us?: number | null;
  /** For how long it was kept from running by its limit. */
  throttled_us?: number | null;
  /** Altogether, in microseconds. */
  usage_us?: number | null;
  /** In user mode. */
  user_us?: number | null;
}

/** A context to make. */
export interface CreateContext {
  /** Where it begins, absolute. The sandbox's working directory when absent. */
  cwd?: string | null;
  /** Environment, over the sandbox's. */
  env?: Record<string, string>;
  /** Its name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`. Chosen at random when absent. */
  id?: string | null;
  language?: Language | null;
  /** After so long its runs are interrupted, unless they say. Never when absent. */
  timeout_ms?: number | null;
  /** Whom it runs as. The sandbox's user when absent. */
  user?: string | null;
}

/** A sandbox to make. */
export interface CreateSandbox {
  /** Working directory of commands, absolute; made when missing. The image's, or `/workspace` for `host`. */
  cwd?: string | null;
  /** Whether files survive a crash of the host. */
  durability?: Durability;
  /** Environment of every command, over the image's. */
  env?: Record<string, string>;
  /** Host name inside. `sandbox` when absent. */
  hostname?: string | null;
  /** Its name: 1 to 40 of `a-z`, `0-9` and `-`. Chosen at random when absent. Creating the same id again with the same specification returns the sandbox that is there; with another one it is refused. Credentials are not compared. */
  id?: string | null;
  /** Reference or digest of an image in the store, or `host`: the host's own /usr, read-only. */
  image?: string;
  /** The caller's own notes; sandboxes can be listed by them. */
  labels?: Record<string, string>;
  /** When it rests and ends by itself. Never when absent. */
  lifecycle?: Lifecycle;
  /** What is mounted in it from the beginning, as by `POST …/mounts`. */
  mounts?: AddMount[];
  network?: NetworkPolicy | null;
  /** What the kernel offers inside. */
  profile?: Profile;
  /** Limits. One that is asked for and that this host cannot enforce is refused. */
  resources?: ResourceLimits;
  /** A snapshot that its files begin as, with the image that is of; `image` is then left out. Environment, working directory and user are the snapshot's unless they are given. */
  snapshot?: string | null;
  /** Background processes that are started when it is created and each time that it is woken or started again, in this order. One that cannot be started when it is created is refused, and the sandbox with it. */
  startup?: StartupProcess[];
  /** Whom commands run as: `user`, `uid`, `user:group` or `uid:gid` of the image. The image's when absent. */
  user?: string | null;
}

/** A session to make. */
export interface CreateSession {
  /** Where its shell begins, absolute. The sandbox's working directory when absent. */
  cwd?: string | null;
  /** Environment, over the sandbox's. */
  env?: Record<string, string>;
  /** Its name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`. Chosen at random when absent. */
  id?: string | null;
  /** Whom it runs as. The sandbox's user when absent. */
  user?: string | null;
}

/** A snapshot to make. */
export interface CreateSnapshot {
  /** Globs of what in the directory is left out: those with a `/` in them or before them are for paths below it, others for names; those that end with one are for directories alone. At most 64. */
  exclude?: string[];
  /** Leave out what `.gitignore` files in the directory say. */
  gitignore?: boolean;
  /** The caller's own notes. */
  labels?: Record<string, string>;
  /** For people; up to 256 bytes. */
  name?: string | null;
  /** One directory of the sandbox, instead of all files. */
  path?: string | null;
  /** Delete it so many milliseconds after it was made. Never when absent. */
  ttl_ms?: number | null;
}

/** The daemon and its host. */
export interface DaemonInfo {
  /** Of this interface. */
  api: string;
  /** Who the daemon takes the caller for. */
  caller: CallerInfo;
  /** What the host offers. */
  host: Host;
  preview?: PreviewInfo | null;
  /** How many sandboxes the caller sees. */
  sandboxes: number;
  /** Of Stockade. */
  version: string;
}

/** What a sandbox's own files take on disk, those of its image not included. */
export interface DiskUsage {
  /** Whether all of it was seen: not when it is nested too deep or counting it took too long. */
  complete: boolean;
  /** Files, directories and links. */
  files: number;
  /** The limit on bytes. */
  limit_bytes?: number | null;
  /** The limit on files. */
  limit_files?: number | null;
  /** What counts: `project-quota`, `tmpfs`, or `files`: each was looked at. */
  source: string;
  /** Bytes. */
  used_bytes: number;
}

/** Whether files survive a crash of the host. */
export type Durability = "volatile" | "durable";

/** How bytes are written in a JSON string. */
export type Encoding = "utf-8" | "base64";

/** A sandbox's variables. */
export interface Environment {
  /** By name. */
  env: Record<string, string>;
}

/** An error, as every route answers it. */
export interface ErrorBody {
  /** Which of the closed list. */
  code: ErrorCode;
  /** The field, id or value it is about. */
  context?: Record<string, unknown> | null;
  /** What to do about it. */
  hint?: string | null;
  /** What happened. */
  message: string;
  /** The request, as the header `x-request-id` and the daemon's log name it. */
  request_id: string;
}

/** Why a request was refused or failed. Part of the API: codes are added, never renamed. */
export type ErrorCode = "INVALID_REQUEST" | "INVALID_ID" | "INVALID_REFERENCE" | "BODY_TOO_LARGE" | "UNSUPPORTED_MEDIA_TYPE" | "ROUTE_NOT_FOUND" | "METHOD_NOT_ALLOWED" | "SANDBOX_NOT_FOUND" | "SANDBOX_CONFLICT" | "SANDBOX_BUSY" | "SANDBOX_DEAD" | "STOP_UNSUPPORTED" | "COMMAND_NOT_FOUND" | "PROCESS_NOT_FOUND" | "PROCESS_CONFLICT" | "PROCESS_EXITED" | "STDIN_CLOSED" | "WAIT_TIMEOUT" | "SESSION_NOT_FOUND" | "SESSION_EXISTS" | "SESSION_ENDED" | "SESSION_BUSY" | "CONTEXT_NOT_FOUND" | "RUN_NOT_FOUND" | "CONTEXT_EXISTS" | "CONTEXT_BUSY" | "INPUT_NOT_WANTED" | "LANGUAGE_NOT_IN_IMAGE" | "TERMINAL_NOT_FOUND" | "TERMINAL_EXISTS" | "TERMINAL_ENDED" | "RECORDING_NOT_FOUND" | "RECORDING_LIMIT" | "COMMAND_NOT_IN_IMAGE" | "COMMAND_NOT_EXECUTABLE" | "INVALID_CWD" | "USER_NOT_FOUND" | "PROCESS_LIMIT" | "FILE_NOT_FOUND" | "FILE_EXISTS" | "IS_DIRECTORY" | "NOT_DIRECTORY" | "DIRECTORY_NOT_EMPTY" | "FILE_NOT_REGULAR" | "FILE_DENIED" | "PATH_INVALID" | "PRECONDITION_FAILED" | "RANGE_NOT_SATISFIABLE" | "DISK_FULL" | "FILE_TOO_LARGE" | "FILE_BUSY" | "CROSS_DEVICE" | "ARCHIVE_INVALID" | "FILE_TIMEOUT" | "FILES_UNAVAILABLE" | "WATCH_LIMIT" | "PORT_CLOSED" | "PORT_NOT_EXPOSED" | "INVALID_TOKEN" | "STALE_PREVIEW_URL" | "PREVIEW_HOST_UNKNOWN" | "SERVICE_TIMEOUT" | "SERVICE_FAILED" | "SNAPSHOT_NOT_FOUND" | "SNAPSHOT_UNSUPPORTED" | "SNAPSHOT_MISMATCH" | "KEY_INVALID" | "IMAGE_NOT_FOUND" | "IMAGE_IN_USE" | "IMAGE_INVALID" | "PLATFORM_NOT_FOUND" | "REGISTRY_DENIED" | "REGISTRY_NOT_FOUND" | "REGISTRY_UNREACHABLE" | "GIT_NOT_IN_IMAGE" | "GIT_REPOSITORY_NOT_FOUND" | "GIT_BRANCH_NOT_FOUND" | "GIT_DENIED" | "GIT_UNREACHABLE" | "GIT_DESTINATION_NOT_EMPTY" | "GIT_TIMEOUT" | "GIT_FAILED" | "MOUNT_NOT_FOUND" | "MOUNT_IN_USE" | "MOUNT_POINT_INVALID" | "DIRECTORY_DENIED" | "BUCKET_NOT_FOUND" | "BUCKET_DENIED" | "BUCKET_UNREACHABLE" | "BUCKET_WRONG_REGION" | "BUCKET_BAD_CERTIFICATE" | "BUCKET_NOT_S3" | "LIMIT_UNSUPPORTED" | "LIMIT_BELOW_USE" | "HOST_UNSUPPORTED" | "QUOTA_EXCEEDED" | "CAPACITY_EXHAUSTED" | "PERMISSION_DENIED" | "ISOLATION_MISMATCH" | "SHUTTING_DOWN" | "INTERNAL";

/** A decision. */
export interface Event {
  /** The address, if there is one. */
  address?: string | null;
  /** What was decided. */
  allowed: boolean;
  /** How often in a row the very same decision was made. */
  count: number;
  /** The smallest change of the policy that would allow it. */
  fix?: string | null;
  /** The name, if one is known. */
  host?: string | null;
  /** The port, if there is one. */
  port?: number | null;
  /** What was spoken, as far as it was looked at: `http`, `https` in TLS that was opened, `tls`, `other` or `dns`. */
  protocol: string;
  /** The rule that made it. */
  rule: string;
  /** Its number; later ones are larger. */
  seq: number;
  /** About what. */
  subject: Subject;
  /** When it was made last, in milliseconds since 1970. */
  time_ms: number;
}

/** What has happened. */
export interface EventList {
  /** The oldest first. */
  events: Happened[];
  /** Whether some before these are gone: the daemon remembers the last 8192 of everybody's. */
  lost: boolean;
  /** What to give as `after` for those that follow. */
  next: number;
}

/** Events were missed, or are not remembered any more. */
export interface EventsLost {
  /** The last one that the listener had. */
  after: number;
}

/** What the files become. */
export type ExportFormat = "oci" | "tar";

/** A port to expose. */
export interface ExposePort {
  /** What it is called in lists. */
  name?: string | null;
  /** Its number inside the sandbox, 1 to 65535. */
  port: number;
  /** Its token: 1 to 16 of `a-z`, `0-9` and `_`. Whoever guesses it may use the port. Chosen at random when absent, with 80 bits. */
  token?: string | null;
  /** How many milliseconds a request waits for somebody to listen, instead of being answered 502 at once; up to 60000. */
  wait_ms?: number | null;
}

/** An exposed port and where it is reached. */
export type ExposedPort = PortView & { url?: string | null };

/** What a log holds. */
export interface Extent {
  /** How many bytes of stderr are gone. */
  dropped_stderr_bytes: number;
  /** How many bytes of stdout are gone. */
  dropped_stdout_bytes: number;
  /** Cursor behind the newest byte. */
  end_cursor: number;
  /** Cursor of the oldest byte that is kept. */
  start_cursor: number;
}

/** Whether a file is there. */
export interface FileExists {
  /** Whether it is. */
  exists: boolean;
  type?: FileType | null;
}

/** What a file is. */
export interface FileInfo {
  /** Last change of anything (RFC 3339). */
  changed_at: string;
  /** The version, as in the header `etag`. */
  etag: string;
  /** Group. */
  gid: number;
  /** Names (hard links). */
  links: number;
  /** Media type: by name, and where that says nothing and the content was looked at, by content. */
  mime?: string | null;
  /** Permissions, octal. */
  mode: string;
  /** Last change of content (RFC 3339). */
  modified_at: string;
  /** As asked for; in a list below the directory that is listed. */
  path: PathText;
  /** Bytes. */
  size: number;
  target?: PathText | null;
  /** What kind. */
  type: FileType;
  /** Owner. */
  uid: number;
}

/** A page of a directory. */
export interface FileList {
  /** Gives the next page; absent at the end. */
  cursor?: string | null;
  /** In the order of their paths' bytes, each directory before what is in it. */
  entries: FileInfo[];
  /** Directories that could not be read. */
  unreadable: number;
}

/** Kinds of files. */
export type FileType = "file" | "directory" | "symlink" | "fifo" | "socket" | "device";

/** Sandboxes that were made of another. */
export interface ForkList {
  /** In the order of `ids`. */
  sandboxes: SandboxView[];
}

/** Sandboxes to make of another. */
export interface ForkSandbox {
  /** How many; as many as there are `ids`, or one, when absent. */
  count?: number | null;
  /** Their names. Chosen at random where there are fewer than `count`. */
  ids?: string[];
  /** Their labels; the parent's when absent. */
  labels?: Record<string, string> | null;
}

/** Something that has happened. */
export interface Happened {
  /** When (RFC 3339). */
  at: string;
  /** More about it. */
  data?: Record<string, unknown>;
  /** Whose it is. */
  owner_uid: number;
  /** To which sandbox; absent for what is the host's. */
  sandbox?: string | null;
  /** Its number. Numbers grow, and need not follow each other. */
  seq: number;
  /** What. */
  type: Kind;
}

/** A header whose value the sandbox does not see. */
export interface HeaderCredential {
  /** Its name. */
  name: string;
  /** Its value. Never shown again; a change of the policy that leaves it out keeps it. */
  value?: string | null;
}

/** The daemon lives. */
export interface Health {
  /** `ok`. */
  status: string;
}

/** What launch found on this host. */
export interface Host {
  /** Kernel release (`uname -r`). */
  kernel: string;
  /** Landlock ABI; 0 is none. */
  landlock_abi: number;
  /** Limit by name: what would enforce it here; absent ones cannot be enforced. */
  limits: Record<string, string>;
  /** Limits that the defaults want and this host cannot enforce. */
  unenforced: string[];
}

/** An image that can be run: all its layers are in the store. */
export interface Image {
  /** How to run it. */
  config: ImageConfig;
  /** Digest of the configuration. */
  config_digest: string;
  /** When it was made, as it says (RFC 3339). */
  created?: string | null;
  /** Digest of the manifest. */
  digest: string;
  /** Its layers, the lowest first. */
  layers: Layer[];
  /** Uid that gave it its name. Everybody may use it; nobody else but root and operators replace or remove it. */
  owner_uid?: number;
  /** What it runs on. */
  platform: Platform;
  /** When it came here (RFC 3339). */
  pulled_at: string;
  /** Its name in full, or its digest when it has none. */
  reference: string;
  /** Bytes of its layers' blobs, compressed as they came. */
  size_bytes: number;
}

/** What an image says about running it. */
export interface ImageConfig {
  /** Default command line. */
  cmd: string[];
  /** Program and arguments that a command line is appended to. */
  entrypoint: string[];
  /** Environment, `NAME=value`. */
  env: string[];
  /** User, and group after a colon, by name or number; "" is root. */
  user: string;
  /** Working directory; "" is `/`. */
  working_dir: string;
}

/** Images. */
export interface ImageList {
  /** What sandboxes can be made of without any image in the store. Their names are taken. */
  built_in?: BuiltInImage[];
  /** By reference. */
  images: Image[];
}

/** What a sandbox was made from. */
export interface ImageView {
  /** The manifest's digest; `host` has none. */
  digest?: string | null;
  /** As asked for. */
  reference: string;
}

/** Disk traffic since the sandbox was started last. */
export interface IoUsage {
  /** Read from the disk. */
  read_bytes?: number | null;
  /** Read operations. */
  read_operations?: number | null;
  /** What counts: `cgroup-v2`, or `processes`: theirs and those of the ended ones that were waited for. */
  source?: string | null;
  /** Write operations. */
  write_operations?: number | null;
  /** Written to it, or to be. */
  written_bytes?: number | null;
}

/** What a sandbox really got, read back from the kernel after it was made. */
export interface Isolation {
  /** Whether they survive a crash of the host. */
  durability: Durability;
  /** Length of the range. */
  host_id_count: number;
  /** First host uid and gid of the sandbox's range. */
  host_id_first: number;
  /** Landlock ABI that is enforced. */
  landlock_abi: number;
  /** Limit by name: what is enforced, and by what. */
  limits: Record<string, Limit>;
  /** Namespace inode numbers by kind (`/proc/PID/ns`), none of them the host's. */
  namespaces: Record<string, number>;
  /** `no_new_privs` of the processes that commands come from. */
  no_new_privs: boolean;
  /** The profile. */
  profile: Profile;
  /** What this profile allows beyond `default`, in words. */
  relaxations: string[];
  /** Capabilities that in-sandbox root can have; other users have none. */
  root_capabilities: string[];
  /** Seccomp mode of the same: 2 is a filter. */
  seccomp_mode: number;
  /** Where the writable files are: `directory`, `tmpfs` or `loop`. */
  storage: string;
}

/** What can happen. */
export type Kind = "sandbox.created" | "sandbox.woken" | "sandbox.stopped" | "sandbox.paused" | "sandbox.resumed" | "sandbox.died" | "sandbox.destroyed" | "sandbox.restored" | "sandbox.forked" | "sandbox.exported" | "command.started" | "command.exited" | "process.started" | "process.exited" | "memory.exhausted" | "limits.changed" | "lifecycle.changed" | "network.changed" | "port.exposed" | "port.revoked" | "mount.added" | "mount.removed" | "snapshot.created" | "snapshot.deleted" | "image.pulled" | "image.imported" | "image.committed" | "image.removed";

/** A language that contexts can be in. */
export type Language = "python" | "javascript" | "typescript" | "bash";

/** One layer of an image. */
export interface Layer {
  /** SHA-256 of the tar in it: the layer's name in the store. */
  diff_id: string;
  /** SHA-256 of the blob. */
  digest: string;
  /** Bytes of the blob. */
  size_bytes: number;
}

/** When a sandbox ends or rests by itself. */
export interface Lifecycle {
  /** Stop it when nobody has used it for so many milliseconds, those that it is paused not counted. The next call that needs it wakes it. Never when absent. */
  idle_timeout_ms?: number | null;
  /** Do neither, whatever the other two say. */
  keep_alive?: boolean;
  /** Background processes that run are use. */
  processes_hold?: boolean;
  /** Destroy it so many milliseconds after its creation. Never when absent. */
  ttl_ms?: number | null;
}

/** One limit as the kernel has it. */
export interface Limit {
  /** What enforces it: `cgroup-v2`, `cgroup-v1`, `tmpfs`, `project-quota`, `loop`, or `none`. */
  enforced_by: string;
  /** The value read back; absent means unlimited. */
  value?: number | null;
}

/** One limit that differs. */
export interface LimitChange {
  /** What it is now. */
  after?: number | null;
  /** What it was; absent for none. */
  before?: number | null;
  /** Its name, as in `isolation.limits`. */
  limit: string;
}

/** A line: the record, and its hash. */
export interface Line {
  /** SHA-256 of the record's bytes. */
  hash: string;
  /** The record. */
  record: AuditRecord;
}

/** An archive in a bucket, for images. */
export interface LoadImage {
  /** The identity of age that it is encrypted to, `AGE-SECRET-KEY-1…`; never kept or logged. */
  identity?: string | null;
  /** Where it is. */
  object: BucketObject;
  /** The image's reference here. Without it, what the archive says. */
  reference?: string | null;
  /** It is a tar of files, and no archive of images. */
  rootfs?: boolean;
}

/** Data of the event `dropped`: the reader was slower than the process for too long. */
export interface LogDropped {
  /** How many bytes are not there any more. */
  bytes: number;
}

/** Bytes of one stream. Also the data of the events `stdout` and `stderr` of a followed log. */
export interface LogEntry {
  /** Cursor of the first byte. */
  cursor: number;
  /** The bytes. */
  data: string;
  /** How they are written here. */
  encoding: Encoding;
  /** Which stream. */
  stream: Stream;
}

/** A line that was found. */
export interface LogMatch {
  /** Cursor behind the bytes that were looked at: to go on from there. */
  cursor: number;
  /** What the groups of the expression matched, the whole match first. */
  groups?: (string | null)[];
  /** The line, without its end; what is not UTF-8 in it is replaced. */
  line: string;
  /** Where. */
  stream: Stream;
}

/** Part of a log. */
export interface LogPart {
  /** Bytes between the cursor that was asked for and the first entry that are not there any more. */
  dropped_bytes: number;
  /** What was written, in the order in which it was read. */
  entries: LogEntry[];
  /** Whether there is more already. */
  more: boolean;
  /** Where to go on. */
  next_cursor: number;
  /** Whether the process runs: then there may be more later. */
  running: boolean;
}

/** A directory to make. */
export interface MakeDirectory {
  /** Permissions, octal; 0755 when absent. */
  mode?: string | null;
  /** Whether missing ones above it are made too, and it may be there. */
  parents?: boolean;
  /** Which. */
  path: PathText;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** A symbolic link to make. */
export interface MakeSymlink {
  /** Where it is. */
  path: PathText;
  /** What it says; need not exist. */
  target: PathText;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** Memory now. */
export interface MemoryUsage {
  /** Memory of programs. */
  anonymous_bytes?: number | null;
  /** All that counts against the limit, files that the kernel keeps for later included. */
  current_bytes?: number | null;
  /** Contents of files, which the kernel can forget. */
  file_bytes?: number | null;
  /** The kernel's own, on the sandbox's behalf: page tables, stacks, buffers of sockets. */
  kernel_bytes?: number | null;
  /** The limit. */
  limit_bytes?: number | null;
  /** Processes killed because the limit was reached. */
  oom_kills?: number | null;
  /** The most that it was since the sandbox was started last. */
  peak_bytes?: number | null;
  /** Shared memory and files in /dev/shm. */
  shared_bytes?: number | null;
  /** What counts: `cgroup-v2`, `cgroup-v1`, or `processes`: their resident memory added up, in which what two of them share is twice. */
  source?: string | null;
  /** Written out to swap. */
  swap_bytes?: number | null;
}

/** What happens to what no rule names. */
export type Mode = "none" | "allow" | "all";

/** Who asks a bucket's server: a key, or one of the other three. */
export interface MountCredentials {
  /** A key's name. */
  access_key_id?: string | null;
  /** Nobody: requests are not signed. */
  anonymous?: boolean;
  /** Those of the daemon's environment, if the operator lends them (`mounts.environment`). */
  environment?: boolean;
  /** A profile of the operator's file (`mounts.credentials_file`): a key, or a role and the file of a web identity's token. Read again when the server refuses its key, or before that ends. */
  profile?: string | null;
  /** The key. */
  secret_access_key?: string | null;
  /** For keys that end. */
  session_token?: string | null;
}

/** Mounts. */
export interface MountList {
  /** By name. */
  mounts: MountView[];
}

/** How a mount goes. */
export type MountState = "mounted" | "mounting" | "failed" | "stopped";

/** What a bucket's worker counts, since it was started last. */
export interface MountStatus {
  /** Bytes of objects that were received. */
  bytes_read: number;
  /** Bytes of objects that were sent. */
  bytes_written: number;
  /** Bytes in the cache on disk, without those. */
  cache_bytes: number;
  /** Bytes in them. */
  dirty_bytes: number;
  /** Files that are not in the bucket yet. */
  dirty_files: number;
  /** Uploads that have failed and are tried again. */
  failing_uploads: number;
  /** Requests to the server. */
  requests: number;
  /** Of them, those that were sent again after a failure. */
  retries: number;
}

/** Why a mount has failed. */
export interface MountTrouble {
  /** Which of the closed list. */
  code: ErrorCode;
  /** In words. */
  message: string;
}

/** A mount of a sandbox. */
export interface MountView {
  /** Where the bucket's name goes: `path` or `host`. */
  addressing?: string | null;
  /** The bucket; absent for a directory. */
  bucket?: string | null;
  /** Where its credentials come from: `request`, `environment`, `profile NAME` or `anonymous`. They are never shown. */
  credentials?: string | null;
  /** Whose server it is on: a URL, or `file://` and a directory of the host. */
  endpoint: string;
  error?: MountTrouble | null;
  /** Group of what is in it. */
  gid: number;
  /** Its name in the sandbox. */
  id: string;
  /** Where it is. */
  path: string;
  /** What every key begins with. */
  prefix?: string | null;
  /** Whether nothing can be changed in it. */
  read_only: boolean;
  /** As in the scope of signatures. */
  region?: string | null;
  /** How it goes. */
  state: MountState;
  status?: MountStatus | null;
  /** Owner of what is in it. */
  uid: number;
}

/** What a change changes. */
export interface NetworkChange {
  /** What is new, as `allow RULE`, `deny RULE`, `mode MODE`, `host HOST …`, `credential HOST` for another one than before, or `intercept NAME`. */
  added: string[];
  /** What was tried lately and is decided otherwise now. */
  affected: NetworkEffect[];
  /** Whether it was only a question. */
  dry_run: boolean;
  /** The policy afterwards. */
  policy: NetworkPolicy;
  /** What is gone. */
  removed: string[];
  /** What could not be done inside the sandbox so that its programs trust the authority of TLS that is opened. The policy is in force all the same. */
  warnings?: string[];
}

/** Something that was tried and is decided otherwise now. */
export interface NetworkEffect {
  /** What it becomes. */
  allowed: boolean;
  /** By which rule. */
  rule: string;
  /** About what. */
  subject: Subject;
  /** `host:port`, a name, or an address. */
  target: string;
}

/** Decisions about a sandbox. */
export interface NetworkEvents {
  /** The oldest first. */
  events: Event[];
  /** What to give as `after` for those that follow. */
  next: number;
}

/** A host for whose requests the gateway does more than to let them pass.  It needs no rule in `allow`: requests to `http://HOST/` are allowed by it, and to `https://HOST/` if `intercept` names it. `deny` wins all the same. */
export interface NetworkHost {
  aws?: AwsCredential | null;
  basic?: BasicCredential | null;
  /** Requests go to the Unix socket of this name in the operator's directory (`network.handlers`), over HTTP/1.1, and nowhere else; the host need not exist. `x-stockade-sandbox` and `x-stockade-original-url` say where they began. */
  handler?: string | null;
  header?: HeaderCredential | null;
  /** Its name, without `*`. */
  host: string;
  /** Requests to `http://HOST/` leave over verified TLS, to port 443; those to another port, to that port. On by itself with a credential. */
  upgrade?: boolean;
}

/** How much may leave a sandbox. */
export interface NetworkLimits {
  /** Bytes per second, both directions together. No limit when absent. */
  bytes_per_second?: number | null;
  /** Connections at the same time; 256 when absent. */
  connections?: number | null;
  /** New connections per second; 100 when absent. Ten seconds' worth may come at once. */
  connections_per_second?: number | null;
}

/** What may leave a sandbox, as text. */
export interface NetworkPolicy {
  /** Rules `[PROTOCOL://]WHOM[:PORTS]`: PROTOCOL is `tcp`, `http` or `https`; WHOM a name, `*.name`, an address or a range; PORTS like `443`, `8000-8100` or `80,443`. Addresses that are not public must be opened by an operator (`network.open`) as well. */
  allow?: string[];
  /** The same. Wins over everything. */
  deny?: string[];
  /** Hosts whose requests get a credential, go over TLS, or go to a handler. Each once. */
  hosts?: NetworkHost[];
  /** Names, like those of rules, whose TLS the gateway opens, so that it sees requests as it does those of plain HTTP; `*` is all. The sandbox gets a certificate authority of its own, and variables by which curl, Python, Node and git find it, in what is started from then on, unless they are set already. An image without certificates of its own trusts this one alone by them. HTTP/1.1 alone is spoken there, and clients that trust only what they bring refuse it. */
  intercept?: string[];
  /** How much of it. */
  limits?: NetworkLimits;
  mode?: Mode | null;
}

/** What went through the gateway. Nothing else leaves a sandbox; what its processes say to each other is not counted. */
export interface NetworkUsage {
  /** Connections and requests that were allowed. */
  allowed: number;
  /** Connections that are open. */
  connections_open: number;
  /** Those that were refused, questions for names included. */
  denied: number;
  /** Bytes into it. */
  received_bytes: number;
  /** Bytes out of the sandbox. */
  sent_bytes: number;
}

/** A sandbox's network. */
export interface NetworkView {
  /** What has left, and what has not, since the daemon was started. */
  counters: Counters;
  /** What may leave. */
  policy: NetworkPolicy;
}

/** What becomes of a process that has ended. */
export type OnExit = "keep" | "remove";

/** A terminal to open. */
export interface OpenTerminal {
  /** Program and arguments. Without them bash, or `/bin/sh` where there is none. */
  argv?: string[] | null;
  /** Width, in characters. */
  columns?: number;
  /** Working directory, absolute. The session's, or the sandbox's, when absent. */
  cwd?: string | null;
  /** Environment, over the session's or the sandbox's. `TERM` is `xterm-256color` when nobody says. */
  env?: Record<string, string>;
  /** Its name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`. Chosen at random when absent. */
  id?: string | null;
  record?: RecordSetting | null;
  /** Height, in characters. */
  rows?: number;
  /** The session whose directory and exported variables it begins with, as they are now. */
  session?: string | null;
  /** Whom it runs as. The session's user, or the sandbox's, when absent. */
  user?: string | null;
}

/** Data of the events `stdout` and `stderr`. */
export interface OutputEvent {
  /** The bytes. */
  data: string;
  /** How they are written here. */
  encoding: Encoding;
}

/** A path or a name: text where it is UTF-8, else its bytes. */
export type PathText = string | { base64: string };

/** Processes and threads now. */
export interface PidsUsage {
  /** Now, two of the sandbox's own included. */
  current?: number | null;
  /** The limit. */
  limit?: number | null;
  /** The most since the sandbox was started last. */
  peak?: number | null;
  /** What counts: `cgroup-v2`, `cgroup-v1` or `processes`. */
  source?: string | null;
}

/** Operating system and processor, in the names of Go (`GOOS`, `GOARCH`), as image indexes write them. */
export interface Platform {
  /** "amd64", "arm64" … */
  architecture: string;
  /** "linux". */
  os: string;
  /** "v7" …, where the architecture has several. Not left out when absent: postcard knows fields by position. */
  variant?: string | null;
}

/** Exposed ports. */
export interface PortList {
  /** By number. */
  ports: ExposedPort[];
}

/** A port that answered. */
export interface PortMatch {
  /** Its number. */
  port: number;
  /** Status of the answer to the request, if there was one. */
  status?: number | null;
}

/** An exposed port. */
export interface PortView {
  /** Since when it has this token (RFC 3339). */
  exposed_at: string;
  /** What it is called. */
  name?: string | null;
  /** Its number inside the sandbox. */
  port: number;
  /** Whoever knows it may use the port. */
  token: string;
  /** How many milliseconds a request waits for somebody to listen. */
  wait_ms: number;
}

/** Where browsers reach exposed ports. */
export interface PreviewInfo {
  /** The URL before whose host name each preview has a name of its own. */
  url: string;
}

/** A background process. */
export type Process = ProcessView & { signal?: string | null };

/** Processes of a sandbox. */
export interface ProcessList {
  /** The oldest first. */
  processes: Process[];
}

/** How a process is. */
export type ProcessState = "running" | "exited" | "failed" | "lost";

/** A background process. */
export interface ProcessView {
  /** Program and arguments. */
  argv: string[];
  /** Where it was started. */
  cwd: string;
  /** From its start to its end, or to now, in milliseconds. */
  duration_ms: number;
  /** When it ended. */
  ended_at?: string | null;
  /** As shells say it: the code, or 128 + n after signal n. */
  exit_code?: number | null;
  failure?: ErrorCode | null;
  /** Its id. */
  id: string;
  /** What is kept of its output. */
  log: Extent;
  /** How much of its output is kept at most. */
  log_bytes_max: number;
  /** What becomes of it when it has ended. */
  on_exit: OnExit;
  /** Pid of its first process, as seen in the sandbox. */
  pid: number;
  /** When it was started (RFC 3339). */
  started_at: string;
  /** How it is. */
  state: ProcessState;
  /** Whether its stdin can be written to. */
  stdin_open: boolean;
  /** Whether it was killed because its time was up. */
  timed_out: boolean;
  /** After so long it and everything that it started are killed. */
  timeout_ms?: number | null;
  usage?: CommandUsage | null;
  /** Whom it runs as. */
  user: string;
}

/** What was killed. */
export interface ProcessesKilled {
  /** How many processes ran. */
  killed: number;
}

/** Isolation profile (security.md §1.5): `hardened` < `default` < `compat` in what the kernel offers inside. */
export type Profile = "default" | "hardened" | "compat";

/** A question of the code's. */
export interface Prompt {
  /** Whether the answer should not be seen. */
  password: boolean;
  /** What it asks. */
  prompt: string;
}

/** An image to fetch from a registry. */
export interface PullImage {
  /** Certificates to trust beside the host's, PEM. */
  ca_pem?: string | null;
  /** Sent to the registry's token server, or to the registry; never kept or logged. */
  password?: string | null;
  /** HTTP without TLS; only for registries on loopback, unless the daemon's configuration names them. */
  plain_http?: boolean;
  /** `os/architecture`. This host's when absent. */
  platform?: string | null;
  /** `[registry/]repository[:tag][@digest]`. */
  reference: string;
  /** A bearer token instead; never kept or logged. */
  token?: string | null;
  /** For registries that want a name and a password. */
  username?: string | null;
}

/** A registry to send an image to. */
export interface PushSandbox {
  /** Certificates to trust beside the host's, PEM. */
  ca_pem?: string | null;
  /** Sent to the registry's token server, or to the registry; never kept or logged. */
  password?: string | null;
  /** HTTP without TLS. */
  plain_http?: boolean;
  /** `[registry/]repository[:tag]`. */
  reference: string;
  /** A bearer token instead; never kept or logged. */
  token?: string | null;
  /** For registries that want a name and a password. */
  username?: string | null;
}

/** What a registry has. */
export interface Pushed {
  /** Digest of its manifest. */
  digest: string;
  /** Its name there, in full. */
  reference: string;
  /** Bytes of its layers and its configuration. */
  size_bytes: number;
}

/** What a user has, and may have. */
export interface QuotaView {
  /** Limits on processors of those that run, in thousandths of one. */
  cpu_millis: Share;
  /** Limits on disk space of all of them, in bytes. */
  disk_bytes: Share;
  /** Layers of images whose names are theirs, each layer once, compressed as they came, in bytes. */
  image_bytes: Share;
  /** Limits on memory of those that run, added up, in bytes. */
  memory_bytes: Share;
  /** Sandboxes, whatever their state. */
  sandboxes: Share;
  /** What they take on the disk, as they say it themselves, in bytes. */
  snapshot_bytes: Share;
  /** Snapshots, of all files and of directories. */
  snapshots: Share;
  /** Whose. */
  uid: number;
}

/** Bytes as they are, of any length. */
export type RawBytes = string;

/** How something is recorded. */
export interface RecordOptions {
  /** Also what is typed, or read from stdin. Passwords are typed too, and are not shown on the terminal. */
  input?: boolean;
}

/** Whether, and how, something is recorded. */
export type RecordSetting = boolean | RecordOptions;

/** Recordings of a sandbox. */
export interface RecordingList {
  /** The oldest first. */
  recordings: RecordingView[];
}

/** A recording. */
export interface RecordingView {
  /** Width at the beginning, in characters. */
  columns: number;
  /** When it began (RFC 3339). */
  created_at: string;
  /** From there to the last event, in milliseconds. */
  duration_ms: number;
  /** Its id. */
  id: string;
  /** Whether what was typed is in it. */
  input: boolean;
  /** How many bytes came when it was full, and are not in it. Its last event says so too. */
  left_out_bytes: number;
  /** What was run, without its arguments. */
  program: string;
  /** Whether it goes on. */
  recording: boolean;
  /** Height at the beginning, in characters. */
  rows: number;
  /** Length of the file. */
  size_bytes: number;
  /** The terminal that it is of; absent when it is of a command. */
  terminal?: string | null;
}

/** Something to remove. */
export interface RemoveFile {
  /** Whether it may be absent. */
  missing_ok?: boolean;
  /** What. Of a symbolic link the link itself. */
  path: PathText;
  /** Whether a directory that is not empty, with all that is in it. */
  recursive?: boolean;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** A new name. */
export interface RenameFile {
  /** From. */
  from: PathText;
  /** Whether what is there may be replaced. */
  overwrite?: boolean;
  /** To. */
  to: PathText;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** Limits of a sandbox. Absent ones take the daemon's default, if the host can enforce it; 0 lifts a default. */
export interface ResourceLimits {
  /** Share of the processors under contention. */
  cpu_weight?: number | null;
  /** Processors; 1.5 is one and a half. */
  cpus?: number | null;
  /** Bytes that the sandbox's files may take on disk. */
  disk_bytes?: number | null;
  /** Files that it may have. */
  disk_files?: number | null;
  /** Reading from the disk under the sandbox's files. */
  io_read_bytes_per_second?: number | null;
  /** Read operations. */
  io_read_operations_per_second?: number | null;
  /** Writing to it. */
  io_write_bytes_per_second?: number | null;
  /** Write operations. */
  io_write_operations_per_second?: number | null;
  /** Memory in bytes, kernel memory included. */
  memory_bytes?: number | null;
  /** Processes and threads. */
  pids?: number | null;
  /** Swap in bytes, beside memory. */
  swap_bytes?: number | null;
  /** Bytes of /dev/shm, which counts as memory. */
  tmpfs_bytes?: number | null;
}

/** What a change of limits changes. */
export interface ResourcesChange {
  /** What differs. */
  changes: LimitChange[];
  /** Whether it was only a question. */
  dry_run: boolean;
  /** The limits afterwards, and what enforces each. */
  limits: Record<string, Limit>;
  /** What will surprise somebody in the sandbox. */
  warnings: string[];
}

/** What a sandbox's files are to be. */
export interface RestoreSandbox {
  /** Where a snapshot of a directory goes; where it was when absent. */
  path?: string | null;
  /** The snapshot. */
  snapshot: string;
}

/** Something that a run shows. Data of the events `display` and `result`. */
export interface RichOutput {
  /** Whether it was shown by what earlier runs have left behind. */
  background?: boolean;
  /** By MIME type; images and PDF in base64. Beside what notebooks know: `application/vnd.stockade.dataframe+json` (columns, rows, how many there are) and `application/vnd.stockade.chart+json` (what is drawn, as numbers). */
  data: Record<string, unknown>;
  /** Whether it is the value of the cell. In a collected result only. */
  main?: boolean;
  /** What the code says about it. */
  metadata: Record<string, unknown>;
  /** `display_id` of a display that may be changed later. */
  transient: Record<string, unknown>;
  /** MIME types that were cut or left out because they were too large. */
  truncated: string[];
  /** Whether it takes the place of the one with its `display_id`. */
  update: boolean;
}

/** Where a sandbox is to go back to. */
export interface RollBackSandbox {
  /** One of its own snapshots; the latest when absent. */
  snapshot?: string | null;
}

/** A cell to run. */
export interface RunCode {
  /** The cell. */
  code: string;
  /** Working directory for this run alone. */
  cwd?: string | null;
  /** Whether it goes on whatever the client does. Without events the answer comes when its turn has come, and says only which run it is; what came of it is at `GET …/runs/{run}`. */
  detach?: boolean;
  /** Environment for this run alone, over the context's. */
  env?: Record<string, string>;
  /** How much of each of stdout and stderr a collected result keeps; 8 MiB when absent. */
  output_bytes_max?: number | null;
  /** Whether somebody answers when the code asks for input: see the event `input`. Otherwise it is at its end. */
  stdin?: boolean;
  /** After so long, from its start, it is interrupted. The context's when absent. */
  timeout_ms?: number | null;
}

/** A command to run: either `argv` or `shell`. */
export interface RunCommand {
  /** Program and arguments. The program is looked up in the sandbox's `PATH` unless it holds a `/`. Arguments and environment (the sandbox's too) may have 122,880 bytes and 16,384 strings together; give more on stdin. */
  argv?: string[] | null;
  /** Working directory, absolute. The sandbox's when absent. */
  cwd?: string | null;
  /** Environment, over the sandbox's. */
  env?: Record<string, string>;
  /** How much of each of stdout and stderr the result keeps (8 MiB when absent); what comes after is read, dropped and reported as `truncated`. Streams carry everything. */
  output_bytes_max?: number | null;
  record?: RecordSetting | null;
  /** A script for `/bin/sh -c` instead. */
  shell?: string | null;
  /** What it reads, as text. Without it and without `stdin_base64`, an empty file. */
  stdin?: string | null;
  /** What it reads, as bytes. */
  stdin_base64?: string | null;
  /** After so long the command and everything it started is killed. */
  timeout_ms?: number | null;
  /** Whom it runs as. The sandbox's when absent. */
  user?: string | null;
}

/** Data of the event `started` of a run. */
export interface RunStartedEvent {
  /** The run. */
  id: string;
}

/** Sandboxes of the caller, or all of them for an operator. */
export interface SandboxList {
  /** By id. */
  sandboxes: SandboxView[];
}

/** What a sandbox uses. */
export interface SandboxStats {
  /** When this was read (RFC 3339). */
  at: string;
  /** Processor time since it was started last. */
  cpu: CpuUsage;
  disk?: DiskUsage | null;
  /** Which. */
  id: string;
  /** Disk traffic since it was started last. */
  io: IoUsage;
  /** Memory now. */
  memory: MemoryUsage;
  network?: NetworkUsage | null;
  /** Processes and threads now. */
  pids: PidsUsage;
  /** Whether it runs. One that does not uses nothing but its disk. */
  state: State;
  /** What of all this is not known, and why. */
  unmeasured: Unmeasured[];
}

/** A sandbox. */
export interface SandboxView {
  /** When it was created (RFC 3339). */
  created_at: string;
  /** Working directory of commands that do not say. */
  cwd: string;
  /** Whether its files survive a crash of the host. */
  durability: Durability;
  /** Environment of every command. */
  env: Record<string, string>;
  /** Host name inside. */
  hostname: string;
  /** Its name. */
  id: string;
  /** What it was made from. */
  image: ImageView;
  isolation?: Isolation | null;
  /** As given. */
  labels: Record<string, string>;
  /** When it rests and ends by itself. */
  lifecycle: Lifecycle;
  /** Uid of the caller that created it. */
  owner_uid: number;
  /** Host pid of its first process, while it runs. */
  pid?: number | null;
  /** Isolation profile. */
  profile: Profile;
  /** Whether it runs. */
  state: State;
  /** User of commands that do not say. */
  user: string;
}

/** How files were kept. */
export type SaveMethod = "stacked" | "reflink" | "copied" | "archived";

/** What is searched. */
export interface SearchFiles {
  /** Names, or paths if it has a slash, to look at. */
  glob?: string | null;
  /** Whether names that begin with a dot are looked at. */
  hidden?: boolean;
  /** Whether upper and lower case are the same. */
  ignore_case?: boolean;
  /** Most lines: 1000 unless given, at most 10000. */
  limit?: number | null;
  /** File or directory. */
  path: PathText;
  /** Regular expression of the Rust crate `regex`: no back-references, linear time. */
  regex?: string | null;
  /** Text to find as it is. Either this or `regex`. */
  text?: string | null;
  /** Whose rights; the sandbox's user when absent. */
  user?: string | null;
}

/** A line that matches. */
export interface SearchMatch {
  /** Bytes before the match, from 0. */
  column: number;
  /** Whether `text` is only a part. */
  cut: boolean;
  /** How `text` is written. */
  encoding: Encoding;
  /** From 1. */
  line: number;
  /** Below the directory that was searched; empty for the file itself. */
  path: PathText;
  /** The line, or a kibibyte of it around the match. */
  text: string;
}

/** What was found. */
export interface SearchResult {
  /** Of these, files with a NUL byte in their beginning, which were not searched further. */
  binary: number;
  /** Files that were opened. */
  files: number;
  /** Lines of more than a mebibyte, of which the rest was not searched. */
  long_lines: number;
  /** Lines, in the order of paths and numbers. */
  matches: SearchMatch[];
  /** Whether there were more than the limit. */
  truncated: boolean;
  /** Files and directories that could not be read. */
  unreadable: number;
}

/** A signal to send. */
export interface SendSignal {
  /** `SIGTERM`, `TERM` or 15. */
  signal: SignalName;
}

/** Sessions of a sandbox. */
export interface SessionList {
  /** By name. */
  sessions: SessionView[];
}

/** A session, in lists. */
export interface SessionView {
  /** Commands that run or wait for their turn. */
  commands: number;
  /** When it was made (RFC 3339). */
  created_at: string;
  /** Where it begins. */
  cwd: string;
  /** What it was given beside the sandbox's environment. */
  env: Record<string, string>;
  /** Its name. */
  id: string;
  /** Pid of its bash, as seen in the sandbox, while there is one: it ends with `exit`, and the next command starts another. */
  pid?: number | null;
  /** Whom it runs as. */
  user: string;
}

/** A part of what is allowed. */
export interface Share {
  /** Allowed; absent is as much as there is. */
  allowed?: number | null;
  /** Taken now. */
  used: number;
}

/** A signal by name or number. */
export type SignalName = number | string;

/** A signal to send to a process. */
export interface SignalProcess {
  /** `SIGTERM`, `TERM` or 15. */
  signal: SignalName;
  /** To all processes that it started as well, however they detached themselves. */
  tree?: boolean;
}

/** A signal to a terminal's program. */
export interface SignalTerminal {
  /** `SIGTERM`, `TERM` or 15. */
  signal: SignalName;
  /** Whether to every process that it started, too. */
  tree?: boolean;
}

/** Snapshots. */
export interface SnapshotList {
  /** The oldest first. */
  snapshots: SnapshotView[];
}

/** A snapshot. */
export interface SnapshotView {
  /** When it was made (RFC 3339). */
  created_at: string;
  /** Files, directories and links of the same; absent when it is of one directory, an archive in which nobody looks. */
  entries?: number | null;
  /** When it is deleted by itself (RFC 3339); absent when never. */
  expires_at?: string | null;
  /** Its id. */
  id: string;
  /** What that was made from. */
  image: ImageView;
  /** As given. */
  labels: Record<string, string>;
  /** How its files were kept. */
  method: SaveMethod;
  /** As given. */
  name?: string | null;
  /** Uid whose it is. */
  owner_uid: number;
  /** The directory that it is of; absent when it is of all files. */
  path?: string | null;
  /** The sandbox that it was made of, which may be gone; absent when it was uploaded. */
  sandbox?: string | null;
  /** Bytes that what it has beside the image, and beside older snapshots below it, takes on the disk. Shared content is counted with each that has it. */
  size_bytes: number;
}

/** A process to start: either `argv` or `shell`. */
export interface StartProcess {
  /** Program and arguments. The program is looked up in the sandbox's `PATH` unless it holds a `/`. */
  argv?: string[] | null;
  /** Working directory, absolute. The sandbox's when absent. */
  cwd?: string | null;
  /** Environment, over the sandbox's. */
  env?: Record<string, string>;
  /** Its id: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit. From a number, as `p17`, when absent. */
  id?: string | null;
  /** How much of its output is kept on disk, stdout and stderr together; 8 MiB when absent. The oldest goes first, an eighth at a time. */
  log_bytes_max?: number | null;
  /** What becomes of it when it has ended. */
  on_exit?: OnExit;
  /** A script for `/bin/sh -c` instead. */
  shell?: string | null;
  /** Whether its stdin is a pipe that can be written to; otherwise `/dev/null`. */
  stdin?: boolean;
  /** After so long it and everything that it started are killed. */
  timeout_ms?: number | null;
  /** Whom it runs as. The sandbox's when absent. */
  user?: string | null;
}

/** Data of the event `started`. */
export interface StartedEvent {
  /** The command, for signals. */
  id: string;
  /** Its first process, as the sandbox sees it. */
  pid: number;
  /** The recording of it. */
  recording?: string | null;
}

/** A background process that a sandbox always has. */
export interface StartupProcess {
  /** Program and arguments. */
  argv?: string[] | null;
  /** Working directory, absolute. The sandbox's when absent. */
  cwd?: string | null;
  /** Environment, over the sandbox's. */
  env?: Record<string, string>;
  /** Its id: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit. Each once. */
  id: string;
  /** A script for `/bin/sh -c` instead. */
  shell?: string | null;
  /** Whom it runs as. The sandbox's when absent. */
  user?: string | null;
}

/** Whether a sandbox runs. */
export type State = "running" | "paused" | "stopped" | "dead";

/** What all sandboxes use. */
export interface StatsList {
  /** One of each, by id. */
  sandboxes: SandboxStats[];
}

/** All files of a sandbox, for an object in a bucket. */
export interface StoreSandbox {
  /** As what: `oci` when absent. */
  format?: ExportFormat;
  /** Where to. One that is there is replaced. */
  object: BucketObject;
  /** Who alone can read it: a recipient of age, `age1…`. Everybody when absent. */
  recipient?: string | null;
  /** The image's name in its layout. */
  reference?: string | null;
}

/** An object that was written. */
export interface StoredObject {
  /** Its key, below the prefix. */
  key: string;
  /** Its bytes. */
  size_bytes: number;
}

/** One of a process's two output streams. */
export type Stream = "stdout" | "stderr";

/** What a decision was about. */
export type Subject = "name" | "connection" | "request";

/** What a viewer says in text frames. Input goes in binary frames, as it is. */
export interface TerminalControl {
  resize?: TerminalSize | null;
  signal?: SignalName | null;
}

/** What the server says to a viewer in text frames. Output comes in binary frames, as it is. */
export type TerminalEvent = { cursor: number; event: "attached" } | { bytes: number; cursor: number; event: "skipped" } | { cursor: number; event: "exit"; exit_code: number };

/** Terminals of a sandbox. */
export interface TerminalList {
  /** By name. */
  terminals: TerminalView[];
}

/** A terminal's size. */
export interface TerminalSize {
  /** Width, in characters. */
  columns: number;
  /** Height, in characters. */
  rows: number;
}

/** A terminal, in lists. */
export interface TerminalView {
  /** Program and arguments. */
  argv: string[];
  /** Width, in characters. */
  columns: number;
  /** When it was opened (RFC 3339). */
  created_at: string;
  /** Position of the oldest byte of output that is kept. */
  cursor_first: number;
  /** Position of the next byte of output. */
  cursor_next: number;
  /** How the program ended, as shells say it. */
  exit_code?: number | null;
  /** Its name. */
  id: string;
  /** Pid of its first process, as seen in the sandbox. */
  pid: number;
  /** The recording of it. */
  recording?: string | null;
  /** Height, in characters. */
  rows: number;
  /** Whether its program runs. */
  running: boolean;
  /** The session that it was opened in. */
  session?: string | null;
  /** Who looks at it now. */
  viewers: number;
}

/** Which streams wrote more than was kept. */
export interface Truncated {
  /** Standard error. */
  stderr: boolean;
  /** Standard output. */
  stdout: boolean;
}

/** A number that is not known. */
export interface Unmeasured {
  /** Its name in the answer, or that of the group that it belongs to. */
  field: string;
  /** Why. */
  why: string;
}

/** What became of a mount that was taken away. */
export interface Unmounted {
  /** Paths below the mount of files whose last changes are not in the bucket: the first hundred. */
  lost: string[];
  /** How many they are. */
  lost_count: number;
}

/** One thing to wait for. */
export type WaitFor = { exit: WaitForExit } | { log: WaitForLog } | { port: WaitForPort };

/** Its end. */
export type WaitForExit = Record<string, never>;

/** A `GET` request and what its answer must be. */
export interface WaitForHttp {
  /** Path and query. */
  path?: string;
  /** The highest. */
  status_max?: number;
  /** The lowest status that counts. */
  status_min?: number;
}

/** A line of its output: one that holds `text`, or one that matches `regex`. Lines that were written before count. */
export interface WaitForLog {
  /** From which cursor on. From the oldest byte that is kept when absent. */
  cursor?: number | null;
  /** A match of this regular expression (Rust's regex crate) in a complete line, or in what is left of one when the process has ended. */
  regex?: string | null;
  stream?: Stream | null;
  /** This text. It may be in a line that is not complete, such as a prompt. */
  text?: string | null;
}

/** A port that answers: that takes a connection, or answers a request. */
export interface WaitForPort {
  http?: WaitForHttp | null;
  /** Its number. */
  port: number;
}

/** What to wait for. */
export interface WaitForProcess {
  for?: WaitFor | null;
  /** How long. For as long as it takes when absent. */
  timeout_ms?: number | null;
}

/** What came true. */
export interface Waited {
  log?: LogMatch | null;
  port?: PortMatch | null;
  /** The process now. */
  process: Process;
  /** How long it took from the request on. */
  waited_ms: number;
}

/** What a command wrote. */
export interface Written {
  /** What it wrote to its standard error. */
  stderr: string;
  /** How `stderr` is written here. */
  stderr_encoding: Encoding;
  /** What it wrote, byte for byte. */
  stdout: string;
  /** How `stdout` is written here: `base64` exactly when the bytes are not UTF-8. */
  stdout_encoding: Encoding;
  /** Whether there was more than was kept. */
  truncated: Truncated;
}

/** Method and path of every operation. */
export const operations = {
  listAudit: ['GET', '/v1/audit'],
  listEvents: ['GET', '/v1/events'],
  getHealth: ['GET', '/v1/healthz'],
  listImages: ['GET', '/v1/images'],
  importImage: ['POST', '/v1/images/import'],
  loadImage: ['POST', '/v1/images/load'],
  pullImage: ['POST', '/v1/images/pull'],
  deleteImage: ['DELETE', '/v1/images/{reference}'],
  getImage: ['GET', '/v1/images/{reference}'],
  getInfo: ['GET', '/v1/info'],
  getMetrics: ['GET', '/v1/metrics'],
  getOpenapi: ['GET', '/v1/openapi.json'],
  getQuota: ['GET', '/v1/quota'],
  listSandboxes: ['GET', '/v1/sandboxes'],
  createSandbox: ['POST', '/v1/sandboxes'],
  destroySandbox: ['DELETE', '/v1/sandboxes/{id}'],
  getSandbox: ['GET', '/v1/sandboxes/{id}'],
  filesChanged: ['GET', '/v1/sandboxes/{id}/changes'],
  listCommands: ['GET', '/v1/sandboxes/{id}/commands'],
  runCommand: ['POST', '/v1/sandboxes/{id}/commands'],
  attachCommand: ['GET', '/v1/sandboxes/{id}/commands/attach'],
  signalCommand: ['POST', '/v1/sandboxes/{id}/commands/{command}/signal'],
  commitSandbox: ['POST', '/v1/sandboxes/{id}/commit'],
  listContexts: ['GET', '/v1/sandboxes/{id}/contexts'],
  createContext: ['POST', '/v1/sandboxes/{id}/contexts'],
  deleteContext: ['DELETE', '/v1/sandboxes/{id}/contexts/{context}'],
  getContext: ['GET', '/v1/sandboxes/{id}/contexts/{context}'],
  answerContext: ['POST', '/v1/sandboxes/{id}/contexts/{context}/input'],
  interruptContext: ['POST', '/v1/sandboxes/{id}/contexts/{context}/interrupt'],
  restartContext: ['POST', '/v1/sandboxes/{id}/contexts/{context}/restart'],
  listRuns: ['GET', '/v1/sandboxes/{id}/contexts/{context}/runs'],
  runCode: ['POST', '/v1/sandboxes/{id}/contexts/{context}/runs'],
  getRun: ['GET', '/v1/sandboxes/{id}/contexts/{context}/runs/{run}'],
  getEnvironment: ['GET', '/v1/sandboxes/{id}/env'],
  changeEnvironment: ['PATCH', '/v1/sandboxes/{id}/env'],
  replaceEnvironment: ['PUT', '/v1/sandboxes/{id}/env'],
  exportSandbox: ['GET', '/v1/sandboxes/{id}/export'],
  downloadArchive: ['GET', '/v1/sandboxes/{id}/files/archive'],
  uploadArchive: ['PUT', '/v1/sandboxes/{id}/files/archive'],
  changeMode: ['POST', '/v1/sandboxes/{id}/files/chmod'],
  changeOwner: ['POST', '/v1/sandboxes/{id}/files/chown'],
  readFile: ['GET', '/v1/sandboxes/{id}/files/content'],
  writeFile: ['PUT', '/v1/sandboxes/{id}/files/content'],
  copyFile: ['POST', '/v1/sandboxes/{id}/files/copy'],
  fileExists: ['GET', '/v1/sandboxes/{id}/files/exists'],
  listFiles: ['GET', '/v1/sandboxes/{id}/files/list'],
  makeDirectory: ['POST', '/v1/sandboxes/{id}/files/mkdir'],
  removeFile: ['POST', '/v1/sandboxes/{id}/files/remove'],
  renameFile: ['POST', '/v1/sandboxes/{id}/files/rename'],
  searchFiles: ['POST', '/v1/sandboxes/{id}/files/search'],
  statFile: ['GET', '/v1/sandboxes/{id}/files/stat'],
  makeSymlink: ['POST', '/v1/sandboxes/{id}/files/symlink'],
  forkSandbox: ['POST', '/v1/sandboxes/{id}/fork'],
  cloneRepository: ['POST', '/v1/sandboxes/{id}/git/clone'],
  setLifecycle: ['PUT', '/v1/sandboxes/{id}/lifecycle'],
  listMounts: ['GET', '/v1/sandboxes/{id}/mounts'],
  mount: ['POST', '/v1/sandboxes/{id}/mounts'],
  unmount: ['DELETE', '/v1/sandboxes/{id}/mounts/{mount}'],
  getMount: ['GET', '/v1/sandboxes/{id}/mounts/{mount}'],
  getNetwork: ['GET', '/v1/sandboxes/{id}/network'],
  setNetwork: ['PUT', '/v1/sandboxes/{id}/network'],
  listNetworkEvents: ['GET', '/v1/sandboxes/{id}/network/events'],
  pauseSandbox: ['POST', '/v1/sandboxes/{id}/pause'],
  listPorts: ['GET', '/v1/sandboxes/{id}/ports'],
  exposePort: ['POST', '/v1/sandboxes/{id}/ports'],
  revokePort: ['DELETE', '/v1/sandboxes/{id}/ports/{port}'],
  getPort: ['GET', '/v1/sandboxes/{id}/ports/{port}'],
  connectToPort: ['GET', '/v1/sandboxes/{id}/ports/{port}/connect'],
  proxyToPort: ['GET', '/v1/sandboxes/{id}/ports/{port}/proxy/{path}'],
  killProcesses: ['DELETE', '/v1/sandboxes/{id}/processes'],
  listProcesses: ['GET', '/v1/sandboxes/{id}/processes'],
  startProcess: ['POST', '/v1/sandboxes/{id}/processes'],
  removeProcess: ['DELETE', '/v1/sandboxes/{id}/processes/{process}'],
  getProcess: ['GET', '/v1/sandboxes/{id}/processes/{process}'],
  readProcessLog: ['GET', '/v1/sandboxes/{id}/processes/{process}/logs'],
  signalProcess: ['POST', '/v1/sandboxes/{id}/processes/{process}/signal'],
  writeProcessStdin: ['POST', '/v1/sandboxes/{id}/processes/{process}/stdin'],
  waitForProcess: ['POST', '/v1/sandboxes/{id}/processes/{process}/wait'],
  pushSandbox: ['POST', '/v1/sandboxes/{id}/push'],
  listRecordings: ['GET', '/v1/sandboxes/{id}/recordings'],
  deleteRecording: ['DELETE', '/v1/sandboxes/{id}/recordings/{recording}'],
  getRecording: ['GET', '/v1/sandboxes/{id}/recordings/{recording}'],
  changeResources: ['PATCH', '/v1/sandboxes/{id}/resources'],
  restoreSandbox: ['POST', '/v1/sandboxes/{id}/restore'],
  rollBackSandbox: ['POST', '/v1/sandboxes/{id}/rollback'],
  listSessions: ['GET', '/v1/sandboxes/{id}/sessions'],
  createSession: ['POST', '/v1/sandboxes/{id}/sessions'],
  deleteSession: ['DELETE', '/v1/sandboxes/{id}/sessions/{session}'],
  getSession: ['GET', '/v1/sandboxes/{id}/sessions/{session}'],
  runInSession: ['POST', '/v1/sandboxes/{id}/sessions/{session}/commands'],
  listSandboxSnapshots: ['GET', '/v1/sandboxes/{id}/snapshots'],
  createSnapshot: ['POST', '/v1/sandboxes/{id}/snapshots'],
  startSandbox: ['POST', '/v1/sandboxes/{id}/start'],
  getStats: ['GET', '/v1/sandboxes/{id}/stats'],
  stopSandbox: ['POST', '/v1/sandboxes/{id}/stop'],
  storeSandbox: ['POST', '/v1/sandboxes/{id}/store'],
  listTerminals: ['GET', '/v1/sandboxes/{id}/terminals'],
  openTerminal: ['POST', '/v1/sandboxes/{id}/terminals'],
  closeTerminal: ['DELETE', '/v1/sandboxes/{id}/terminals/{terminal}'],
  getTerminal: ['GET', '/v1/sandboxes/{id}/terminals/{terminal}'],
  attachTerminal: ['GET', '/v1/sandboxes/{id}/terminals/{terminal}/attach'],
  resizeTerminal: ['POST', '/v1/sandboxes/{id}/terminals/{terminal}/resize'],
  signalTerminal: ['POST', '/v1/sandboxes/{id}/terminals/{terminal}/signal'],
  watchFiles: ['GET', '/v1/sandboxes/{id}/watch'],
  listSnapshots: ['GET', '/v1/snapshots'],
  uploadSnapshot: ['POST', '/v1/snapshots'],
  deleteSnapshot: ['DELETE', '/v1/snapshots/{id}'],
  getSnapshot: ['GET', '/v1/snapshots/{id}'],
  downloadSnapshot: ['GET', '/v1/snapshots/{id}/archive'],
  listStats: ['GET', '/v1/stats'],
} as const;

/** What every operation takes and gives. */
export interface Operations {
  /** Read the audit log. */
  listAudit: {
    path: Record<never, never>;
    query: { after?: number; limit?: number; sandbox?: string };
    body: undefined;
    answer: AuditLines;
  };
  /** Hear what happens. */
  listEvents: {
    path: Record<never, never>;
    query: { sandbox?: string[]; type?: string[]; after?: number; limit?: number };
    body: undefined;
    answer: EventList;
  };
  /** Is the daemon there? */
  getHealth: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: undefined;
    answer: Health;
  };
  /** List images. */
  listImages: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: undefined;
    answer: ImageList;
  };
  /** Import an image. */
  importImage: {
    path: Record<never, never>;
    query: { reference?: string; rootfs?: boolean };
    body: undefined;
    answer: ImageList;
  };
  /** Import an image from a bucket. */
  loadImage: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: LoadImage;
    answer: ImageList;
  };
  /** Pull an image from a registry. */
  pullImage: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: PullImage;
    answer: Image;
  };
  /** Delete an image. */
  deleteImage: {
    path: { reference: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Get an image. */
  getImage: {
    path: { reference: string };
    query: Record<never, never>;
    body: undefined;
    answer: Image;
  };
  /** What daemon is this, on what host? */
  getInfo: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: undefined;
    answer: DaemonInfo;
  };
  /** Read numbers for monitoring. */
  getMetrics: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** How is it spoken to? */
  getOpenapi: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** How much may the caller have? */
  getQuota: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: undefined;
    answer: QuotaView;
  };
  /** List sandboxes. */
  listSandboxes: {
    path: Record<never, never>;
    query: { label: string[] };
    body: undefined;
    answer: SandboxList;
  };
  /** Create a sandbox. */
  createSandbox: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: CreateSandbox;
    answer: SandboxView;
  };
  /** Destroy a sandbox. */
  destroySandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Get a sandbox. */
  getSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: SandboxView;
  };
  /** Ask whether files have changed. */
  filesChanged: {
    path: { id: string };
    query: { path: string; cursor?: string; recursive?: boolean; include?: string[]; exclude?: string[]; user?: string };
    body: undefined;
    answer: Changes;
  };
  /** List running commands. */
  listCommands: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: CommandList;
  };
  /** Run a command. */
  runCommand: {
    path: { id: string };
    query: Record<never, never>;
    body: RunCommand;
    answer: CommandResult;
  };
  /** Run a command with live input and output. */
  attachCommand: {
    path: { id: string };
    query: { destroy?: boolean };
    body: undefined;
    answer: undefined;
  };
  /** Send a signal. */
  signalCommand: {
    path: { id: string; command: string };
    query: Record<never, never>;
    body: SendSignal;
    answer: undefined;
  };
  /** Commit a sandbox. */
  commitSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: CommitSandbox;
    answer: Image;
  };
  /** List contexts. */
  listContexts: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: ContextList;
  };
  /** Make a context. */
  createContext: {
    path: { id: string };
    query: Record<never, never>;
    body: CreateContext;
    answer: ContextView;
  };
  /** Delete a context. */
  deleteContext: {
    path: { id: string; context: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Show a context. */
  getContext: {
    path: { id: string; context: string };
    query: Record<never, never>;
    body: undefined;
    answer: ContextView;
  };
  /** Answer code that asks for input. */
  answerContext: {
    path: { id: string; context: string };
    query: Record<never, never>;
    body: AnswerInput;
    answer: undefined;
  };
  /** Interrupt the code that runs. */
  interruptContext: {
    path: { id: string; context: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Restart a context. */
  restartContext: {
    path: { id: string; context: string };
    query: Record<never, never>;
    body: undefined;
    answer: ContextView;
  };
  /** List runs that are kept. */
  listRuns: {
    path: { id: string; context: string };
    query: Record<never, never>;
    body: undefined;
    answer: CodeRunList;
  };
  /** Run code. */
  runCode: {
    path: { id: string; context: string };
    query: Record<never, never>;
    body: RunCode;
    answer: CodeResult | CodeRunView;
  };
  /** Show a run that is kept. */
  getRun: {
    path: { id: string; context: string; run: string };
    query: { wait_ms?: number };
    body: undefined;
    answer: CodeRunView;
  };
  /** Read the variables. */
  getEnvironment: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: Environment;
  };
  /** Change variables. */
  changeEnvironment: {
    path: { id: string };
    query: Record<never, never>;
    body: ChangeEnvironment;
    answer: Environment;
  };
  /** Replace the variables. */
  replaceEnvironment: {
    path: { id: string };
    query: Record<never, never>;
    body: Environment;
    answer: Environment;
  };
  /** Export a sandbox. */
  exportSandbox: {
    path: { id: string };
    query: { format?: ExportFormat; reference?: string; recipient?: string };
    body: undefined;
    answer: undefined;
  };
  /** Download a tree. */
  downloadArchive: {
    path: { id: string };
    query: { path: string; user?: string };
    body: undefined;
    answer: undefined;
  };
  /** Upload a tree. */
  uploadArchive: {
    path: { id: string };
    query: { path: string; owners?: boolean; user?: string };
    body: undefined;
    answer: undefined;
  };
  /** Change permissions. */
  changeMode: {
    path: { id: string };
    query: Record<never, never>;
    body: ChangeMode;
    answer: undefined;
  };
  /** Change the owner. */
  changeOwner: {
    path: { id: string };
    query: Record<never, never>;
    body: ChangeOwner;
    answer: undefined;
  };
  /** Read a file. */
  readFile: {
    path: { id: string };
    query: { path: string; user?: string };
    body: undefined;
    answer: undefined;
  };
  /** Write a file. */
  writeFile: {
    path: { id: string };
    query: { path: string; mode?: string; owner?: string; parents?: boolean; user?: string };
    body: undefined;
    answer: FileInfo;
  };
  /** Copy a file or a tree. */
  copyFile: {
    path: { id: string };
    query: Record<never, never>;
    body: CopyFile;
    answer: undefined;
  };
  /** Ask whether a file is there. */
  fileExists: {
    path: { id: string };
    query: { path: string; user?: string };
    body: undefined;
    answer: FileExists;
  };
  /** List a directory. */
  listFiles: {
    path: { id: string };
    query: { path: string; recursive?: boolean; hidden?: boolean; glob?: string; limit?: number; cursor?: string; user?: string };
    body: undefined;
    answer: FileList;
  };
  /** Make a directory. */
  makeDirectory: {
    path: { id: string };
    query: Record<never, never>;
    body: MakeDirectory;
    answer: undefined;
  };
  /** Remove a file or directory. */
  removeFile: {
    path: { id: string };
    query: Record<never, never>;
    body: RemoveFile;
    answer: undefined;
  };
  /** Rename a file or directory. */
  renameFile: {
    path: { id: string };
    query: Record<never, never>;
    body: RenameFile;
    answer: undefined;
  };
  /** Search text in files. */
  searchFiles: {
    path: { id: string };
    query: Record<never, never>;
    body: SearchFiles;
    answer: SearchResult;
  };
  /** Look at a file. */
  statFile: {
    path: { id: string };
    query: { path: string; no_follow?: boolean; user?: string };
    body: undefined;
    answer: FileInfo;
  };
  /** Make a symbolic link. */
  makeSymlink: {
    path: { id: string };
    query: Record<never, never>;
    body: MakeSymlink;
    answer: undefined;
  };
  /** Fork a sandbox. */
  forkSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: ForkSandbox;
    answer: ForkList;
  };
  /** Clone a repository. */
  cloneRepository: {
    path: { id: string };
    query: Record<never, never>;
    body: CloneRepository;
    answer: ClonedRepository;
  };
  /** Change when a sandbox rests and ends by itself. */
  setLifecycle: {
    path: { id: string };
    query: Record<never, never>;
    body: Lifecycle;
    answer: SandboxView;
  };
  /** List mounts. */
  listMounts: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: MountList;
  };
  /** Mount a bucket. */
  mount: {
    path: { id: string };
    query: Record<never, never>;
    body: AddMount;
    answer: MountView;
  };
  /** Unmount. */
  unmount: {
    path: { id: string; mount: string };
    query: { timeout_ms?: number };
    body: undefined;
    answer: Unmounted;
  };
  /** Show a mount. */
  getMount: {
    path: { id: string; mount: string };
    query: Record<never, never>;
    body: undefined;
    answer: MountView;
  };
  /** Read what may leave a sandbox. */
  getNetwork: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: NetworkView;
  };
  /** Let something else leave a sandbox. */
  setNetwork: {
    path: { id: string };
    query: { dry_run?: boolean };
    body: NetworkPolicy;
    answer: NetworkChange;
  };
  /** Read the decisions. */
  listNetworkEvents: {
    path: { id: string };
    query: { after?: number; limit?: number };
    body: undefined;
    answer: NetworkEvents;
  };
  /** Pause a sandbox. */
  pauseSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: SandboxView;
  };
  /** List exposed ports. */
  listPorts: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: PortList;
  };
  /** Expose a port. */
  exposePort: {
    path: { id: string };
    query: Record<never, never>;
    body: ExposePort;
    answer: ExposedPort;
  };
  /** Revoke a port's address. */
  revokePort: {
    path: { id: string; port: number };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Show an exposed port. */
  getPort: {
    path: { id: string; port: number };
    query: Record<never, never>;
    body: undefined;
    answer: ExposedPort;
  };
  /** Connect to a port. */
  connectToPort: {
    path: { id: string; port: number };
    query: { wait_ms?: number };
    body: undefined;
    answer: undefined;
  };
  /** Send a request to a port. */
  proxyToPort: {
    path: { id: string; port: number; path: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Kill all processes. */
  killProcesses: {
    path: { id: string };
    query: { remove?: boolean };
    body: undefined;
    answer: ProcessesKilled;
  };
  /** List processes. */
  listProcesses: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: ProcessList;
  };
  /** Start a process. */
  startProcess: {
    path: { id: string };
    query: Record<never, never>;
    body: StartProcess;
    answer: Process;
  };
  /** Remove a process. */
  removeProcess: {
    path: { id: string; process: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Get a process. */
  getProcess: {
    path: { id: string; process: string };
    query: Record<never, never>;
    body: undefined;
    answer: Process;
  };
  /** Read a log. */
  readProcessLog: {
    path: { id: string; process: string };
    query: { stream?: "stdout" | "stderr" | "both"; cursor?: number; limit_bytes?: number };
    body: undefined;
    answer: LogPart;
  };
  /** Send a signal to a process. */
  signalProcess: {
    path: { id: string; process: string };
    query: Record<never, never>;
    body: SignalProcess;
    answer: undefined;
  };
  /** Write to stdin. */
  writeProcessStdin: {
    path: { id: string; process: string };
    query: { close?: boolean };
    body: undefined;
    answer: undefined;
  };
  /** Wait for a process. */
  waitForProcess: {
    path: { id: string; process: string };
    query: Record<never, never>;
    body: WaitForProcess;
    answer: Waited;
  };
  /** Push a sandbox to a registry. */
  pushSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: PushSandbox;
    answer: Pushed;
  };
  /** List recordings. */
  listRecordings: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: RecordingList;
  };
  /** Delete a recording. */
  deleteRecording: {
    path: { id: string; recording: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Get a recording. */
  getRecording: {
    path: { id: string; recording: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Give a sandbox other limits. */
  changeResources: {
    path: { id: string };
    query: { dry_run?: boolean };
    body: ResourceLimits;
    answer: ResourcesChange;
  };
  /** Restore a sandbox from a snapshot. */
  restoreSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: RestoreSandbox;
    answer: SandboxView;
  };
  /** Roll a sandbox back. */
  rollBackSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: RollBackSandbox;
    answer: SandboxView;
  };
  /** List sessions. */
  listSessions: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: SessionList;
  };
  /** Make a session. */
  createSession: {
    path: { id: string };
    query: Record<never, never>;
    body: CreateSession;
    answer: SessionView;
  };
  /** Delete a session. */
  deleteSession: {
    path: { id: string; session: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Show a session. */
  getSession: {
    path: { id: string; session: string };
    query: Record<never, never>;
    body: undefined;
    answer: SessionView;
  };
  /** Run a command in a session. */
  runInSession: {
    path: { id: string; session: string };
    query: Record<never, never>;
    body: RunCommand & unknown;
    answer: CommandResult;
  };
  /** List a sandbox's snapshots. */
  listSandboxSnapshots: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: SnapshotList;
  };
  /** Make a snapshot. */
  createSnapshot: {
    path: { id: string };
    query: Record<never, never>;
    body: CreateSnapshot;
    answer: SnapshotView;
  };
  /** Start a sandbox again. */
  startSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: SandboxView;
  };
  /** What a sandbox uses. */
  getStats: {
    path: { id: string };
    query: { disk?: boolean; interval_ms?: number };
    body: undefined;
    answer: SandboxStats;
  };
  /** Stop a sandbox. */
  stopSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: SandboxView;
  };
  /** Store a sandbox in a bucket. */
  storeSandbox: {
    path: { id: string };
    query: Record<never, never>;
    body: StoreSandbox;
    answer: StoredObject;
  };
  /** List terminals. */
  listTerminals: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: TerminalList;
  };
  /** Open a terminal. */
  openTerminal: {
    path: { id: string };
    query: Record<never, never>;
    body: OpenTerminal;
    answer: TerminalView;
  };
  /** Close a terminal. */
  closeTerminal: {
    path: { id: string; terminal: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Show a terminal. */
  getTerminal: {
    path: { id: string; terminal: string };
    query: Record<never, never>;
    body: undefined;
    answer: TerminalView;
  };
  /** Look at a terminal. */
  attachTerminal: {
    path: { id: string; terminal: string };
    query: { cursor?: number };
    body: undefined;
    answer: undefined;
  };
  /** Resize a terminal. */
  resizeTerminal: {
    path: { id: string; terminal: string };
    query: Record<never, never>;
    body: TerminalSize;
    answer: undefined;
  };
  /** Signal a terminal's program. */
  signalTerminal: {
    path: { id: string; terminal: string };
    query: Record<never, never>;
    body: SignalTerminal;
    answer: undefined;
  };
  /** Watch files. */
  watchFiles: {
    path: { id: string };
    query: { path: string; recursive?: boolean; include?: string[]; exclude?: string[]; user?: string };
    body: undefined;
    answer: undefined;
  };
  /** List snapshots. */
  listSnapshots: {
    path: Record<never, never>;
    query: Record<never, never>;
    body: undefined;
    answer: SnapshotList;
  };
  /** Upload a snapshot of a directory. */
  uploadSnapshot: {
    path: Record<never, never>;
    query: { path: string; name?: string; ttl_ms?: number };
    body: undefined;
    answer: SnapshotView;
  };
  /** Delete a snapshot. */
  deleteSnapshot: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: undefined;
  };
  /** Get a snapshot. */
  getSnapshot: {
    path: { id: string };
    query: Record<never, never>;
    body: undefined;
    answer: SnapshotView;
  };
  /** Download a snapshot. */
  downloadSnapshot: {
    path: { id: string };
    query: { format?: ExportFormat; reference?: string; recipient?: string };
    body: undefined;
    answer: undefined;
  };
  /** What all sandboxes use. */
  listStats: {
    path: Record<never, never>;
    query: { disk?: boolean; interval_ms?: number };
    body: undefined;
    answer: StatsList;
  };
}
