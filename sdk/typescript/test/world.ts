/** What the tests share: the daemon that they are given, and a connection to it that breaks. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getSandbox, type Sandbox, type SandboxNamespace, type SandboxOptions } from '@stockade/sandbox';

/** The socket of the daemon under test. */
export const SOCKET = process.env['STOCKADE_SOCKET'] ?? '';

/** Our own image with Python's libraries, which the examples are for, if it was built; and sandboxes of it. */
export const PYTHON_IMAGE = process.env['STOCKADE_TEST_PYTHON'];
export const PYTHON: SandboxNamespace = {
  socket: SOCKET, ...(PYTHON_IMAGE && { defaults: { image: PYTHON_IMAGE, resources: { memory_bytes: 1 << 30 } } }),
};
export const needsPython = { skip: !PYTHON_IMAGE && 'the image python was not built' };

/** Node wants more memory than sandboxes have by default on small hosts. */
export const ROOMY: SandboxOptions = { resources: { memory_bytes: 1 << 30 } };

/** A sandbox of one test, which goes with it. */
export function fresh(options?: SandboxOptions, socket = SOCKET): Sandbox {
  return getSandbox(socket, `ts-${randomBytes(6).toString('hex')}`, options);
}

/** A socket that passes everything on to the daemon, and breaks each connection after so many bytes of answers. */
export class Breaking implements AsyncDisposable {
  broken = 0;
  private constructor(readonly socket: string, readonly directory: string, readonly server: Server) {}

  static async after(bytes: () => number): Promise<Breaking> {
    const directory = await mkdtemp(join(tmpdir(), 'stockade-breaking-'));
    const server = createServer({ allowHalfOpen: true });
    const breaking = new Breaking(join(directory, 's'), directory, server);
    server.on('connection', (client: Socket) => {
      const daemon = connect(SOCKET);
      let left = bytes();
      const end = () => {
        client.destroy();
        daemon.destroy();
      };
      client.on('error', end).on('close', end).pipe(daemon);
      daemon.on('error', end).on('close', end).on('data', (data: Buffer) => {
        client.write(data.subarray(0, Math.max(0, left)));
        left -= data.length;
        if (left > 0) return;
        breaking.broken += 1;
        client.end(() => end());
      });
    });
    await new Promise<void>((resolve) => { server.listen(breaking.socket, resolve); });
    return breaking;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Everything that an iterable gives. */
export async function all<T>(values: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const value of values) list.push(value);
  return list;
}
