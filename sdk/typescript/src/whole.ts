/**
 * Large files whole, as fast as Node reads: over a connection of their own, in large pieces, into memory that is had once. The
 * streams of `node:http` read 64 KiB at a time, each into new memory, which takes twice as long.
 */
import { connect } from 'node:net';
import type { OutgoingHttpHeaders } from 'node:http';

/** Answers that are longer are worth a connection of their own. */
export const LARGE_BYTES = 4 * 1024 * 1024;

const PIECE_BYTES = 1024 * 1024;
const HEAD_BYTES_MAX = 64 * 1024;
const BLANK = '\r\n\r\n';

/** The length of the body that follows a head, if it is that of a whole answer or of the part that was asked for. */
function lengthOf(head: string): number | undefined {
  const length = /^HTTP\/1\.1 20[06] /.test(head) ? /\r\ncontent-length: *(\d+)\r?$/im.exec(head) : null;
  return length ? Number(length[1]) : undefined;
}

/**
 * The body of the answer to a GET. Nothing when it did not come whole, whyever: the ordinary way, which can be gone after that,
 * says what is wrong.
 */
export function readWhole(
  socket: string, path: string, headers: OutgoingHttpHeaders, signal?: AbortSignal,
): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    let head = Buffer.alloc(0);
    let whole: Buffer | undefined;
    let at = 0;
    const take = (bytes: Uint8Array): void => {
      if (!whole) {
        head = Buffer.concat([head, bytes]);
        const end = head.indexOf(BLANK);
        if (end < 0 && head.length < HEAD_BYTES_MAX) return;
        const length = end < 0 ? undefined : lengthOf(head.toString('latin1', 0, end + 2));
        if (length === undefined) {
          connection.destroy();
          return;
        }
        whole = Buffer.allocUnsafeSlow(length);
        bytes = head.subarray(end + BLANK.length);
      }
      whole.set(bytes.subarray(0, whole.length - at), at);
      at += bytes.length;
      if (at < whole.length) return;
      resolve(whole);
      connection.destroy();
    };
    const callback = (count: number, piece: Uint8Array): boolean => {
      take(piece.subarray(0, count));
      return true;
    };
    const connection = connect({ path: socket, onread: { buffer: Buffer.allocUnsafeSlow(PIECE_BYTES), callback } });
    const abort = (): void => {
      reject(signal?.reason as Error);
      connection.destroy();
    };
    signal?.addEventListener('abort', abort, { once: true });
    connection.once('error', () => resolve(undefined));
    connection.once('close', () => {
      signal?.removeEventListener('abort', abort);
      resolve(undefined);
    });
    const lines = Object.entries({ host: 'stockade', connection: 'close', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
    connection.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
  });
}
