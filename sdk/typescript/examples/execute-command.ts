/** Runs a command and answers with what it printed. */
import { getSandbox, type FetchHandler } from '@stockade/sandbox';
import { start, type Env } from './env.js';

const handler: FetchHandler<Env> = {
  async fetch(_request, env) {
    const sandbox = getSandbox(env.Sandbox, 'execute-command');
    const { stdout, exitCode, success } = await sandbox.exec('python --version');
    return Response.json({ output: stdout, exitCode, success });
  },
};

export default handler;
await start(import.meta.url, handler);
