/**
 * The client of Stockade. `getSandbox` gives a sandbox with the methods of the Cloudflare Sandbox SDK; `Stockade` is the
 * daemon.
 *
 * ```
 * index ─ stockade ─ sandbox ─ session ─┬─ commands, attach      one answer, or a stream
 *                                       ├─ processes             logs, followed over broken connections
 *                                       ├─ files, terminals
 *                                       └─ ports, network, upgrade     node:http on the other side
 *                       core ─ transport, whole, sockets ─ the socket;  api: the types, written from the API's description
 * client: the Cloudflare SDK's lower layer;  openai (and v4a), opencode, bridge, xterm: entry points of their own
 * ```
 */
export { Stockade, getSandbox, proxyTerminal, proxyToSandbox, type ClientOptions, type Progress, type SandboxEnv, type SandboxNamespace } from './stockade.js';
export { Sandbox, type Sandbox as ISandbox } from './sandbox.js';
export { ExecutionSession } from './session.js';
export { RunningCommand } from './attach.js';
export { Network, type OutboundHandler, type OutboundHandlerContext } from './network.js';
export { ProcessHandle, SandboxProcess, type Output, type SandboxProcessLog, type SandboxProcessOutput } from './processes.js';
export { Terminal, type TerminalOptions, type TerminalOutput } from './terminals.js';
export { createServer, serve, upgrade, type FetchHandler } from './upgrade.js';
export { asyncIterableToSSEStream, parseSSEStream, responseToAsyncIterable } from './sse.js';
export { collectFile, streamFile } from './files.js';
export { isDurableObjectCodeUpdateReset, isExecResult, isProcess, isProcessStatus } from './guards.js';
export { CodeInterpreter } from './interpreter.js';
export type { StockadeOptions, Body } from './transport.js';
export type {
  ChartAxes, ChartData, ChartElement, CodeContext, CreateContextOptions, DetachOptions, DetachedRun, ExecutionError, ExecutionResult, OutputMessage, Result, RunCodeOptions,
} from './interpreter.js';
export {
  BackupClient, CommandClient, ContainerProxy, FileClient, GitClient, InterpreterClient, PortClient, ProcessClient, SandboxClient,
  UtilityClient, WatchClient,
} from './client.js';
export type {
  BaseApiResponse, CreateSessionRequest, CreateSessionResponse, ExecutionCallbacks, PortWatchRequest, ProcessCleanupResult, ProcessInfo,
  ProcessInfoResult, ProcessKillResult, ProcessListResult, ProcessLogsResult, ProcessStartResult, SandboxClientOptions,
} from './client.js';
export * from './errors.js';
export type * from './types.js';
export type * as api from './api.js';
