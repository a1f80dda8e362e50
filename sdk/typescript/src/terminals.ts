/** Terminals: handles, and the WebSocket of the Cloudflare SDK for viewers in browsers. */
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketServer, type WebSocket } from 'ws';
import type { OpenTerminal, RecordSetting, TerminalEvent, TerminalView } from './api.js';
import type { Core } from './core.js';
import {
  ConnectionError, InvalidTerminalCursorError, SandboxError, StaleTerminalHandleError, TerminalControlError, failure, lost, retold,
} from './errors.js';
import { RESUMES_MAX, RESUME_INTERVAL_MS } from './processes.js';
import { FRAME_BYTES_MAX, framesOf, socketOf } from './sockets.js';
import { target } from './transport.js';
import { switching, upgradeRequired, wantsUpgrade } from './upgrade.js';
import type { PtyOptions } from './types.js';

export interface TerminalOptions {
  id?: string;
  /** Program and arguments; bash when absent. */
  command?: string | string[];
  cwd?: string;
  env?: Record<string, string>;
  cols?: number;
  rows?: number;
  /** How much is kept for those who come later: 256 KiB, whatever this says. */
  bufferSize?: number;
  /** Stockade: the session whose directory and variables it begins with. */
  session?: string;
  user?: string;
  /** Stockade: record it for asciinema; `recordings` of the sandbox has it. */
  record?: RecordSetting;
}

export type TerminalOutput =
  | { type: 'data'; data: Uint8Array; cursor: string }
  | { type: 'truncated'; bytes: number; cursor: string }
  | { type: 'terminal'; exitCode: number; cursor: string };

export function terminalSpec(options: TerminalOptions): OpenTerminal {
  const { command, cols, rows, cwd, env, session, user, id, record } = options;
  const spec: OpenTerminal = { columns: cols ?? 80, rows: rows ?? 24, env: env ?? {} };
  if (command !== undefined) spec.argv = typeof command === 'string' ? [command] : command;
  return {
    ...spec, ...(cwd && { cwd }), ...(session && { session }), ...(user && { user }), ...(id && { id }), ...(record && { record }),
  };
}

/** A terminal of a sandbox. */
export class Terminal {
  readonly id: string;
  #core: Core;
  #input: Promise<WebSocket> | undefined;

  constructor(core: Core, id: string) {
    this.#core = core;
    this.id = id;
  }

