/** Background processes: handles of both generations of the Cloudflare SDK, over the daemon's processes. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { LogEntry, Process as ProcessView, StartProcess, WaitFor } from './api.js';
import { timeOf, within } from './checks.js';
import type { Core, Started } from './core.js';
import {
  ConnectionError, InvalidProcessCursorError, InvalidProcessCwdError, InvalidProcessEnvironmentError, ProcessExitedBeforeLogError,
  ProcessExitedBeforeReadyError, ProcessReadyTimeoutError, ProcessSpawnFailedError, ProcessWaitTimeoutError, SandboxError,
  StaleProcessHandleError, failure, retold, type ErrorClass,
} from './errors.js';
import { eventsOf } from './sse.js';
import { bytesOf } from './transport.js';
import type {
  LogEvent, Process, ProcessLogs, ProcessOptions, ProcessStatus, WaitForExitResult, WaitForLogResult, WaitForPortOptions,
} from './types.js';

/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 5_000;
/** How often a broken stream is taken up again without anything having come, and how long is waited before. */
export const RESUMES_MAX = 20;
export const RESUME_INTERVAL_MS = 250;

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
      if (!isPassing(error) || ++broke > RESUMES_MAX) throw error;
    }
    signal?.throwIfAborted();
    await sleep(RESUME_INTERVAL_MS, undefined, signal ? { signal } : {});
  }
}

/** Whether the daemon has gone, and may come back. */
const isPassing = (error: unknown): boolean => error instanceof ConnectionError
  || (error instanceof SandboxError && error.daemonCode === 'SHUTTING_DOWN');

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

