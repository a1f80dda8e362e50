/** What all examples share: where the daemon is, and how a module is served. */
import { pathToFileURL } from 'node:url';
import { serve, type FetchHandler, type SandboxNamespace } from '@stockade/sandbox';

export interface Env { Sandbox: SandboxNamespace }

/** Serves a module when it is the program that was started: `PORT=8787 node built/examples/execute-command.js`. */
export async function start(module: string, handler: FetchHandler<Env>): Promise<void> {
  if (module !== pathToFileURL(process.argv[1] ?? '').href) return;
  const port = Number(process.env['PORT'] ?? 8787);
  // An empty name is the socket of $STOCKADE_SOCKET, or the default one.
  const { url } = await serve(handler, { Sandbox: process.env['STOCKADE_SOCKET'] ?? '' }, { port });
  console.log(url);
}
