/** Lays out a project and reads a file of it back. */
import { getSandbox, type FetchHandler } from '@stockade/sandbox';
import { start, type Env } from './env.js';

const handler: FetchHandler<Env> = {
  async fetch(_request, env) {
    const sandbox = getSandbox(env.Sandbox, 'file-operations');
    await sandbox.mkdir('/workspace/project/src', { recursive: true });
    const manifest = JSON.stringify({ name: 'my-app', version: '1.0.0' });
    await sandbox.writeFile('/workspace/project/package.json', manifest);
    const file = await sandbox.readFile('/workspace/project/package.json');
    return Response.json({ content: file.content, mimeType: file.mimeType });
  },
};

export default handler;
await start(import.meta.url, handler);
