/** An add-on for xterm.js: a terminal of a sandbox in a browser, connected again when the connection breaks. */
import type { IDisposable, ITerminalAddon, Terminal } from '@xterm/xterm';

export type ConnectionState = 'disconnected' | 'connecting' | 'connected';

export interface ConnectionTarget {
  sandboxId: string;
  sessionId?: string;
}

export interface SandboxAddonOptions {
  /** The address of a terminal's WebSocket; asked for with every attempt. */
  getWebSocketUrl: (target: ConnectionTarget & { origin: string }) => string;
  /** Whether to connect again. True when absent. */
  reconnect?: boolean;
  onStateChange?: (state: ConnectionState, error?: Error) => void;
}

const FIRST_DELAY_MS = 1000;
const DELAY_MAX_MS = 32_000;
const ATTEMPTS_MAX = 10;

export class SandboxAddon implements ITerminalAddon {
  #options: SandboxAddonOptions;
  #terminal: Terminal | undefined;
  #listeners: IDisposable[] = [];
  #socket: WebSocket | undefined;
  #target: ConnectionTarget | undefined;
  #attempts = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #state: ConnectionState = 'disconnected';

  constructor(options: SandboxAddonOptions) {
    this.#options = options;
  }

  get state(): ConnectionState { return this.#state; }
  get sandboxId(): string | undefined { return this.#target?.sandboxId; }
  get sessionId(): string | undefined { return this.#target?.sessionId; }

  activate(terminal: Terminal): void {
    this.#terminal = terminal;
    const encoder = new TextEncoder();
    this.#listeners.push(
      terminal.onData((text) => this.#send(encoder.encode(text))),
      terminal.onBinary((text) => this.#send(Uint8Array.from(text, (character) => character.charCodeAt(0)))),
      terminal.onResize(({ cols, rows }) => this.#send(JSON.stringify({ type: 'resize', cols, rows }))),
    );
  }

  dispose(): void {
    this.disconnect();
    for (const listener of this.#listeners) listener.dispose();
    this.#listeners = [];
  }

  /** Looks at a terminal, instead of the one before. */
  connect(target: ConnectionTarget): void {
    this.disconnect();
    this.#target = target;
    this.#attempts = 0;
    this.#open();
  }

  disconnect(): void {
    clearTimeout(this.#timer);
    this.#target = undefined;
    this.#socket?.close();
    this.#socket = undefined;
    this.#become('disconnected');
  }

  #send(data: string | Uint8Array<ArrayBuffer>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(data);
  }

  #become(state: ConnectionState, error?: Error): void {
    if (this.#state === state && !error) return;
    this.#state = state;
    this.#options.onStateChange?.(state, error);
  }

  #open(): void {
    const target = this.#target;
    if (!target) return;
    this.#become('connecting');
    const origin = location.origin.replace(/^http/, 'ws');
    const socket = new WebSocket(this.#options.getWebSocketUrl({ ...target, origin }));
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    let ended = false;
    let first = true;
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (typeof data !== 'string') {
        // What comes first is all that is kept: what is on the screen already would be there twice.
        if (first) this.#terminal?.reset();
        first = false;
        this.#terminal?.write(new Uint8Array(data));
        return;
      }
      const event = JSON.parse(data) as { type: string; message?: string };
      if (event.type === 'ready') this.#ready();
      else if (event.type === 'exit') ended = true;
      else if (event.type === 'error') this.#become(this.#state, new Error(event.message));
    };
    socket.onclose = () => {
      if (this.#socket === socket) this.#closed(ended);
    };
  }

  #ready(): void {
    this.#attempts = 0;
    this.#become('connected');
    if (this.#terminal) this.#send(JSON.stringify({ type: 'resize', cols: this.#terminal.cols, rows: this.#terminal.rows }));
  }

  #closed(ended: boolean): void {
    this.#socket = undefined;
    this.#attempts += 1;
    if (ended || this.#options.reconnect === false || this.#attempts > ATTEMPTS_MAX) {
      this.#become('disconnected', ended ? undefined : new Error('the connection to the terminal broke'));
      return;
    }
    this.#become('connecting');
    const delay = Math.min(FIRST_DELAY_MS * 2 ** (this.#attempts - 1), DELAY_MAX_MS);
    this.#timer = setTimeout(() => this.#open(), delay * (0.9 + Math.random() / 5));
  }
}
