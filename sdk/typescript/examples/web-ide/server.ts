/**
 * A small web IDE: an editor whose file is in a sandbox, a terminal by xterm, and a live preview of the server that runs there. Each
 * visitor of `/?id=NAME` has the sandbox of that name.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { getSandbox, proxyTerminal, proxyToSandbox, type FetchHandler, type Sandbox } from '@stockade/sandbox';
import { start, type Env } from '../env.js';

const PORT = 8000;
const FILE = '/workspace/index.html';
const FIRST = '<!doctype html><h1>Hello</h1>';

const modules = createRequire(import.meta.url);
/** What the page loads: from this directory, and from the packages as they are. */
const ASSETS: Record<string, [string, string]> = {
  '/xterm.js': [modules.resolve('@xterm/xterm'), 'text/javascript'],
  '/xterm.css': [modules.resolve('@xterm/xterm/css/xterm.css'), 'text/css'],
  '/addon.js': [new URL(import.meta.resolve('@stockade/sandbox/xterm')).pathname, 'text/javascript'],
};

async function open(env: Env, id: string): Promise<Sandbox> {
  const sandbox = getSandbox(env.Sandbox, id, { labels: { app: 'web-ide' } });
  if (!(await sandbox.exists(FILE)).exists) await sandbox.writeFile(FILE, FIRST);
  if ((await sandbox.getProcess('preview'))?.status !== 'running') {
    const server = await sandbox.startProcess(`exec python3 -m http.server ${PORT}`, { processId: 'preview' });
    await server.waitForPort(PORT, { timeout: 30_000 });
  }
  return sandbox;
}

const page = (id: string, preview: string) => `<!doctype html><meta charset="utf-8"><title>IDE</title>
<link rel="stylesheet" href="/xterm.css"><script src="/xterm.js"></script>
<style>body { display: grid; grid: 54vh 46vh / 1fr 1fr; margin: 0; overflow: hidden } #terminal { grid-column: span 2 }
iframe, textarea { border: 0; width: 100%; height: 100%; box-sizing: border-box } textarea { font: 14px monospace; padding: 10px }</style>
<textarea id="editor" spellcheck="false"></textarea><iframe id="preview" src="${preview}"></iframe><div id="terminal"></div>
<script type="module">
import { SandboxAddon } from '/addon.js';
const file = '/file?id=${id}';
const editor = document.getElementById('editor');
const frame = document.getElementById('preview');
editor.value = await (await fetch(file)).text();
editor.addEventListener('change', async () => {
  await fetch(file, { method: 'PUT', body: editor.value });
  // Not from the cache: files that change within a second look the same to HTTP.
  frame.src = frame.src.split('?')[0] + '?' + Date.now();
  document.title = 'saved';
});
const terminal = new Terminal({ rows: 14 });
terminal.open(document.getElementById('terminal'));
const addon = new SandboxAddon({
  getWebSocketUrl: ({ origin, sandboxId }) => origin + '/terminal?id=' + sandboxId,
  onStateChange: state => { document.body.dataset.terminal = state },
});
terminal.loadAddon(addon);
addon.connect({ sandboxId: '${id}' });
Object.assign(window, { terminal, editor, ready: true });
</script>`;

const handler: FetchHandler<Env> = {
  async fetch(request, env) {
    const preview = await proxyToSandbox(request, env);
    if (preview) return preview;
    const url = new URL(request.url);
    const asset = ASSETS[url.pathname];
    if (asset) return new Response(new Uint8Array(await readFile(asset[0])), { headers: { 'content-type': asset[1] } });
    const id = url.searchParams.get('id') ?? '';
    if (!/^[a-z0-9][a-z0-9-]{0,30}$/.test(id)) return new Response('name a sandbox: /?id=mine', { status: 400 });
    const sandbox = await open(env, id);
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /': {
        const [known] = await sandbox.getExposedPorts(url.host);
        const exposed = known ?? (await sandbox.exposePort(PORT, { hostname: url.host }));
        return new Response(page(id, exposed.url), { headers: { 'content-type': 'text/html' } });
      }
      case 'GET /file': return new Response((await sandbox.readFile(FILE)).content);
      case 'PUT /file':
        await sandbox.writeFile(FILE, await request.text());
        return new Response(null, { status: 204 });
      case 'GET /terminal': return proxyTerminal(sandbox, 'default', request);
      default: return new Response('there is no such page', { status: 404 });
    }
  },
};

export default handler;
await start(import.meta.url, handler);
