/** Background processes: handles of both generations of the Cloudflare SDK, over the daemon's processes. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { LogEntry, Process as ProcessView, StartProcess, WaitFor } from './api.js';
import type { Core } from './core.js';
import {
  ConnectionError, ProcessExitedBeforeReadyError, ProcessReadyTimeoutError, SandboxError, failure,
} from './errors.js';
import { eventsOf } from './sse.js';
import { bytesOf } from './transport.js';
import type {
  LogEvent, Process, ProcessLogs, ProcessOptions, ProcessStatus, WaitForExitResult, WaitForLogResult, WaitForPortOptions,
} from './types.js';

/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 5_000;
/** How often a broken stream is taken up again without anything having come, and how long is waited before. */
const RESUMES_MAX = 20;
const RESUME_INTERVAL_MS = 250;

/** Output, with where it is in the log. */
export interface Output {
  stream: 'stdout' | 'stderr';
  bytes: Buffer;
  /** Behind these bytes: from here a reader goes on. */
  cursor: number;
}

/** What follows the log of a process: output, what was lost because the reader was too slow, and the end. */
export type Followed = { output: Output } | { dropped: number } | { exit: ProcessView };

export function decode(data: string, encoding: string): Buffer {
  return Buffer.from(data, encoding === 'base64' ? 'base64' : 'utf8');
}

/**
 * Follows a log to its end. When the connection breaks it goes on behind the last byte that came (`last-event-id`), so
 * that nothing is lost or doubled, over a restart of the daemon too.
 */
export async function* follow(
  core: Core, process: string,
  options: { cursor?: number; stream?: 'stdout' | 'stderr'; signal?: AbortSignal | undefined } = {},
): AsyncGenerator<Followed, void, undefined> {
  const { signal } = options;
  let cursor = options.cursor;
  for (let broke = 0; ;) {
    const headers = cursor === undefined ? {} : { 'last-event-id': String(cursor) };
    const query = options.stream ? { stream: options.stream } : {};
    try {
      const asked = { path: { process }, query, headers, accept: 'text/event-stream', signal };
      const answer = await core.open('readProcessLog', asked);
      for await (const { event, id, data } of eventsOf(answer, 'readProcessLog')) {
        if (id !== undefined) cursor = Number(id);
        broke = 0;
        if (event === 'exit') {
          yield { exit: data as ProcessView };
          return;
        }
        if (event === 'dropped') yield { dropped: (data as { bytes: number }).bytes };
        if (event !== 'stdout' && event !== 'stderr') continue;
        const entry = data as LogEntry;
        yield { output: { stream: event, bytes: decode(entry.data, entry.encoding), cursor: cursor ?? entry.cursor } };
      }
      broke += 1;
      if (broke > RESUMES_MAX) throw new Error(`the log of ${process} ends without an end`);
    } catch (error) {
      signal?.throwIfAborted();
      const passing = error instanceof ConnectionError
        || (error instanceof SandboxError && error.daemonCode === 'SHUTTING_DOWN');
      if (!passing || ++broke > RESUMES_MAX) throw error;
    }
    signal?.throwIfAborted();
    await sleep(RESUME_INTERVAL_MS, undefined, signal ? { signal } : {});
  }
}

export function statusOf(view: ProcessView): ProcessStatus {
  switch (view.state) {
    case 'running': return 'running';
    case 'exited':
      if (view.signal) return 'killed';
      return view.exit_code === 0 ? 'completed' : 'failed';
    default: return 'error';
  }
}

/** The command line as it was given. */
function commandOf(view: ProcessView): string {
  const [program, flag, script] = view.argv;
  if (view.argv.length === 3 && flag === '-c' && (program === 'bash' || program === '/bin/sh') && script) return script;
  return view.argv.join(' ');
}

/** Kills everything that a process started: SIGTERM, then SIGKILL for what is still there. */
async function end(core: Core, process: string): Promise<void> {
  try {
    await core.call('signalProcess', { path: { process }, body: { signal: 'SIGTERM', tree: true } });
    await core.call('waitForProcess', { path: { process }, body: { for: { exit: {} }, timeout_ms: GRACE_MS } });
  } catch (error) {
    if (!(error instanceof SandboxError)) throw error;
    if (error.daemonCode === 'PROCESS_EXITED') return;
    if (error.daemonCode !== 'WAIT_TIMEOUT') throw error;
    await signalOf(core, process, 'SIGKILL');
    await core.call('waitForProcess', { path: { process }, body: { for: { exit: {} } } });
  }
}