/** Ends a process, if it is still the same that has this id. */
export async function endSame(core: Core, { id, startTime }: Started): Promise<void> {
  try {
    const view = await core.call('getProcess', { path: { process: id } });
    if (view.state === 'running' && Date.parse(view.started_at) === startTime.getTime()) await end(core, id);
  } catch (error) {
    if (!(error instanceof SandboxError) || error.daemonCode !== 'PROCESS_NOT_FOUND') throw error;
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

/** The process that is waited for, as errors tell of it. */
interface Whom { id: string; command: string }

/** Waits, in the words of the Cloudflare SDK when it fails. */
async function waitFor(
  core: Core, process: Whom, wish: WaitFor, timeout: number | undefined, what: string, signal?: AbortSignal,
) {
  const until = performance.now() + (timeOf('timeout', timeout) ?? Infinity);
  try {
    for (let broke = 0; ; broke += 1) {
      try {
        const left = Math.max(1, Math.ceil(until - performance.now()));
        const body = until === Infinity ? { for: wish } : { for: wish, timeout_ms: left };
        return await core.call('waitForProcess', { path: { process: process.id }, body, signal });
      } catch (error) {
        // To wait changes nothing: it is begun again when the daemon is, for what is left of the time.
        if (!isPassing(error) || broke >= RESUMES_MAX || performance.now() > until) throw error;
        await sleep(RESUME_INTERVAL_MS, undefined, signal ? { signal } : {});
      }
    }
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (!(error instanceof SandboxError)) throw error;
    if (error.daemonCode === 'WAIT_TIMEOUT') throw tooLate(process, what, timeout, error);
    if (error.daemonCode === 'PROCESS_EXITED') throw endedBefore(process, what, error.context['exitCode'], error);
    throw error;
  }
}

function tooLate({ id, command }: Whom, condition: string, timeout: number | undefined, cause?: unknown): SandboxError {
  const message = `process ${id} was not ready within ${timeout} ms: ${condition}`;
  const context = { processId: id, command, condition, timeout };
  return failure(ProcessReadyTimeoutError, 'PROCESS_READY_TIMEOUT', message, { httpStatus: 408, context, cause });
}

function endedBefore({ id, command }: Whom, condition: string, exitCode: unknown, cause?: unknown): SandboxError {
  const message = `process ${id} exited before it was ready: ${condition}`;
  const context = { processId: id, command, condition, exitCode: exitCode ?? -1 };
  return failure(ProcessExitedBeforeReadyError, 'PROCESS_EXITED_BEFORE_READY', message, { context, cause });
}

/** Waits for a line. The daemon looks for text; JavaScript's regular expressions are looked for here. */
async function waitForLog(
  core: Core, process: Whom, pattern: string | RegExp, timeout: number | undefined, abort?: AbortSignal,
): Promise<WaitForLogResult> {
  if (typeof pattern === 'string') {
    const waited = await waitFor(core, process, { log: { text: pattern } }, timeout, `log line with ${pattern}`, abort);
    return { line: waited.log?.line ?? '' };
  }
  const expression = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
  const what = `log line that matches ${String(pattern)}`;
  const time = timeOf('timeout', timeout);
  const late = time === undefined ? undefined : within(time);
  const signal = AbortSignal.any([late, abort].filter((one) => one !== undefined));
  const rest = { stdout: new Line(), stderr: new Line() };
  try {
    for await (const part of follow(core, process.id, { signal })) {
      const ended = 'exit' in part;
      const lines = 'output' in part
        ? rest[part.output.stream].add(part.output.bytes)
        : ended ? [rest.stdout.last(), rest.stderr.last()] : [];
      for (const line of lines) {
        const match = expression.exec(line);
        if (match) return { line, match };
      }
      if (ended) throw endedBefore(process, what, part.exit.exit_code);
    }
  } catch (error) {
    if (late?.aborted && !abort?.aborted) throw tooLate(process, what, timeout);
    throw error;
  }
  throw endedBefore(process, what, undefined);
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
  // Of its own, as there, so that copies and JSON have them. What is not there yet is absent.
  declare readonly status: ProcessStatus;
  declare readonly endTime?: Date;
  declare readonly exitCode?: number;
  #core: Core;
  #view: ProcessView;

  constructor(core: Core, view: ProcessView, session?: string) {
    this.#core = core;
    this.#view = view;
    this.#seen(view);
    this.id = view.id;
    this.pid = view.pid;
    this.command = commandOf(view);
    this.startTime = new Date(view.started_at);
    if (session !== undefined) this.sessionId = session;
  }

  #seen(view: ProcessView): void {
    this.#view = view;
    const ended = {
      ...(view.ended_at && { endTime: new Date(view.ended_at) }), ...(view.exit_code != null && { exitCode: view.exit_code }),
    };
    Object.assign(this, { status: statusOf(view), ...ended });
  }

  /** Stockade: everything that the daemon says of it. */
  get details(): ProcessView { return this.#view; }

  async refresh(): Promise<this> {
    this.#seen(await this.#core.call('getProcess', { path: { process: this.id } }));
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
    return waitForLog(this.#core, this, pattern, timeout);
  }

  async waitForPort(port: number, options: WaitForPortOptions = {}): Promise<void> {
    const wish = portWish(port, options, 'http');
    await waitFor(this.#core, this, wish, options.timeout, `port ${port}`);
  }

  async waitForExit(timeout?: number): Promise<WaitForExitResult> {
    const waited = await waitFor(this.#core, this, { exit: {} }, timeout, 'exit');
    this.#seen(waited.process);
    return { exitCode: waited.process.exit_code ?? -1 };
  }

  /**
   * Stockade: output from the beginning, or from a cursor, to the end. Resumes over broken connections. `onDropped` hears how
   * many bytes are gone because the log's bound was passed before they were read.
   */
  async *output(
    options: { cursor?: number; signal?: AbortSignal; onDropped?: (bytes: number) => void } = {},
  ): AsyncGenerator<Output, void, undefined> {
    for await (const part of follow(this.#core, this.id, options)) {
      if ('output' in part) yield part.output;
      if ('dropped' in part) options.onDropped?.(part.dropped);
      if ('exit' in part) this.#seen(part.exit);
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

/** How long `startProcess` waits for a process that has ended already when its log is asked for next. */
const SETTLE_MS = 25;

/** As there, what a short command has written can be read when `startProcess` comes back. Handles of version 1.0 come at once. */
async function settle(core: Core, process: string): Promise<void> {
  try {
    await core.call('waitForProcess', { path: { process }, body: { for: { exit: {} }, timeout_ms: SETTLE_MS } });
  } catch (error) {
    // It runs on, or it has gone with its end.
    if (!(error instanceof SandboxError) || !SETTLED.has(String(error.daemonCode))) throw error;
  }
}
const SETTLED = new Set(['WAIT_TIMEOUT', 'PROCESS_NOT_FOUND']);

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
  await settle(core, handle.id);
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

/** Refusals of what `exec` starts, as version 1.0 has them. */
const NOT_SPAWNED: Partial<Record<string, readonly [string, ErrorClass]>> = {
  COMMAND_NOT_IN_IMAGE: ['PROCESS_SPAWN_FAILED', ProcessSpawnFailedError],
  COMMAND_NOT_EXECUTABLE: ['PROCESS_SPAWN_FAILED', ProcessSpawnFailedError],
  PROCESS_LIMIT: ['PROCESS_SPAWN_FAILED', ProcessSpawnFailedError],
  'INVALID_REQUEST cwd': ['INVALID_PROCESS_CWD', InvalidProcessCwdError],
  'INVALID_REQUEST env': ['INVALID_PROCESS_ENVIRONMENT', InvalidProcessEnvironmentError],
};

/** Starts a program and gives the handle of version 1.0. */
export async function spawn(core: Core, spec: StartProcess): Promise<SandboxProcess> {
  try {
    return new SandboxProcess(core, await core.call('startProcess', { body: spec }));
  } catch (error) {
    if (!(error instanceof SandboxError)) throw error;
    const field = String(error.context['field'] ?? '').split(/[.[]/)[0];
    const told = NOT_SPAWNED[field ? `${error.daemonCode} ${field}` : String(error.daemonCode)];
    throw told ? retold(error, told[1], told[0]) : error;
  }
}

/** What version 1.0 says of a process that ended before anything but a line. */
const EARLY = ['PROCESS_EXITED_BEFORE_READY', ProcessExitedBeforeReadyError] as const;

/** A cursor that came with output before. */
function cursorOf(since: string, end: number): number {
  const cursor = /^\d+$/.test(since) ? Number(since) : NaN;
  if (cursor <= end) return cursor;
  throw failure(InvalidProcessCursorError, 'INVALID_PROCESS_CURSOR', `${since} is no cursor of this log`, {
    httpStatus: 400, context: { field: 'since', cursor: since },
  });
}

/** How long is waited, and until when. */
interface Waiting { timeout?: number; signal?: AbortSignal }

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

  /** Does something with the process, in the words of version 1.0 when it fails. */
  async #told<T>(act: () => Promise<T>, early: readonly [string, ErrorClass] = EARLY): Promise<T> {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof SandboxError)) throw error;
      if (error.daemonCode === 'PROCESS_NOT_FOUND') throw retold(error, StaleProcessHandleError, 'STALE_PROCESS_HANDLE', 410);
      if (error instanceof ProcessReadyTimeoutError) throw retold(error, ProcessWaitTimeoutError, 'PROCESS_WAIT_TIMEOUT');
      if (error instanceof ProcessExitedBeforeReadyError) throw retold(error, early[1], early[0]);
      throw error;
    }
  }

  #view(signal?: AbortSignal): Promise<ProcessView> {
    return this.#told(() => this.#core.call('getProcess', { path: { process: this.id }, signal }));
  }

  #wait(wish: WaitFor, { timeout, signal }: Waiting, what: string) {
    return this.#told(() => waitFor(this.#core, { id: this.id, command: this.command.join(' ') }, wish, timeout, what, signal));
  }

  async status(): Promise<'running' | 'exited' | 'error'> {
    const { state } = await this.#view();
    return state === 'running' || state === 'exited' ? state : 'error';
  }

  /** Output. `since` is a cursor that came with a part before; without `follow` it ends with what there is now. */
  async *logs(
    options: { since?: string; replay?: boolean; follow?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<SandboxProcessLog, void, undefined> {
    const view = await this.#view(options.signal);
    const now = view.log.end_cursor;
    const cursor = options.since !== undefined ? cursorOf(options.since, now) : options.replay === false ? now : undefined;
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
    const time = timeOf('timeout', options.timeout);
    await this.#view(options.signal);
    const late = time === undefined ? undefined : within(time);
    const signal = AbortSignal.any([options.signal, late].filter((one) => one !== undefined));
    try {
      return await this.#output(options, signal);
    } catch (error) {
      if (!late?.aborted || options.signal?.aborted) throw error;
      const whom = { id: this.id, command: this.command.join(' ') };
      throw retold(tooLate(whom, 'exit', options.timeout), ProcessWaitTimeoutError, 'PROCESS_WAIT_TIMEOUT');
    }
  }

  async #output(options: { encoding?: string; maxBytes?: number }, signal: AbortSignal): Promise<SandboxProcessOutput> {
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

  async waitForExit(options: Waiting = {}): Promise<WaitForExitResult> {
    const waited = await this.#wait({ exit: {} }, options, 'exit');
    return { exitCode: waited.process.exit_code ?? -1 };
  }

  waitForLog(pattern: string | RegExp, options: Waiting = {}): Promise<WaitForLogResult> {
    const whom = { id: this.id, command: this.command.join(' ') };
    const early = ['PROCESS_EXITED_BEFORE_LOG', ProcessExitedBeforeLogError] as const;
    return this.#told(() => waitForLog(this.#core, whom, pattern, options.timeout, options.signal), early);
  }

  async waitForPort(port: number, options: WaitForPortOptions & Waiting = {}): Promise<void> {
    await this.#wait(portWish(port, options, 'tcp'), options, `port ${port}`);
  }

  kill(signal: number | string = 15): Promise<void> {
    return this.#told(() => signalOf(this.#core, this.id, signal));
  }
}
