/** Options and results, in the names and shapes of the Cloudflare Sandbox SDK. What only Stockade has says so. */
import type { CreateSandbox, Lifecycle, NetworkPolicy, RecordSetting, ResourceLimits } from './api.js';

export interface SandboxOptions {
  /**
   * Stop it when nobody has used it for so long: seconds, or `"30s"`, `"10m"`, `"2h"`. Never when absent. Its files stay, and the next
   * call wakes it. It is set for a sandbox that is there already, too.
   */
  sleepAfter?: string | number;
  /** Whether it never sleeps nor ends by itself, whatever else is said. False when absent. */
  keepAlive?: boolean;
  /** Stockade: when it sleeps and ends by itself, in the daemon's words. `sleepAfter` and `keepAlive` go before. */
  lifecycle?: Lifecycle;
  /** Whether implicit calls share a session (`cd`, variables, functions). True when absent. */
  enableDefaultSession?: boolean;
  /** Lower-case the id. */
  normalizeId?: boolean;
  /** `instanceGetTimeoutMS` bounds creation; there is no port of a control server to wait for. */
  containerTimeouts?: ContainerTimeouts;
  /** There is one transport. */
  transport?: SandboxTransport;
  /** Where requests go that `fetch` and `containerFetch` are given without a port; 3000 when absent. */
  defaultPort?: number;
  labels?: Record<string, string>;
  /** Stockade: reference of an image in the store; `host` when absent. */
  image?: string;
  /** Stockade: limits. */
  resources?: ResourceLimits;
  /** Stockade: environment of everything. */
  env?: Record<string, string>;
  /** Stockade: where commands run; `/workspace` when absent. */
  cwd?: string;
  /** Stockade: whom commands run as. */
  user?: string;
  profile?: CreateSandbox['profile'];
  durability?: CreateSandbox['durability'];
  hostname?: string;
  /** Stockade: what may leave the sandbox. Nothing when absent. */
  network?: NetworkPolicy;
  /** Whether everything public may be reached. False when absent, unlike there: nothing leaves unless it is said. */
  enableInternet?: boolean;
  allowedHosts?: string[];
  deniedHosts?: string[];
}

export type SandboxTransport = 'http' | 'websocket' | 'rpc';

export interface ContainerTimeouts {
  instanceGetTimeoutMS?: number;
  portReadyTimeoutMS?: number;
  waitIntervalMS?: number;
}

/** How long, and until when, a port is waited for. */
export interface PortWait { abort?: AbortSignal; portReadyTimeoutMS?: number; instanceGetTimeoutMS?: number; waitInterval?: number }

export type EnvVars = Record<string, string | undefined | null>;

export interface BaseExecOptions {
  /** Milliseconds; for as long as it takes when absent. */
  timeout?: number;
  env?: EnvVars;
  cwd?: string;
  encoding?: string;
  signal?: AbortSignal;
  sessionId?: string;
}

export interface ExecOptions extends BaseExecOptions {
  stream?: boolean;
  onOutput?: (stream: 'stdout' | 'stderr', data: string) => void;
  onComplete?: (result: ExecResult) => void;
  onError?: (error: Error) => void;
  origin?: 'user' | 'internal';
  /** Stockade: what the command reads (outside of sessions). */
  stdin?: string | Uint8Array;
  /** Stockade: record it for asciinema; `recordings` has it. */
  record?: RecordSetting;
}

export interface ExecResult {
  success: boolean;
  exitCode: number;
  stdout: string;
  stderr: string;
  command: string;
  /** Milliseconds. */
  duration: number;
  timestamp: string;
  sessionId?: string;
  /** Stockade: which streams had more than is kept (64 MiB). */
  truncated?: { stdout: boolean; stderr: boolean };
  /** Stockade: the recording of it. */
  recording?: string;
}

export interface StreamOptions extends BaseExecOptions {
  bufferSize?: number;
}

export interface ExecEvent {
  type: 'start' | 'stdout' | 'stderr' | 'complete' | 'error';
  timestamp: string;
  command?: string;
  pid?: number;
  data?: string;
  exitCode?: number;
  result?: ExecResult;
  error?: string;
  sessionId?: string;
}

export type ProcessStatus = 'starting' | 'running' | 'completed' | 'failed' | 'killed' | 'error';

export interface ProcessOptions extends BaseExecOptions {
  processId?: string;
  /** Remove the process and its log when it has ended. Kept when absent, so that they can be looked at. */
  autoCleanup?: boolean;
  onExit?: (code: number | null) => void;
  onOutput?: (stream: 'stdout' | 'stderr', data: string) => void;
  onStart?: (process: Process) => void;
  onError?: (error: Error) => void;
  /** Stockade: whether `writeStdin` can be used. */
  stdin?: boolean;
  /** Stockade: how much of the log is kept on disk. */
  logBytesMax?: number;
}