/** Sends a signal to the whole tree. One that has ended has nothing to hear. */
async function signalOf(core: Core, process: string, signal: string | number): Promise<void> {
  try {
    await core.call('signalProcess', { path: { process }, body: { signal, tree: true } });
  } catch (error) {
    if (!(error instanceof SandboxError) || error.daemonCode !== 'PROCESS_EXITED') throw error;
  }
}

/** What `waitForPort` waits for, in the daemon's words. */
function portWish(port: number, options: WaitForPortOptions, mode: 'http' | 'tcp'): WaitFor {
  if ((options.mode ?? mode) === 'tcp') return { port: { port } };
  const { status = { min: 200, max: 399 } } = options;
  const range = typeof status === 'number' ? { min: status, max: status } : status;
  return { port: { port, http: { path: options.path ?? '/', status_min: range.min, status_max: range.max } } };
}
/** Waits, in the words of the Cloudflare SDK when it fails. */
async function waitFor(core: Core, process: string, wish: WaitFor, timeout: number | undefined, what: string) {
  try {
    const body = timeout === undefined ? { for: wish } : { for: wish, timeout_ms: Math.max(1, Math.ceil(timeout)) };
    return await core.call('waitForProcess', { path: { process }, body });
  } catch (error) {
    if (!(error instanceof SandboxError)) throw error;
    const context = { ...error.context, processId: process, condition: what };
    const more = { context, cause: error };
    if (error.daemonCode === 'WAIT_TIMEOUT') throw tooLate(process, what, timeout, more);
    if (error.daemonCode === 'PROCESS_EXITED') throw endedBefore(process, what, more);
    throw error;
  }
}

function tooLate(process: string, what: string, timeout: number | undefined, more: object): SandboxError {
  const message = `process ${process} was not ready within ${timeout} ms: ${what}`;
  return failure(ProcessReadyTimeoutError, 'PROCESS_READY_TIMEOUT', message, { httpStatus: 408, ...more });
}

function endedBefore(process: string, what: string, more: object): SandboxError {
  const message = `process ${process} exited before it was ready: ${what}`;
  return failure(ProcessExitedBeforeReadyError, 'PROCESS_EXITED_BEFORE_READY', message, { httpStatus: 500, ...more });
}

/** Waits for a line. The daemon looks for text; JavaScript's regular expressions are looked for here. */
async function waitForLog(
  core: Core, process: string, pattern: string | RegExp, timeout: number | undefined,
): Promise<WaitForLogResult> {
  if (typeof pattern === 'string') {
    const waited = await waitFor(core, process, { log: { text: pattern } }, timeout, `log line with ${pattern}`);
    return { line: waited.log?.line ?? '' };
  }
  const expression = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
  const what = `log line that matches ${String(pattern)}`;
  const signal = timeout === undefined ? undefined : AbortSignal.timeout(timeout);
  const rest = { stdout: new Line(), stderr: new Line() };
  try {
    for await (const part of follow(core, process, { signal })) {
      const ended = 'exit' in part;
      const lines = 'output' in part
        ? rest[part.output.stream].add(part.output.bytes)
        : ended ? [rest.stdout.last(), rest.stderr.last()] : [];
      for (const line of lines) {
        const match = expression.exec(line);
        if (match) return { line, match };
      }
      if (ended) throw endedBefore(process, what, { context: { processId: process, exitCode: part.exit.exit_code } });
    }
  } catch (error) {
    if (signal?.aborted) throw tooLate(process, what, timeout, { context: { processId: process } });
    throw error;
  }
  throw endedBefore(process, what, {});
}

/** Bytes of one stream as lines. */
class Line {
  #decoder = new TextDecoder();
  #rest = '';

  add(bytes: Uint8Array): string[] {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines;
  }

  last(): string {
    return this.#rest + this.#decoder.decode();
  }
}

export async function logsOf(core: Core, process: string): Promise<ProcessLogs> {
  const read = async (stream: 'stdout' | 'stderr') => {
    const asked = { path: { process }, query: { stream }, accept: 'application/octet-stream' };
    return (await bytesOf(await core.open('readProcessLog', asked))).toString('utf8');
  };
  const [stdout, stderr] = await Promise.all([read('stdout'), read('stderr')]);
  return { stdout, stderr, processId: process };
}

/** The handle that `startProcess` gives. */
export class ProcessHandle implements Process {
  readonly id: string;
  readonly pid: number;
  readonly command: string;
  readonly startTime: Date;
  readonly sessionId?: string;
  #core: Core;
  #view: ProcessView;

  constructor(core: Core, view: ProcessView, session?: string) {
    this.#core = core;
    this.#view = view;
    this.id = view.id;
    this.pid = view.pid;
    this.command = commandOf(view);
    this.startTime = new Date(view.started_at);
    if (session !== undefined) this.sessionId = session;
  }