  #path(cursor?: number): string {
    const query = cursor === undefined ? {} : { cursor };
    return target('/v1/sandboxes/{id}/terminals/{terminal}/attach', { id: this.#core.id, terminal: this.id }, query);
  }

  info(): Promise<TerminalView> {
    return told(() => this.#core.call('getTerminal', { path: { terminal: this.id } }));
  }

  /** Types. Comes back when the bytes are on their way. */
  async write(data: string | Uint8Array): Promise<void> {
    const view = await this.info();
    this.#input ??= socketOf(this.#core, this.#path(view.cursor_next)).then((socket) => {
      socket.on('message', () => {});
      socket.once('close', () => { this.#input = undefined; });
      socket.resume();
      return socket;
    }, (error: unknown) => {
      this.#input = undefined;
      throw error;
    });
    const socket = await this.#input;
    await new Promise<void>((resolve, reject) => {
      socket.send(Buffer.from(data as Uint8Array), (error) => (error ? reject(error) : resolve()));
    });
  }

  async resize(cols: number, rows: number): Promise<void> {
    await told(() => this.#core.call('resizeTerminal', { path: { terminal: this.id }, body: { columns: cols, rows } }));
  }

  /** Output from a cursor on, or from the oldest byte that is kept, to the end. Resumes over broken connections. */
  async *output(options: { cursor?: string; signal?: AbortSignal } = {}): AsyncGenerator<TerminalOutput, void, undefined> {
    let cursor = cursorOf(options.cursor);
    for (let broke = 0; broke <= RESUMES_MAX; broke += 1) {
      options.signal?.throwIfAborted();
      try {
        const socket = await socketOf(this.#core, this.#path(cursor));
        const abort = () => socket.terminate();
        options.signal?.addEventListener('abort', abort, { once: true });
        for await (const { data, binary } of framesOf(socket)) {
          broke = 0;
          if (binary) {
            cursor = (cursor ?? 0) + data.length;
            yield { type: 'data', data, cursor: String(cursor) };
            continue;
          }
          const event = JSON.parse(data.toString()) as TerminalEvent;
          cursor = event.cursor;
          if (event.event === 'skipped') yield { type: 'truncated', bytes: event.bytes, cursor: String(cursor) };
          if (event.event === 'exit') {
            yield { type: 'terminal', exitCode: event.exit_code, cursor: String(cursor) };
            return;
          }
        }
        options.signal?.removeEventListener('abort', abort);
      } catch (error) {
        if (!(error instanceof ConnectionError)) throw stale(error);
      }
      options.signal?.throwIfAborted();
      await sleep(RESUME_INTERVAL_MS);
    }
    throw lost(`terminal ${this.id} cannot be looked at any more`);
  }

  async waitForExit(): Promise<{ exitCode: number }> {
    const { cursor_next } = await this.info();
    for await (const part of this.output({ cursor: String(cursor_next) })) {
      if (part.type === 'terminal') return { exitCode: part.exitCode };
    }
    throw failure(TerminalControlError, 'TERMINAL_CONTROL_ERROR', 'the terminal ended without an exit');
  }

  /** Ctrl-C. */
  interrupt(): Promise<void> {
    return this.write('\x03');
  }

  async signal(signal: string | number, tree = false): Promise<void> {
    await told(() => this.#core.call('signalTerminal', { path: { terminal: this.id }, body: { signal, tree } }));
  }

  /** Kills the program and forgets the terminal. */
  async terminate(): Promise<void> {
    await this.#core.call('closeTerminal', { path: { terminal: this.id } });
    (await this.#input)?.terminate();
  }

  /** Lets a browser look at it and type: the WebSocket protocol of the Cloudflare SDK. */
  async connect(request: Request, options: { cursor?: string; cols?: number; rows?: number } = {}): Promise<Response> {
    if (!wantsUpgrade(request)) return upgradeRequired();
    if (options.cols && options.rows) await this.resize(options.cols, options.rows);
    const cursor = cursorOf(options.cursor);
    const { cursor_next } = await this.info();
    const server = new WebSocketServer({ noServer: true, maxPayload: FRAME_BYTES_MAX });
    return switching((incoming, socket, head) => {
      server.handleUpgrade(incoming, socket, head, (viewer) => {
        viewer.on('error', () => viewer.terminate());
        bridge(this.#core, viewer, this.#path(cursor), cursor_next).catch((error: unknown) => {
          viewer.send(JSON.stringify({ type: 'error', message: (error as Error).message }));
          viewer.close(1011);
        });
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.terminate();
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'TERMINAL_NOT_FOUND') throw error;
    }
  }
}

/** A terminal that its handle outlived. */
function stale(error: unknown): unknown {
  const gone = error instanceof SandboxError && error.daemonCode === 'TERMINAL_NOT_FOUND';
  return gone ? retold(error, StaleTerminalHandleError, 'STALE_TERMINAL_HANDLE', 410) : error;
}

async function told<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw stale(error);
  }
}

/** A cursor that came with output before. */
function cursorOf(given: string | undefined): number | undefined {
  if (given === undefined || /^\d+$/.test(given)) return given === undefined ? undefined : Number(given);
  throw failure(InvalidTerminalCursorError, 'INVALID_TERMINAL_CURSOR', `${given} is no cursor of a terminal`, {
    httpStatus: 400, context: { cursor: given },
  });
}

/** What a viewer says in text frames. */
interface Resize { type: 'resize'; cols: number; rows: number }

/** What was there before as one frame, then `ready`, then what comes; and the other way what is typed. */
async function bridge(core: Core, viewer: WebSocket, path: string, readyAt: number): Promise<void> {
  const terminal = await socketOf(core, path);
  viewer.once('close', () => terminal.terminate());
  viewer.on('message', (data: Buffer, binary) => {
    if (binary) {
      terminal.send(data);
      return;
    }
    const control = said(data);
    if (control?.type === 'resize') terminal.send(JSON.stringify({ resize: { columns: control.cols, rows: control.rows } }));
  });
  const send = (data: Buffer | string) => new Promise<void>((resolve) => { viewer.send(data, () => resolve()); });
  let [cursor, before] = [0, [] as Buffer[] | undefined];
  const settle = async () => {
    if (!before || cursor < readyAt) return;
    const replay = Buffer.concat(before);
    before = undefined;
    if (replay.length > 0) await send(replay);
    await send(JSON.stringify({ type: 'ready' }));
  };
  for await (const { data, binary } of framesOf(terminal)) {
    if (binary) {
      cursor += data.length;
      if (before) before.push(data);
      else await send(data);
    } else {
      const event = JSON.parse(data.toString()) as TerminalEvent;
      cursor = event.cursor;
      if (event.event === 'exit') {
        await settle();
        await send(JSON.stringify({ type: 'exit', code: event.exit_code }));
      }
    }
    await settle();
  }
  viewer.close(1000);
}

function said(data: Buffer): Resize | undefined {
  try {
    return JSON.parse(data.toString()) as Resize;
  } catch {
    return undefined;
  }
}

/** The terminal of a session, opened when it is not there: one per session, for any number of viewers. */
export async function sessionTerminal(core: Core, session: string, options: PtyOptions): Promise<Terminal> {
  const id = `pty-${session}`;
  const spec = terminalSpec({ id, session, ...(options.shell && { command: options.shell }), ...sizeOf(options) });
  for (;;) {
    try {
      await core.call('openTerminal', { body: spec });
      return new Terminal(core, id);
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'TERMINAL_EXISTS') throw error;
    }
    const view = await core.call('getTerminal', { path: { terminal: id } });
    if (view.running) return new Terminal(core, id);
    await core.call('closeTerminal', { path: { terminal: id } });
  }
}

const sizeOf = (options: PtyOptions) => ({ ...(options.cols && { cols: options.cols }), ...(options.rows && { rows: options.rows }) });
