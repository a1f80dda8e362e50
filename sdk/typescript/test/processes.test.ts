import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import {
  ProcessExitedBeforeReadyError, ProcessNotFoundError, ProcessReadyTimeoutError, Stockade, getSandbox, parseSSEStream, type LogEvent,
} from '@stockade/sandbox';
import { Breaking, all, fresh } from './world.js';

test('a process is started, looked at and killed', async () => {
  await using sandbox = fresh();
  await sandbox.exec('cd /tmp; export MINE=1');
  const seen: string[] = [];
  const process = await sandbox.startProcess('echo $MINE $PWD; echo oops >&2; sleep 60', {
    processId: 'server', onStart: (started) => seen.push(started.id), onOutput: (stream, data) => seen.push(`${stream} ${data}`),
  });
  assert.deepEqual([process.id, process.status, process.command.slice(0, 10)], ['server', 'running', 'echo $MINE']);
  assert.ok(process.startTime instanceof Date && process.pid > 0);
  assert.deepEqual(await process.waitForLog('oops'), { line: 'oops' });
  assert.deepEqual(await process.getLogs(), { stdout: '1 /tmp\n', stderr: 'oops\n', processId: 'server' });
  assert.deepEqual((await sandbox.listProcesses()).map((one) => one.id), ['server']);
  await process.kill();
  assert.equal(await process.getStatus(), 'killed');
  assert.equal(process.exitCode, 143);
  assert.deepEqual(seen.toSorted(), ['server', 'stderr oops\n', 'stdout 1 /tmp\n']);
  assert.equal(await sandbox.getProcess('nobody'), null);
  await assert.rejects(sandbox.killProcess('nobody'), ProcessNotFoundError);
  await sandbox.killProcess('server');
  assert.equal(await sandbox.cleanupCompletedProcesses(), 1);
});

test('what does not hear SIGTERM is killed with everything that it started', async () => {
  await using sandbox = fresh();
  const stubborn = "trap 'echo heard' TERM; (trap '' TERM; exec sleep 600) & echo ready; while :; do sleep 0.1; done";
  const process = await sandbox.startProcess(stubborn);
  await process.waitForLog('ready');
  assert.equal(await sandbox.killAllProcesses(), 1);
  // It was asked first.
  assert.equal((await process.getLogs()).stdout, 'ready\nheard\n');
  assert.equal((await process.refresh()).exitCode, 137);
  assert.equal((await sandbox.exec('ps ax | grep -c "[s]leep 600"')).stdout, '0\n');
});

test('waiting ends with a line, a port, the end, or an error that says which', async () => {
  await using sandbox = fresh();
  const server = await sandbox.startProcess('python3 -um http.server 8000');
  await server.waitForPort(8000, { status: 200, timeout: 30_000 });
  await server.waitForPort(8000, { mode: 'tcp', timeout: 30_000 });
  const { line, match } = await server.waitForLog(/port (\d+)/, 30_000);
  assert.equal(match?.[1], '8000', line);
  await assert.rejects(server.waitForLog('never', 50), (error: unknown) => {
    assert.ok(error instanceof ProcessReadyTimeoutError);
    assert.deepEqual([error.code, error.httpStatus, error.context['processId']], ['PROCESS_READY_TIMEOUT', 408, server.id]);
    return true;
  });
  await assert.rejects(server.waitForLog(/never/, 50), ProcessReadyTimeoutError);
  const ended = await sandbox.startProcess('printf "last line"; exit 9');
  assert.equal((await ended.waitForLog(/last (\w+)/)).match?.[1], 'line');
  await assert.rejects(ended.waitForLog('never'), ProcessExitedBeforeReadyError);
  await assert.rejects(ended.waitForLog(/never/), ProcessExitedBeforeReadyError);
  await assert.rejects(ended.waitForPort(9), ProcessExitedBeforeReadyError);
  assert.deepEqual([await ended.waitForExit(), ended.status], [{ exitCode: 9 }, 'failed']);
});

test('a process tells how it is in copies and in JSON', async () => {
  await using sandbox = fresh();
  const process = await sandbox.startProcess('exit 3');
  await process.waitForExit();
  const [listed] = await sandbox.listProcesses();
  assert.deepEqual([{ ...listed }.status, { ...listed }.exitCode, { ...process }.status], ['failed', 3, 'failed']);
  const told = JSON.parse(JSON.stringify(listed)) as Record<string, unknown>;
  assert.deepEqual([told['status'], told['exitCode'], told['endTime']], ['failed', 3, listed!.endTime!.toJSON()]);
});

test('to wait goes on when the connection breaks', async () => {
  await using sandbox = fresh();
  await sandbox.info();
  let breaks = 0;
  await using breaking = await Breaking.after(() => (breaks-- > 0 ? 0 : 60_000));
  using client = new Stockade(breaking.socket);
  const other = client.sandbox(sandbox.name);
  const process = await other.startProcess('sleep 0.3; echo said; python3 -um http.server 8000 & sleep 2; exit 7');
  const waits = [
    () => process.waitForLog('said'), () => process.waitForPort(8000, { mode: 'tcp' }), () => process.waitForExit(20_000),
  ];
  for (const wait of waits) {
    client.close();
    breaks = 2;
    await wait();
  }
  assert.deepEqual([process.exitCode, breaking.broken], [7, 6]);
});

