import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { serve } from '@stockade/sandbox';
import ide from '../examples/web-ide/server.js';
import { PYTHON, fresh } from './world.js';

const BROWSER = '/usr/bin/chromium-headless-shell';

/** A page of a browser, spoken to by Chrome's own protocol. */
class Page {
  #id = 0;
  private constructor(readonly socket: WebSocket) {}

  static async open(devtools: string, url: string): Promise<Page> {
    const answer = await fetch(`${devtools}/json/new?${encodeURIComponent(url)}`, { method: 'PUT' });
    const { webSocketDebuggerUrl } = (await answer.json()) as { webSocketDebuggerUrl: string };
    const socket = new WebSocket(webSocketDebuggerUrl);
    await once(socket, 'open');
    return new Page(socket);
  }

  /** The value of an expression, awaited. */
  async evaluate(expression: string): Promise<unknown> {
    const id = ++this.#id;
    const params = { expression, awaitPromise: true, returnByValue: true };
    this.socket.send(JSON.stringify({ id, method: 'Runtime.evaluate', params }));
    for (;;) {
      const [data] = (await once(this.socket, 'message')) as [Buffer];
      const answer = JSON.parse(String(data)) as { id?: number; result?: { result?: { value?: unknown } } };
      if (answer.id === id) return answer.result?.result?.value;
    }
  }

  async until(expression: string): Promise<void> {
    while (!(await this.evaluate(`Boolean(${expression})`))) await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

test('an editor, a terminal and a preview in a browser', { skip: !existsSync(BROWSER) && 'no browser' }, async () => {
  await using sandbox = fresh();
  const id = sandbox.name;
  const { url, close } = await serve(ide, { Sandbox: PYTHON }, { port: 0 });
  const profile = await mkdtemp(join(tmpdir(), 'stockade-ide-'));
  const flags = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--remote-debugging-port=0', `--user-data-dir=${profile}`];
  const browser = spawn(BROWSER, [...flags, 'about:blank'], { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  try {
    let devtools = '';
    for await (const line of createInterface(browser.stderr!)) {
      const match = /ws:\/\/([^/]+)\//.exec(line);
      if (match) {
        devtools = `http://${match[1]}`;
        break;
      }
    }
    const page = await Page.open(devtools, `${url}?id=${id}`);
    await page.until("window.ready && document.body.dataset.terminal === 'connected'");
    assert.equal(await page.evaluate('editor.value'), '<!doctype html><h1>Hello</h1>');
    // What is typed in the editor is in the sandbox, and the preview shows it.
    await page.evaluate("editor.value = '<h1>Changed</h1>'; editor.dispatchEvent(new Event('change'))");
    await page.until("document.title === 'saved'");
    assert.equal((await sandbox.readFile('/workspace/index.html')).content, '<h1>Changed</h1>');
    const preview = (await page.evaluate("document.getElementById('preview').src")) as string;
    assert.match(preview, new RegExp(`^http://8000-${id}-`));
    const shown = await Page.open(devtools, preview);
    await shown.until("document.body?.innerText.includes('Changed')");
    // What is typed in the terminal runs there, and its output is on the screen.
    await page.evaluate("terminal.input('echo $((6*7)) > /workspace/typed; echo screen-$((40+2))\\r')");
    const screen = 'Array.from({length: terminal.buffer.active.length}, (_, n) => terminal.buffer.active.getLine(n)?.translateToString()).join()';
    await page.until(`${screen}.includes('screen-42')`);
    assert.equal((await sandbox.readFile('/workspace/typed')).content, '42\n');
    page.socket.terminate();
    shown.socket.terminate();
  } finally {
    process.kill(-browser.pid!, 'SIGKILL');
    await once(browser, 'exit');
    close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
});
