/** What all examples share: where the daemon is, of which image sandboxes are, and how a module is served. */
import { pathToFileURL } from 'node:url';
import { serve, type FetchHandler, type SandboxNamespace } from '@stockade/sandbox';

export interface Env { Sandbox: SandboxNamespace }

/** Serves a module when it is the program that was started: `STOCKADE_IMAGE=python PORT=8787 node execute-command.js`. */
export async function start(module: string, handler: FetchHandler<Env>): Promise<void> {
  if (module !== pathToFileURL(process.argv[1] ?? '').href) return;
  const port = Number(process.env['PORT'] ?? 8787);
  // The socket is that of $STOCKADE_SOCKET, or the default one. An image with Python's libraries: rootfs-builder build python
  const Sandbox = { defaults: { image: process.env['STOCKADE_IMAGE'] ?? 'python', resources: { memory_bytes: 1 << 30 } } };
  const { url } = await serve(handler, { Sandbox }, { port });
  console.log(url);
}