test('what a short command writes is there when startProcess comes back', async () => {
  await using sandbox = fresh();
  let there = 0;
  for (let n = 0; n < 10; n += 1) {
    const process = await sandbox.startProcess('echo there');
    assert.equal(process.status, 'running');
    if ((await process.getLogs()).stdout === 'there\n') there += 1;
  }
  // A host that is busy may take longer than is waited for.
  assert.ok(there >= 5, `${there} of 10`);
  const gone = await sandbox.startProcess('true', { autoCleanup: true });
  assert.equal(await sandbox.getProcess(gone.id), null);
});

test('stdin is written to and closed', async () => {
  await using sandbox = fresh();
  const process = await sandbox.startProcess('cat', { stdin: true });
  await process.writeStdin('one ');
  await process.writeStdin(Buffer.from('two'));
  await process.closeStdin();
  await process.waitForExit();
  assert.equal((await process.getLogs()).stdout, 'one two');
});

test('a stream of logs begins at the beginning and ends with the exit', async () => {
  await using sandbox = fresh();
  const process = await sandbox.startProcess('echo a; echo b >&2; exit 2');
  const events = await all(parseSSEStream<LogEvent>(await sandbox.streamProcessLogs(process.id)));
  const types = events.map((event) => event.type);
  // Which of two pipes is read first is not said.
  assert.deepEqual([types[0], ...types.slice(1, 3).toSorted(), types[3]], ['process_info', 'stderr', 'stdout', 'exit']);
  assert.deepEqual(events.slice(1, 3).map((event) => event.data).toSorted(), ['a\n', 'b\n']);
  assert.deepEqual([events[3]!.exitCode, events[0]!.processId], [2, process.id]);
  await assert.rejects(sandbox.streamProcessLogs('nobody'), ProcessNotFoundError);
});

test('a log whose connection breaks again and again comes whole and once', async () => {
  await using sandbox = fresh();
  // Anywhere: in a head, in an event, in a character. The first connection is for what is not asked again.
  let n = 0;
  await using breaking = await Breaking.after(() => (n++ === 0 ? 60_000 : randomInt(1, 120_000)));
  // Characters of several bytes, so that they are cut everywhere.
  const process = await sandbox.startProcess('for i in $(seq 1 40000); do echo "$i ä€🦀"; done; sleep 0.3; echo end');
  const other = getSandbox(breaking.socket, sandbox.name);
  const handle = await other.getProcess(process.id);
  const parts = await all(handle!.output());
  const text = Buffer.concat(parts.map((part) => part.bytes)).toString();
  const expected = `${Array.from({ length: 40_000 }, (_, index) => `${index + 1} ä€🦀\n`).join('')}end\n`;
  assert.ok(breaking.broken > 5, `broken ${breaking.broken} times only`);
  assert.equal(text.length, expected.length);
  assert.ok(text === expected, 'the text differs');
  // As the stream of the Cloudflare SDK too, and by the handle of version 1.0.
  n = 0;
  const events = await all(parseSSEStream<LogEvent>(await other.streamProcessLogs(process.id)));
  assert.ok(events.slice(1, -1).map((event) => event.data).join('') === expected, 'the stream differs');
  assert.deepEqual([events.at(-1)!.type, events.at(-1)!.exitCode], ['exit', 0]);
});

test('a reader that was away for too long hears how much it has missed', async () => {
  await using sandbox = fresh();
  const process = await sandbox.startProcess('seq 1 100000', { logBytesMax: 65_536 });
  await process.waitForExit();
  const dropped: number[] = [];
  const parts = await all(process.output({ cursor: 0, onDropped: (bytes) => dropped.push(bytes) }));
  const kept = parts.reduce((length, part) => length + part.bytes.length, 0);
  assert.equal(kept + dropped.reduce((sum, bytes) => sum + bytes, 0), 588_895);
  assert.ok(dropped.length > 0 && parts.at(-1)!.cursor === 588_895);
});

test('a command is not sent twice when its connection breaks', async () => {
  await using sandbox = fresh({ enableDefaultSession: false });
  await sandbox.info();
  await using breaking = await Breaking.after(() => 0);
  const other = sandbox.name;
  const { Stockade } = await import('@stockade/sandbox');
  using stockade = new Stockade(breaking.socket);
  const call = stockade.transport.call('runCommand', { path: { id: other }, body: { shell: 'echo x >> /tmp/times' } });
  await assert.rejects(call, { code: 'RPC_TRANSPORT_ERROR' });
  assert.equal((await sandbox.readFile('/tmp/times')).content, 'x\n');
  assert.equal(breaking.broken, 1);
  await assert.rejects(stockade.health(), { code: 'RPC_TRANSPORT_ERROR' });
  assert.equal(breaking.broken, 3, 'what only reads is asked twice');
});

test('a session takes the processes that were started in it with it', async () => {
  await using sandbox = fresh();
  const session = await sandbox.createSession({ id: 'one' });
  const mine = await session.startProcess('sleep 60');
  const named = await sandbox.startProcess('sleep 60', { sessionId: 'one', processId: 'server' });
  await named.remove();
  const another = await sandbox.startProcess('sleep 60', { processId: 'server' });
  await sandbox.deleteSession('one');
  assert.deepEqual([await mine.getStatus(), await another.getStatus()], ['killed', 'running']);
});
