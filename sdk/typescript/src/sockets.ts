/**
 * WebSockets of the daemon. In a module of their own, whose types no other one exports: programs have `ws`, and not its types.
 */
import { connect } from 'node:net';
import { WebSocket } from 'ws';
import type { Core } from './core.js';
import { fromDaemon, lost } from './errors.js';

/** Frames of the daemon are smaller. */
export const FRAME_BYTES_MAX = 4 * 1024 * 1024;

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
    const refuse = (cause: Error) => reject(lost(cause.message, cause));
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