export interface WaitForPortOptions {
  mode?: 'http' | 'tcp';
  path?: string;
  status?: number | { min: number; max: number };
  timeout?: number;
  /** The daemon chooses. */
  interval?: number;
}

export interface WaitForLogResult { line: string; match?: RegExpMatchArray }
export interface WaitForExitResult { exitCode: number }
export interface ProcessLogs { stdout: string; stderr: string; processId: string }

export interface Process {
  readonly id: string;
  readonly pid?: number;
  readonly command: string;
  readonly status: ProcessStatus;
  readonly startTime: Date;
  readonly endTime?: Date;
  readonly exitCode?: number;
  readonly sessionId?: string;
  /** Without a signal: SIGTERM to the whole tree, and SIGKILL to what is left after 5 seconds. */
  kill(signal?: string | number): Promise<void>;
  getStatus(): Promise<ProcessStatus>;
  getLogs(): Promise<{ stdout: string; stderr: string }>;
  waitForLog(pattern: string | RegExp, timeout?: number): Promise<WaitForLogResult>;
  waitForPort(port: number, options?: WaitForPortOptions): Promise<void>;
  waitForExit(timeout?: number): Promise<WaitForExitResult>;
  /** Stockade: for processes started with `stdin`. */
  writeStdin(data: string | Uint8Array): Promise<void>;
  /** Stockade: the process reads its end. */
  closeStdin(): Promise<void>;
}

export interface LogEvent {
  type: 'process_info' | 'stdout' | 'stderr' | 'exit' | 'error';
  timestamp: string;
  data: string;
  processId: string;
  sessionId?: string;
  exitCode?: number;
  pid?: number;
  command?: string;
  status?: ProcessStatus;
}

// Their types have an `exitCode` in some results, which nobody sets.
export interface WriteFileResult { success: boolean; path: string; timestamp: string; exitCode?: number }
export interface MkdirResult { success: boolean; path: string; recursive: boolean; timestamp: string; exitCode?: number }
export interface DeleteFileResult { success: boolean; path: string; timestamp: string; exitCode?: number }
export interface RenameFileResult { success: boolean; path: string; newPath: string; timestamp: string; exitCode?: number }
export type MoveFileResult = RenameFileResult;
export interface FileExistsResult { success: boolean; path: string; exists: boolean; timestamp: string }

export interface ReadFileResult {
  success: boolean;
  path: string;
  content: string;
  encoding: 'utf-8' | 'base64';
  isBinary: boolean;
  mimeType: string;
  size: number;
  timestamp: string;
  exitCode?: number;
}

/** With `encoding: 'none'`: the bytes as they come. */
export interface ReadFileStreamResult extends Omit<ReadFileResult, 'success' | 'content' | 'encoding'> {
  success: true;
  content: ReadableStream<Uint8Array>;
  encoding: 'none';
}

export interface FileInfo {
  name: string;
  absolutePath: string;
  relativePath: string;
  type: 'file' | 'directory' | 'symlink' | 'other';
  size: number;
  modifiedAt: string;
  mode: string;
  permissions: { readable: boolean; writable: boolean; executable: boolean };
}

export interface ListFilesOptions { recursive?: boolean; includeHidden?: boolean; sessionId?: string }
export interface ListFilesResult { success: boolean; path: string; files: FileInfo[]; count: number; timestamp: string; exitCode?: number }

export interface FileMetadata { mimeType: string; size: number; isBinary: boolean; encoding: 'utf-8' | 'base64' }
export type FileChunk = string | Uint8Array;
export type FileStreamEvent =
  | ({ type: 'metadata' } & FileMetadata)
  | { type: 'chunk'; data: string }
  | { type: 'complete'; bytesRead: number }
  | { type: 'error'; error: string };

export interface WatchOptions { recursive?: boolean; include?: string[]; exclude?: string[]; sessionId?: string; signal?: AbortSignal }
export type FileWatchSSEEvent =
  | { type: 'watching'; path: string; watchId: string }
  | {
    type: 'event';
    eventType: 'create' | 'modify' | 'delete' | 'move_from' | 'move_to' | 'attrib';
    path: string;
    isDirectory: boolean;
    timestamp: string;
  }
  | { type: 'error'; error: string }
  | { type: 'stopped'; reason: string };

export interface CheckChangesOptions extends WatchOptions { since?: string }
export type CheckChangesResult =
  | { success: true; status: 'unchanged' | 'changed'; version: string; timestamp: string }
  | { success: true; status: 'resync'; reason: 'expired' | 'restarted'; version: string; timestamp: string };

/** A session as the last argument: by its name, as there, or as an option. */
export type Within = string | { sessionId?: string };