  get status(): ProcessStatus { return statusOf(this.#view); }
  get endTime(): Date | undefined { return this.#view.ended_at ? new Date(this.#view.ended_at) : undefined; }
  get exitCode(): number | undefined { return this.#view.exit_code ?? undefined; }
  /** Stockade: everything that the daemon says of it. */
  get details(): ProcessView { return this.#view; }

  async refresh(): Promise<this> {
    this.#view = await this.#core.call('getProcess', { path: { process: this.id } });
    return this;
  }

  async kill(signal?: string | number): Promise<void> {
    if (signal === undefined) await end(this.#core, this.id);
    else await signalOf(this.#core, this.id, signal);
  }

  async getStatus(): Promise<ProcessStatus> {
    return (await this.refresh()).status;
  }

  getLogs(): Promise<ProcessLogs> {
    return logsOf(this.#core, this.id);
  }

  waitForLog(pattern: string | RegExp, timeout?: number): Promise<WaitForLogResult> {
    return waitForLog(this.#core, this.id, pattern, timeout);
  }

  async waitForPort(port: number, options: WaitForPortOptions = {}): Promise<void> {
    const wish = portWish(port, options, 'http');
    await waitFor(this.#core, this.id, wish, options.timeout, `port ${port}`);
  }

  async waitForExit(timeout?: number): Promise<WaitForExitResult> {
    const waited = await waitFor(this.#core, this.id, { exit: {} }, timeout, 'exit');
    this.#view = waited.process;
    return { exitCode: waited.process.exit_code ?? -1 };
  }

  /** Stockade: output from the beginning, or from a cursor, to the end. Resumes over broken connections. */
  async *output(options: { cursor?: number; signal?: AbortSignal } = {}): AsyncGenerator<Output, void, undefined> {
    for await (const part of follow(this.#core, this.id, options)) {
      if ('output' in part) yield part.output;
      if ('exit' in part) this.#view = part.exit;
    }
  }

  async writeStdin(data: string | Uint8Array): Promise<void> {
    await this.#core.call('writeProcessStdin', { path: { process: this.id }, bytes: data });
  }

  async closeStdin(): Promise<void> {
    await this.#core.call('writeProcessStdin', { path: { process: this.id }, query: { close: true }, bytes: '' });
  }

  /** Stockade: kills it and removes it with its log. */
  async remove(): Promise<void> {
    await this.#core.call('removeProcess', { path: { process: this.id } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.remove();
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'PROCESS_NOT_FOUND') throw error;
    }
  }
}

/** Starts a process and calls back about it. */
export async function start(
  core: Core, spec: StartProcess, options: ProcessOptions, session?: string,
): Promise<ProcessHandle> {
  const { onOutput, onExit, onStart, onError } = options;
  let handle: ProcessHandle;
  try {
    handle = new ProcessHandle(core, await core.call('startProcess', { body: spec, signal: options.signal }), session);
  } catch (error) {
    onError?.(error as Error);
    throw error;
  }
  onStart?.(handle);
  if (onOutput || onExit) {
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    const listen = async () => {
      for await (const part of follow(core, handle.id, { signal: options.signal })) {
        if ('output' in part) {
          const text = decoders[part.output.stream].decode(part.output.bytes, { stream: true });
          if (text) onOutput?.(part.output.stream, text);
        }
        if ('exit' in part) onExit?.(part.exit.exit_code ?? null);
      }
    };
    listen().catch((error: unknown) => onError?.(error as Error));
  }
  return handle;
}

/** A log as the events of `streamProcessLogs`. */
export async function* logEvents(core: Core, process: string, signal?: AbortSignal): AsyncGenerator<LogEvent> {
  const view = await core.call('getProcess', { path: { process }, signal });
  const now = () => new Date().toISOString();
  const common = { processId: process };
  yield {
    type: 'process_info', timestamp: now(), data: '', ...common, pid: view.pid, command: commandOf(view), status: statusOf(view),
  };
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  for await (const part of follow(core, process, { signal })) {
    if ('output' in part) {
      const data = decoders[part.output.stream].decode(part.output.bytes, { stream: true });
      if (data) yield { type: part.output.stream, timestamp: now(), data, ...common };
    } else if ('exit' in part) {
      const exitCode = part.exit.exit_code ?? -1;
      yield { type: 'exit', timestamp: now(), data: `process exited with code ${exitCode}`, ...common, exitCode };
    }
  }
}

export interface SandboxProcessOutput {
  stdout: string | Uint8Array;
  stderr: string | Uint8Array;
  exitCode: number;
  signal?: string;
  timedOut: boolean;
  truncated: boolean;
}

export type SandboxProcessLog =
  | { type: 'stdout' | 'stderr'; data: Uint8Array; cursor: string }
  | { type: 'truncated'; bytes: number }
  | { type: 'exit'; exitCode: number };

/** The handle that `exec` gives for an argument vector: that of version 1.0 of the Cloudflare SDK. */
export class SandboxProcess {
  readonly id: string;
  readonly pid: number;
  readonly command: readonly string[];
  #core: Core;
  #exit: Promise<number> | undefined;

  constructor(core: Core, view: ProcessView) {
    this.#core = core;
    this.id = view.id;
    this.pid = view.pid;
    this.command = view.argv;
  }

  /** Comes when the process has ended. */
  get exitCode(): Promise<number> {
    this.#exit ??= this.waitForExit().then((exit) => exit.exitCode);
    return this.#exit;
  }

  async status(): Promise<'running' | 'exited' | 'error'> {
    const { state } = await this.#core.call('getProcess', { path: { process: this.id } });
    return state === 'running' || state === 'exited' ? state : 'error';
  }

  /** Output. `since` is a cursor that came with a part before; without `follow` it ends with what there is now. */
  async *logs(
    options: { since?: string; replay?: boolean; follow?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<SandboxProcessLog, void, undefined> {
    const view = await this.#core.call('getProcess', { path: { process: this.id }, signal: options.signal });
    const now = view.log.end_cursor;
    const cursor = options.since !== undefined ? Number(options.since) : options.replay === false ? now : undefined;
    const following = options.follow ?? true;
    if (!following && (cursor ?? view.log.start_cursor) >= now) return;
    const asked: { cursor?: number; signal?: AbortSignal } = {};
    if (cursor !== undefined) asked.cursor = cursor;
    if (options.signal) asked.signal = options.signal;
    for await (const part of follow(this.#core, this.id, asked)) {
      if ('dropped' in part) yield { type: 'truncated', bytes: part.dropped };
      else if ('exit' in part) yield { type: 'exit', exitCode: part.exit.exit_code ?? -1 };
      else {
        yield { type: part.output.stream, data: part.output.bytes, cursor: String(part.output.cursor) };
        if (!following && part.output.cursor >= now) return;
      }
    }
  }

  /** Waits for the end and gives everything. */
  async output(
    options: { encoding?: 'utf8' | 'utf-8' | 'buffer'; maxBytes?: number; timeout?: number; signal?: AbortSignal } = {},
  ): Promise<SandboxProcessOutput> {
    const signals = [options.signal, options.timeout === undefined ? undefined : AbortSignal.timeout(options.timeout)];
    const signal = AbortSignal.any(signals.filter((one) => one !== undefined));
    const parts: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] };
    let [left, truncated] = [options.maxBytes ?? Infinity, false];
    let end: ProcessView | undefined;
    for await (const part of follow(this.#core, this.id, { signal })) {
      if ('exit' in part) end = part.exit;
      else if ('dropped' in part) truncated = true;
      else {
        const kept = part.output.bytes.subarray(0, left);
        truncated ||= kept.length < part.output.bytes.length;
        left -= kept.length;
        parts[part.output.stream].push(kept);
      }
    }
    const value = (stream: 'stdout' | 'stderr') => {
      const bytes = Buffer.concat(parts[stream]);
      return options.encoding === 'buffer' ? bytes : bytes.toString('utf8');
    };
    const result = { stdout: value('stdout'), stderr: value('stderr'), exitCode: end?.exit_code ?? -1 };
    const signalled = end?.signal ? { signal: end.signal } : {};
    return { ...result, ...signalled, timedOut: end?.timed_out ?? false, truncated };
  }

  async waitForExit(options: { timeout?: number } = {}): Promise<WaitForExitResult> {
    const waited = await waitFor(this.#core, this.id, { exit: {} }, options.timeout, 'exit');
    return { exitCode: waited.process.exit_code ?? -1 };
  }

  waitForLog(pattern: string | RegExp, options: { timeout?: number } = {}): Promise<WaitForLogResult> {
    return waitForLog(this.#core, this.id, pattern, options.timeout);
  }

  async waitForPort(port: number, options: WaitForPortOptions = {}): Promise<void> {
    await waitFor(this.#core, this.id, portWish(port, options, 'tcp'), options.timeout, `port ${port}`);
  }

  kill(signal: number | string = 15): Promise<void> {
    return signalOf(this.#core, this.id, signal);
  }
}
