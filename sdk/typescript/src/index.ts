/**
 * The client of Stockade. `getSandbox` gives a sandbox with the methods of the Cloudflare Sandbox SDK; `Stockade` is the
 * daemon.
 *
 * ```
 * index ─ stockade ─ sandbox ─ session ─┬─ commands, attach      one answer, or a stream
 *                                       ├─ processes             logs, followed over broken connections
 *                                       ├─ files, terminals
 *                                       └─ ports, network, upgrade     node:http on the other side
 *                       core ─ transport ─ the socket;  api: the types, written from the API's description
 * ```
 */
export { Stockade, getSandbox, proxyTerminal, proxyToSandbox, type Progress, type SandboxEnv, type SandboxNamespace } from './stockade.js';
export { Sandbox } from './sandbox.js';
export { ExecutionSession } from './session.js';
export { RunningCommand } from './attach.js';
export { Network, type OutboundHandler } from './network.js';
export { ProcessHandle, SandboxProcess, type Output, type SandboxProcessLog, type SandboxProcessOutput } from './processes.js';
export { Terminal, type TerminalOptions, type TerminalOutput } from './terminals.js';
export { createServer, serve, upgrade, type FetchHandler } from './upgrade.js';
export { asyncIterableToSSEStream, parseSSEStream, responseToAsyncIterable } from './sse.js';
export { collectFile, streamFile } from './files.js';
export type { StockadeOptions, Body } from './transport.js';
export type {
  CodeContext, CreateContextOptions, ExecutionError, ExecutionResult, OutputMessage, Result, RunCodeOptions,
} from './interpreter.js';
export * from './errors.js';
export type * from './types.js';
export type * as api from './api.js';