export interface GitCheckoutOptions {
  branch?: string;
  targetDir?: string;
  depth?: number;
  cloneTimeoutMs?: number;
  sessionId?: string;
  /** Stockade: credentials, for the host of the URL alone; kept nowhere. */
  token?: string;
  username?: string;
  password?: string;
  recurseSubmodules?: boolean;
  /** Stockade. */
  signal?: AbortSignal;
}
export interface GitCheckoutResult {
  success: boolean;
  repoUrl: string;
  branch: string;
  targetDir: string;
  timestamp: string;
  exitCode?: number;
  /** Stockade: what is checked out. */
  commit?: string;
}

export interface ExposePortOptions {
  /** Of the server that calls `proxyToSandbox`. Stockade: without it the address is the daemon's own. */
  hostname?: string;
  name?: string;
  token?: string;
}
export interface ExposedPortInfo { url: string; port: number; name: string | undefined }
export interface ExposedPort extends ExposedPortInfo { status: 'active' }

/** Credentials of a bucket. Stockade: a session token, a profile or the environment that the operator lends, or nobody. */
export type BucketCredentials =
  | { accessKeyId: string; secretAccessKey: string; sessionToken?: string }
  | { profile: string }
  | { environment: true }
  | { anonymous: true };

export type BucketProvider = 'r2' | 's3' | 'gcs';

export interface MountBucketOptions {
  /** `https://…`, or Stockade: `file:///…`, a directory of the host that its operator has opened. */
  endpoint?: string;
  provider?: BucketProvider;
  /** Those of this program's environment when absent: `AWS_ACCESS_KEY_ID` and its kin, then `R2_…`. */
  credentials?: BucketCredentials;
  readOnly?: boolean;
  /** Begins with a slash. */
  prefix?: string;
  /** Always so here: nothing in the sandbox can see them. */
  credentialProxy?: boolean;
  /** Refused: the file system is another one. */
  s3fsOptions?: string[];
  /** Refused: for a directory of the host in the place of a bucket `endpoint` is `file:///…`. */
  localBucket?: boolean;
  /** Stockade: the bucket's region. */
  region?: string;
}

/** Those with an endpoint, and those that wrangler's local buckets have there. */
export type RemoteMountBucketOptions = MountBucketOptions & { endpoint: string };
export interface LocalMountBucketOptions { localBucket: true; prefix?: string; readOnly?: boolean }

export interface SessionOptions {
  id?: string;
  /** For people, and told to nobody. */
  name?: string;
  env?: EnvVars;
  cwd?: string;
  commandTimeoutMs?: number;
  /** Sessions have their own variables, directory and functions, whatever this says. */
  isolation?: boolean;
}
export interface SessionDeleteResult { success: boolean; sessionId: string; timestamp: string }

/**
 * `healthy`: it runs. `running`: it is paused, with its memory. `stopped`: it is stopped and keeps its files, or there is none.
 * `stopped_with_code`: it ended by itself; the daemon does not know the code. `lastChange` is when it was made.
 */
export interface SandboxState {
  status: 'running' | 'stopping' | 'stopped' | 'healthy' | 'stopped_with_code';
  lastChange: number;
  exitCode?: number;
}

export interface PtyOptions { cols?: number; rows?: number; shell?: string }

/** A directory to keep. `localBucket`, `compression` and `multipart` are Cloudflare's, and mean nothing here. */
export interface BackupOptions {
  dir: string;
  name?: string;
  /** Seconds; three days when absent. */
  ttl?: number;
  gitignore?: boolean;
  excludes?: string[];
  localBucket?: boolean;
  compression?: { format?: 'lz4' | 'gzip' | 'zstd'; threads?: number };
  multipart?: boolean;
}

export interface DirectoryBackup { readonly id: string; readonly dir: string; readonly localBucket?: boolean }
export interface RestoreBackupResult { success: boolean; dir: string; id: string }

/** What a tunnel of Cloudflare's is; there are none here. */
interface AnyTunnel { id: string; port: number; url: string; hostname: string; createdAt: string }
export interface QuickTunnelInfo extends AnyTunnel { name?: never }
export interface NamedTunnelInfo extends AnyTunnel { name: string }
export type TunnelInfo = QuickTunnelInfo | NamedTunnelInfo;
export interface TunnelOptions { name?: string }

/** How the files of a sandbox leave. */
export interface ExportOptions {
  /** An archive for `images.import`, or the files alone. */
  format?: 'oci' | 'tar';
  /** The image's name in its archive. */
  reference?: string;
  /** Who alone can read it: a recipient of age, `age1…`. */
  recipient?: string;
}

/** How an archive is read. */
export interface ImportOptions {
  /** The image's name here; what the archive says otherwise. */
  reference?: string;
  /** It is a tar of files, plain, gzip or zstd. */
  rootfs?: boolean;
  /** The identity of age that it is encrypted to. */
  identity?: string;
  signal?: AbortSignal;
}
