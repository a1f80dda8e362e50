/** Terminals: handles, and the WebSocket of the Cloudflare SDK for viewers in browsers. */
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket, WebSocketServer } from 'ws';
import type { OpenTerminal, TerminalEvent, TerminalView } from './api.js';
import type { Core } from './core.js';
import { ConnectionError, SandboxError, failure, fromDaemon } from './errors.js';
import { target } from './transport.js';
import { switching } from './upgrade.js';
import type { PtyOptions } from './types.js';

const RESUMES_MAX = 20;
const RESUME_INTERVAL_MS = 250;
/** Frames of the daemon are smaller. */
const FRAME_BYTES_MAX = 4 * 1024 * 1024;

/** A WebSocket of the daemon, open. */
export function socketOf(core: Core, path: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://stockade${path}`, {
    createConnection: () => connect(core.transport.socket), maxPayload: FRAME_BYTES_MAX, perMessageDeflate: false,
  });
  return new Promise((resolve, reject) => {
    socket.once('open', () => {
      socket.pause();
      socket.off('error', refuse);
      socket.on('error', () => socket.terminate());
      resolve(socket);
    });
    const refuse = (cause: Error) => reject(failure(ConnectionError, 'RPC_TRANSPORT_ERROR', cause.message, { httpStatus: 503, cause }));
    socket.once('error', refuse);
    socket.once('unexpected-response', (_request, response) => {
      let text = '';
      response.on('data', (part) => { text += String(part); });
      response.on('end', () => {
        try {
          reject(fromDaemon(JSON.parse(text), response.statusCode ?? 500, 'attach'));
        } catch (error) {
          refuse(error as Error);
        }
      });
    });
  });
}

/** The frames of a WebSocket, one by one; a reader that is slow slows the sender. Ends when it is closed. */
export async function* framesOf(socket: WebSocket): AsyncGenerator<{ data: Buffer; binary: boolean }, void, undefined> {
  const queue: { data: Buffer; binary: boolean }[] = [];
  let closed = socket.readyState >= WebSocket.CLOSING;
  let wake = () => {};
  socket.on('message', (data, binary) => {
    queue.push({ data: data as Buffer, binary });
    socket.pause();
    wake();
  });
  socket.once('close', () => {
    closed = true;
    wake();
  });
  socket.resume();
  try {
    for (;;) {
      const frame = queue.shift();
      if (frame) {
        yield frame;
      } else if (closed) {
        return;
      } else {
        const woken = new Promise<void>((resolve) => { wake = resolve; });
        socket.resume();
        await woken;
      }
    }
  } finally {
    socket.terminate();
  }
}

export interface TerminalOptions {
  id?: string;
  /** Program and arguments; bash when absent. */
  command?: string | string[];
  cwd?: string;
  env?: Record<string, string>;
  cols?: number;
  rows?: number;
  /** Stockade: the session whose directory and variables it begins with. */
  session?: string;
  user?: string;
}

export type TerminalOutput =
  | { type: 'data'; data: Uint8Array; cursor: string }
  | { type: 'truncated'; bytes: number; cursor: string }
  | { type: 'terminal'; exitCode: number; cursor: string };

export function terminalSpec(options: TerminalOptions): OpenTerminal {
  const { command, cols, rows, cwd, env, session, user, id } = options;
  const spec: OpenTerminal = { columns: cols ?? 80, rows: rows ?? 24, env: env ?? {} };
  if (command !== undefined) spec.argv = typeof command === 'string' ? [command] : command;
  return { ...spec, ...(cwd && { cwd }), ...(session && { session }), ...(user && { user }), ...(id && { id }) };
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
    return this.#core.call('getTerminal', { path: { terminal: this.id } });
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
    await this.#core.call('resizeTerminal', { path: { terminal: this.id }, body: { columns: cols, rows } });
  }

  /** Output from a cursor on, or from the oldest byte that is kept, to the end. Resumes over broken connections. */
  async *output(options: { cursor?: string; signal?: AbortSignal } = {}): AsyncGenerator<TerminalOutput, void, undefined> {
    let cursor = options.cursor === undefined ? undefined : Number(options.cursor);
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
        if (!(error instanceof ConnectionError)) throw error;
      }
      options.signal?.throwIfAborted();
      await sleep(RESUME_INTERVAL_MS);
    }
    throw failure(ConnectionError, 'RPC_TRANSPORT_ERROR', `terminal ${this.id} cannot be looked at any more`, { httpStatus: 503 });
  }

  async waitForExit(): Promise<{ exitCode: number }> {
    const { cursor_next } = await this.info();
    for await (const part of this.output({ cursor: String(cursor_next) })) {
      if (part.type === 'terminal') return { exitCode: part.exitCode };
    }
    throw failure(SandboxError, 'TERMINAL_CONTROL_ERROR', 'the terminal ended without an exit');
  }

  /** Ctrl-C. */
  interrupt(): Promise<void> {
    return this.write('\x03');
  }

  async signal(signal: string | number, tree = false): Promise<void> {
    await this.#core.call('signalTerminal', { path: { terminal: this.id }, body: { signal, tree } });
  }

  /** Kills the program and forgets the terminal. */
  async terminate(): Promise<void> {
    await this.#core.call('closeTerminal', { path: { terminal: this.id } });
    (await this.#input)?.terminate();
  }

  /** Lets a browser look at it and type: the WebSocket protocol of the Cloudflare SDK. */
  async connect(_request: Request, options: { cursor?: string; cols?: number; rows?: number } = {}): Promise<Response> {
    if (options.cols && options.rows) await this.resize(options.cols, options.rows);
    const cursor = options.cursor === undefined ? undefined : Number(options.cursor);
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
    const control = told(data);
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

function told(data: Buffer): Resize | undefined {
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
