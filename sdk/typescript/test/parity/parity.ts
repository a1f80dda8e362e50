/**
 * Whether programs for `@cloudflare/sandbox` are programs for this client, as the compiler sees it: what they may give is taken
 * here, and what they get is what they get there. It is only compiled. What differs on purpose is named, and why; a difference
 * that is mended must be taken out of its list.
 *
 * Their declarations name the platform of Workers, which is not here: those types are `any` (`skipLibCheck`).
 */
import type * as Theirs from '@cloudflare/sandbox';
import type * as Ours from '@stockade/sandbox';

type There = typeof Theirs;
type Here = typeof Ours;

/** Compiles when what differs is what is said of it. */
declare function differ<Found, Said = never>(...not: Same<Found, Said> extends true ? [] : [found: Found, said: Said]): void;
type Same<One, Other> = [One] extends [Other] ? [Other] extends [One] ? true : false : false;

/** Whether ours does in the place of theirs. Parameters the other way round, also those of methods. */
type Does<Our, Their> = [Their] extends [(...given: infer Given) => infer Got]
  ? [Our] extends [(...given: Given) => Got] ? true : false
  : [Our] extends [Their] ? true : false;
/** The members of theirs that are not here, or do not do. */
type Lacking<Our, Their> = {
  [Name in keyof Their]-?: Name extends keyof Our ? Does<Our[Name], Their[Name]> extends true ? never : Name : Name;
}[keyof Their];
/** The names of fields, of every part of a union. */
type Fields<T> = T extends unknown ? keyof T : never;
type Unknown<Our, Their> = {
  [Name in keyof Their & keyof Our]: Exclude<Fields<Their[Name]>, Fields<Our[Name]>> extends never ? never : Name;
}[keyof Their & keyof Our];
type Instance<Class> = Class extends abstract new (...given: never[]) => infer Made ? Made : never;

// --- what is exported ---

differ<Exclude<keyof There, keyof Here>>();
differ<Lacking<Here, Pick<There, FunctionNames>>,
  // A socket and not a binding; and what `getSandbox` gives, not anything with `fetch`.
  'getSandbox' | 'proxyTerminal'>();
type FunctionNames = { [Name in keyof There]: There[Name] extends abstract new (...given: never[]) => unknown ? never : Name }[keyof There];
differ<Exclude<keyof typeof import('@cloudflare/sandbox/bridge'), keyof typeof import('@stockade/sandbox/bridge')>>();
differ<Exclude<keyof typeof import('@cloudflare/sandbox/openai'), keyof typeof import('@stockade/sandbox/openai')>>();
differ<Exclude<keyof typeof import('@cloudflare/sandbox/opencode'), keyof typeof import('@stockade/sandbox/opencode')>>();
differ<Exclude<keyof typeof import('@cloudflare/sandbox/xterm'), keyof typeof import('@stockade/sandbox/xterm')>>();
differ<Lacking<Instance<typeof import('@stockade/sandbox/xterm').SandboxAddon>, Instance<typeof import('@cloudflare/sandbox/xterm').SandboxAddon>>>();

// --- sandboxes, sessions, processes ---

differ<Lacking<Ours.Sandbox, Theirs.ISandbox>>();
differ<Lacking<Ours.ExecutionSession, Theirs.ExecutionSession>>();
differ<Lacking<Ours.Process, Theirs.Process>>();
// Overloads: the last one is looked at above.
differ<Lacking<Ours.Sandbox, { readFile(path: string, options: { encoding: 'none' }): Promise<Bytes> }>>();
interface Bytes { success: true; path: string; content: ReadableStream<Uint8Array>; size: number; mimeType: string; timestamp: string }
// `start` gives what the sandbox is like then.
differ<Lacking<Ours.Sandbox, Omit<Theirs.Sandbox<unknown>, keyof Theirs.ISandbox>>, Hooks | Settings | Schedules | Platform | 'start'>();
/** `Stockade.events()` tells of starts and ends. */
type Hooks = 'onStart' | 'onStop' | 'onError' | 'onActivityExpired';
/** Options of `getSandbox`. */
type Settings = 'sleepAfter' | 'envVars' | 'labels' | 'enableInternet' | 'allowedHosts' | 'deniedHosts';
/** Of Durable Objects: a program here has timers, and the daemon's `lifecycle`. */
type Schedules =
  'schedule' | 'deleteSchedules' | 'alarm' | 'timeout' | 'resolve' | 'scheduleNextAlarm' | 'listSchedules' | 'getSchedule';
