import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { createServer, getSandbox, proxyTerminal } from '@stockade/sandbox';
import { Breaking, fresh } from './world.js';

/** A viewer that speaks the protocol of the Cloudflare SDK. */
class Viewer {
  text = '';
  said: { type: string; code?: number }[] = [];
  private constructor(readonly socket: WebSocket) {
    socket.on('message', (data, binary) => {
      if (binary) this.text += String(data);
      else this.said.push(JSON.parse(String(data)));
    });
  }

  static async open(port: number, path: string): Promise<Viewer> {
    const viewer = new Viewer(new WebSocket(`ws://127.0.0.1:${port}${path}`));
    while (!viewer.said.some((one) => one.type === 'ready')) await once(viewer.socket, 'message');
    return viewer;
  }

  async until(text: string): Promise<void> {
    while (!this.text.includes(text)) await once(this.socket, 'message');
  }
}

test('browsers look at the terminal of a session and type into it', async () => {
  await using sandbox = fresh();
  const session = await sandbox.createSession({ id: 'dev', env: { MINE: 'yes' }, cwd: '/tmp' });
  const server = createServer({
    fetch: (request) => request.url.endsWith('/proxied')
      ? proxyTerminal(sandbox, 'dev', request, { cols: 100, rows: 30 })
      : session.terminal(request),
  }, undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    const first = await Viewer.open(port, '/proxied');
    first.socket.send(Buffer.from('echo $MINE-$PWD; stty size\r'));
    await first.until('yes-/tmp');
    await first.until('30 100');
    first.socket.send(JSON.stringify({ type: 'resize', cols: 120, rows: 40 }));
    first.socket.send(Buffer.from('stty size; echo done-$((1+1))\r'));
    await first.until('40 120');
    await first.until('done-2');
    // Whoever comes later has what was there before as the first frame, and sees the same.
    const second = await Viewer.open(port, '/');
    assert.match(second.text, /yes-\/tmp/);
    second.socket.send(Buffer.from('echo both-$((2*21))\r'));
    await Promise.all([first.until('both-42'), second.until('both-42')]);
    first.socket.send(Buffer.from('exit 3\r'));
    await once(second.socket, 'close');
    assert.deepEqual(second.said.at(-1), { type: 'exit', code: 3 });
    const third = await Viewer.open(port, '/');
    third.socket.send(Buffer.from('echo again-$((1))\r'));
    await third.until('again-1');
    third.socket.terminate();
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('a terminal is a handle that is written to, read and ended', async () => {
  await using sandbox = fresh();
  const terminal = await sandbox.createTerminal({ command: ['bash', '--norc'], cols: 90, rows: 20, cwd: '/tmp', env: { A: 'b' } });
  // It is in the loop, and not before it, that Ctrl-C ends the line.
  await terminal.write('echo $A $PWD; stty size; while :; do echo -n .; sleep 0.1; done\n');
  let text = '';
  let cursor = '0';
  for await (const part of terminal.output()) {
    if (part.type !== 'data') continue;
    text += Buffer.from(part.data).toString();
    cursor = part.cursor;
    if (text.includes('20 90\r\n.')) break;
  }
  assert.match(text, /b \/tmp/);
  await terminal.interrupt();
  await terminal.resize(100, 50);
  await terminal.write('stty size; exit 4\n');
  let rest = '';
  for await (const part of terminal.output({ cursor })) {
    if (part.type === 'data') rest += Buffer.from(part.data).toString();
    if (part.type === 'terminal') assert.equal(part.exitCode, 4);
  }
  assert.match(rest, /50 100/);
  assert.doesNotMatch(rest, /b \/tmp/);
  assert.deepEqual((await sandbox.listTerminals()).map((view) => view.id), [terminal.id]);
  await terminal.terminate();
  assert.equal(await sandbox.getTerminal(terminal.id), null);
});

test('output whose connection breaks again and again comes whole and once', async () => {
  await using sandbox = fresh();
  let n = 0;
  await using breaking = await Breaking.after(() => 70_000 + (n++ * 7_919) % 20_000);
  const script = 'read go; for i in $(seq 1 30000); do echo $i; done; sleep 0.3; echo end';
  const terminal = await sandbox.createTerminal({ command: ['bash', '-c', script] });
  const other = await getSandbox(breaking.socket, sandbox.name).getTerminal(terminal.id);
  await terminal.write('go\n');
  let text = '';
  for await (const part of other!.output()) {
    assert.notEqual(part.type, 'truncated');
    if (part.type === 'data') text += Buffer.from(part.data).toString();
  }
  const expected = `go\r\n${Array.from({ length: 30_000 }, (_, index) => `${index + 1}\r\n`).join('')}end\r\n`;
  assert.ok(breaking.broken >= 2, `broken ${breaking.broken} times only`);
  assert.ok(text === expected, `${text.length} characters and not ${expected.length}`);
});

test('terminals and commands are recorded for asciinema', async () => {
  await using sandbox = fresh();
  const { recording } = await sandbox.exec('echo recorded', { record: true });
  const streamed = await sandbox.exec('echo streamed', { record: { input: true }, onOutput: () => {} });
  const terminal = await sandbox.createTerminal({ command: ['sh', '-c', 'echo shown'], record: true });
  assert.deepEqual(await terminal.waitForExit(), { exitCode: 0 });
  const kept = await sandbox.recordings.list();
  assert.deepEqual(kept.map((one) => one.id), [recording, streamed.recording, (await terminal.info()).recording]);
  assert.deepEqual(kept.map((one) => [one.terminal, one.input, one.recording]), [
    [undefined, false, false], [undefined, true, false], [terminal.id, false, false],
  ]);
  const [head, ...events] = (await sandbox.recordings.get(kept[2]!.id)).trim().split('\n').map((line) => JSON.parse(line));
  assert.equal(head.version, 2);
  assert.equal(events.map(([, , text]) => text).join(''), 'shown\r\n');
  await sandbox.recordings.remove(kept[2]!.id);
  await assert.rejects(sandbox.recordings.get(kept[2]!.id), { daemonCode: 'RECORDING_NOT_FOUND' });
  assert.equal((await sandbox.exec('true')).recording, undefined);
});