/** How a Durable Object has its container; and TLS is opened for the hosts that have handlers. */
type Platform =
  'requiredPorts' | 'entrypoint' | 'pingEndpoint' | 'waitForPort' | 'interceptHttps' | 'applyOutboundInterceptionPromise'
  | 'usingInterception' | 'callTunnels' | 'client';

export type InAWorker = Ours.Sandbox<{ KEY: string }>;

// --- options: theirs are taken, and known by name ---

interface TheirOptions {
  backup: Theirs.BackupOptions; exec: Theirs.ExecOptions; credentials: Theirs.BucketCredentials; changes: Theirs.CheckChangesOptions;
  context: Theirs.CreateContextOptions; list: Theirs.ListFilesOptions; mount: Theirs.MountBucketOptions; start: Theirs.ProcessOptions;
  terminal: Theirs.PtyOptions; run: Theirs.RunCodeOptions; sandbox: Theirs.SandboxOptions; session: Theirs.SessionOptions;
  stream: Theirs.StreamOptions; port: Theirs.WaitForPortOptions; watch: Theirs.WatchOptions; tunnel: Theirs.TunnelOptions;
}
interface OurOptions {
  backup: Ours.BackupOptions; exec: Ours.ExecOptions; credentials: Ours.BucketCredentials; changes: Ours.CheckChangesOptions;
  context: Ours.CreateContextOptions; list: Ours.ListFilesOptions; mount: Ours.MountBucketOptions; start: Ours.ProcessOptions;
  terminal: Ours.PtyOptions; run: Ours.RunCodeOptions; sandbox: Ours.SandboxOptions; session: Ours.SessionOptions;
  stream: Ours.StreamOptions; port: Ours.WaitForPortOptions; watch: Ours.WatchOptions; tunnel: Ours.TunnelOptions;
}
differ<Lacking<TheirOptions, OurOptions>>();
differ<Unknown<OurOptions, TheirOptions>>();

// --- results: ours are theirs, and have their fields ---

interface TheirResults {
  changes: Theirs.CheckChangesResult; context: Theirs.CodeContext; backup: Theirs.DirectoryBackup; event: Theirs.ExecEvent;
  exec: Theirs.ExecResult; run: Theirs.ExecutionResult; file: Theirs.FileMetadata; part: Theirs.FileStreamEvent;
  watch: Theirs.FileWatchSSEEvent; clone: Theirs.GitCheckoutResult; log: Theirs.LogEvent; status: Theirs.ProcessStatus;
  restore: Theirs.RestoreBackupResult; line: Theirs.WaitForLogResult; tunnel: Theirs.TunnelInfo;
  start: Theirs.ProcessStartResult; list: Theirs.ProcessListResult; info: Theirs.ProcessInfoResult; kill: Theirs.ProcessKillResult;
  logs: Theirs.ProcessLogsResult; cleanup: Theirs.ProcessCleanupResult; session: Theirs.CreateSessionResponse;
}
interface OurResults {
  changes: Ours.CheckChangesResult; context: Ours.CodeContext; backup: Ours.DirectoryBackup; event: Ours.ExecEvent;
  exec: Ours.ExecResult; run: Ours.ExecutionResult; file: Ours.FileMetadata; part: Ours.FileStreamEvent;
  watch: Ours.FileWatchSSEEvent; clone: Ours.GitCheckoutResult; log: Ours.LogEvent; status: Ours.ProcessStatus;
  restore: Ours.RestoreBackupResult; line: Ours.WaitForLogResult; tunnel: Ours.TunnelInfo;
  start: Ours.ProcessStartResult; list: Ours.ProcessListResult; info: Ours.ProcessInfoResult; kill: Ours.ProcessKillResult;
  logs: Ours.ProcessLogsResult; cleanup: Ours.ProcessCleanupResult; session: Ours.CreateSessionResponse;
}
differ<Lacking<OurResults, TheirResults>,
  // Their stream begins with `process_info` too, and their types do not know it.
  'log'>();
differ<Unknown<OurResults, TheirResults>>();

// --- errors ---

type Errors<All> = { [Name in keyof All as Instance<All[Name]> extends Error ? Name : never]: Instance<All[Name]> };
/** Words of ours are among these, beside theirs. */
type Words = 'code' | 'operation' | 'context' | 'errorResponse' | 'toJSON';
type Plain<All> = { [Name in keyof All]: Omit<All[Name], Words> };
differ<Lacking<Plain<Errors<Here>>, Plain<Errors<There>>>>();
differ<Unknown<Errors<Here>, Errors<There>>>();
type JSONs<All> = { [Name in keyof All]: All[Name] extends { toJSON(): infer Told } ? Told : never };
differ<Unknown<JSONs<Errors<Here>>, JSONs<Errors<There>>>>();

// --- the lower layer ---

type Parts<All> = { [Name in keyof All as Name extends `${string}Client` ? Name : never]: keyof Instance<All[Name]> };
type MissingParts = { [Name in keyof Parts<There>]: Exclude<Parts<There>[Name], Parts<Here>[Name]> }[keyof Parts<There>];
differ<MissingParts>();
differ<Lacking<Ours.CommandClient, Theirs.CommandClient>>();
differ<Lacking<Ours.FileClient, Theirs.FileClient>>();
differ<Lacking<Ours.GitClient, Theirs.GitClient>>();
differ<Lacking<Ours.InterpreterClient, Theirs.InterpreterClient>>();
differ<Lacking<Ours.PortClient, Theirs.PortClient>>();
differ<Lacking<Ours.ProcessClient, Theirs.ProcessClient>>();
differ<Lacking<Ours.UtilityClient, Theirs.UtilityClient>>();
differ<Lacking<Ours.BackupClient, Theirs.BackupClient>>();
differ<Lacking<Ours.SandboxClient, Pick<Theirs.SandboxClient, 'setRetryTimeoutMs' | 'getTransportMode' | 'isWebSocketConnected' | 'connect' | 'disconnect'>>>();
differ<Lacking<Ours.WatchClient, Theirs.SandboxClient['watch']>>();

/** Types by their names. Those of what their container's server is sent are not here: there is no such server. */
export type {
  BackupOptions, BaseApiResponse, BaseExecOptions, BucketCredentials, BucketProvider, CheckChangesOptions, CheckChangesResult, CodeContext,
  ContainerUnavailableContext, ContainerUnavailableReason, CreateContextOptions, CreateSessionRequest, CreateSessionResponse, DirectoryBackup,
  ErrorResponse, ExecEvent, ExecOptions, ExecResult, ExecutionCallbacks, ExecutionResult, ExecutionSession, FileChunk, FileMetadata,
  FileStreamEvent, FileWatchSSEEvent, GitCheckoutResult, ISandbox, InterpreterClient, ListFilesOptions, LocalMountBucketOptions, LogEvent,
  MountBucketOptions, NamedTunnelInfo, OperationInterruptedContext, OperationInterruptedReason, Process, ProcessCleanupResult,
  ProcessInfoResult, ProcessKillResult, ProcessListResult, ProcessLogsResult, ProcessOptions, ProcessStartResult, ProcessStatus, PtyOptions,
  QuickTunnelInfo, RPCTransportContext, RPCTransportErrorKind, RemoteMountBucketOptions, RestoreBackupResult, RunCodeOptions,
  SandboxClientOptions, SandboxEnv, SandboxOptions, SandboxTransport, SessionOptions, StreamOptions, TunnelInfo, TunnelOptions,
  WaitForLogResult, WaitForPortOptions, WatchOptions,
} from '@stockade/sandbox';
