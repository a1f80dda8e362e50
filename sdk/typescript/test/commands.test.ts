import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CommandError, CommandNotFoundError, SessionAlreadyExistsError, SessionTerminatedError, parseSSEStream, type ExecEvent,
} from '@stockade/sandbox';
import { all, fresh } from './world.js';

test('exec has the result of the Cloudflare SDK, and a shell that stays', async () => {
  await using sandbox = fresh();
  const result = await sandbox.exec('cd /tmp && V=1; f() { echo from f; }; echo out; echo err >&2');
  assert.deepEqual(
    { ...result, duration: 0, timestamp: '' },
    {
      success: true, exitCode: 0, stdout: 'out\n', stderr: 'err\n', duration: 0, timestamp: '', sessionId: 'default',
      command: 'cd /tmp && V=1; f() { echo from f; }; echo out; echo err >&2',
    },
  );
  assert.ok(result.duration > 0 && !Number.isNaN(Date.parse(result.timestamp)));
  assert.equal((await sandbox.exec('f; echo $V $PWD')).stdout, 'from f\n1 /tmp\n');
  const failed = await sandbox.exec('nothing-of-this-name');
  assert.deepEqual([failed.success, failed.exitCode], [false, 127]);
});

test('without a default session every command is by itself', async () => {
  await using sandbox = fresh({ enableDefaultSession: false });
  await sandbox.exec('cd /tmp; V=1');
  assert.equal((await sandbox.exec('echo "$V$PWD"; [[ a == a ]] && echo bash')).stdout, '/workspace\nbash\n');
  const late = await sandbox.exec('echo before; sleep 60', { timeout: 200 });
  assert.deepEqual([late.success, late.exitCode, late.stdout], [false, 124, 'before\n']);
  assert.match(late.stderr, /Command timed out after 200ms/);
  assert.equal((await sandbox.exec('cat', { stdin: 'ä\0b' })).stdout, 'ä\0b');
});

test('a timeout in a session is an error, and the session goes on', async () => {
  await using sandbox = fresh();
  await sandbox.exec('V=kept');
  await assert.rejects(sandbox.exec('sleep 60', { timeout: 200 }), (error: unknown) => {
    assert.ok(error instanceof CommandError);
    assert.deepEqual([error.code, error.message, error.httpStatus], ['COMMAND_EXECUTION_ERROR', 'Command timeout after 200ms', 500]);
    return true;
  });
  assert.equal((await sandbox.exec('echo $V')).stdout, 'kept\n');
});

test('a shell that exits is told, and the next command has a fresh one', async () => {
  await using sandbox = fresh();
  await assert.rejects(sandbox.exec('exit 7'), (error: unknown) => {
    assert.ok(error instanceof SessionTerminatedError);
    assert.deepEqual([error.code, error.httpStatus, error.daemonCode], ['SESSION_TERMINATED', 410, 'SESSION_ENDED']);
    assert.match(error.message, /shell exited/);
    assert.match(error.message, /exit code: 7/);
    assert.match(error.requestId ?? '', /./);
    return true;
  });
  assert.equal((await sandbox.exec('echo here')).stdout, 'here\n');
});

test('output comes while the command runs, by callbacks and by a stream', async () => {
  await using sandbox = fresh();
  const seen: string[] = [];
  const script = 'echo first; until [ -e /tmp/go ]; do sleep 0.01; done; echo second >&2';
  const result = await sandbox.exec(script, {
    onOutput: (stream, data) => {
      seen.push(`${stream} ${data}`);
      if (seen.length === 1) void sandbox.writeFile('/tmp/go', '');
    },
    onComplete: (done) => seen.push(`complete ${done.exitCode}`),
  });
  assert.deepEqual(seen, ['stdout first\n', 'stderr second\n', 'complete 0']);
  assert.deepEqual([result.stdout, result.stderr], ['first\n', 'second\n']);
  const events = await all(parseSSEStream<ExecEvent>(await sandbox.execStream('printf abc; exit_code() { return 3; }; exit_code')));
  assert.deepEqual(events.map((event) => event.type), ['start', 'stdout', 'complete']);
  assert.deepEqual([events[0]!.command?.slice(0, 6), events[1]!.data, events[2]!.exitCode], ['printf', 'abc', 3]);
});

test('bytes that are not text are whole in base64', async () => {
  await using sandbox = fresh();
  const bytes = Buffer.from([0, 255, 10, 200]);
  const result = await sandbox.exec(String.raw`printf '\0\377\n\310'`, { encoding: 'base64' });
  assert.deepEqual(Buffer.from(result.stdout, 'base64'), bytes);
  const raw = await sandbox.run(['printf', String.raw`\377`]);
  assert.deepEqual([raw.stdout, raw.stdout_encoding], ['/w==', 'base64']);
});

test('an abort ends the command and not the session', async () => {
  await using sandbox = fresh();
  const abort = new AbortController();
  const running = sandbox.exec('echo $$ > /tmp/pid; V=alive; sleep 60', { signal: abort.signal });
  while (!(await sandbox.exists('/tmp/pid')).exists) await new Promise((resolve) => { setTimeout(resolve, 10); });
  abort.abort(new Error('no longer wanted'));
  await assert.rejects(running, /no longer wanted/);
  assert.equal((await sandbox.exec('echo $V')).stdout, 'alive\n');
});

test('sessions share files and nothing else', async () => {
  await using sandbox = fresh();
  const [one, two] = [
    await sandbox.createSession({ id: 'one', env: { WHO: 'one' }, cwd: '/tmp' }),
    await sandbox.createSession({ env: { WHO: 'two' }, commandTimeoutMs: 200 }),
  ];
  await one.exec('cd /; touch /tmp/shared');
  assert.equal((await one.exec('echo $WHO $PWD')).stdout, 'one /\n');
  assert.equal((await two.exec('echo $WHO $PWD; ls /tmp/shared')).stdout, 'two /workspace\n/tmp/shared\n');
  await assert.rejects(two.exec('sleep 60'), /Command timeout after 200ms/);
  await assert.rejects(sandbox.createSession({ id: 'one' }), SessionAlreadyExistsError);
  await one.setEnvVars({ WHO: undefined, NEW: "it's" });
  assert.equal((await one.exec('echo "$WHO|$NEW"')).stdout, "|it's\n");
  assert.deepEqual((await sandbox.deleteSession('one')).sessionId, 'one');
  await assert.rejects(sandbox.deleteSession('default'));
  // As there, a session that is asked for comes into being with its first use.
  const made = await sandbox.getSession('made-by-use');
  assert.equal((await made.exec('echo $PWD')).stdout, '/workspace\n');
  assert.deepEqual((await sandbox.listSessions()).map((view) => view.id).includes('made-by-use'), true);
});

test('variables are for the session that runs and for everything later', async () => {
  await using sandbox = fresh({ env: { FIRST: '1' } });
  await sandbox.exec('true');
  await sandbox.setEnvVars({ A: 'a b', FIRST: null });
  assert.equal((await sandbox.exec('echo "$A|$FIRST"')).stdout, 'a b|\n');
  const later = await sandbox.createSession();
  assert.equal((await later.exec('echo "$A|$FIRST"')).stdout, 'a b|\n');
  assert.equal((await sandbox.env())['A'], 'a b');
});

test('a command with live input and output', async () => {
  await using sandbox = fresh();
  const command = await sandbox.attach(['sh', '-c', 'while read line; do echo got $line; done; exit 5']);
  await command.write('one\n');
  let text = '';
  for await (const { bytes } of command) {
    text += bytes.toString();
    if (text === 'got one\n') {
      await command.write('two\n');
      await command.end();
    }
  }
  assert.equal(text, 'got one\ngot two\n');
  assert.equal((await command.exit).exit_code, 5);
  const missing = await sandbox.attach(['/no/such/program']);
  await assert.rejects(all(missing), CommandNotFoundError);
  await assert.rejects(missing.exit, CommandNotFoundError);
});

test('an argument vector gives the handle of version 1.0', async () => {
  await using sandbox = fresh();
  const process = await sandbox.exec(['sh', '-c', 'echo out; echo err >&2; exit 3'], { cwd: '/tmp', env: { A: '1' } });
  assert.equal(await process.exitCode, 3);
  assert.equal(await process.status(), 'exited');
  const output = await process.output();
  assert.deepEqual(output, { stdout: 'out\n', stderr: 'err\n', exitCode: 3, timedOut: false, truncated: false });
  const parts = await all(process.logs({ follow: false }));
  assert.ok(parts.length >= 2);
  const [first] = parts;
  assert.ok(first && 'cursor' in first);
  const rest = await all(process.logs({ since: first.cursor }));
  // Which of two pipes is read first is not said.
  assert.deepEqual(rest.map((part) => part.type), [first.type === 'stdout' ? 'stderr' : 'stdout', 'exit']);
  const sleeper = await sandbox.exec(['sleep', '60']);
  await sleeper.kill(9);
  assert.equal((await sleeper.output()).signal, 'SIGKILL');
  assert.equal((await (await sandbox.exec(['yes'], { timeout: 300 })).output({ maxBytes: 10 })).stdout, 'y\ny\ny\ny\ny\n');
});

test('200 commands at once', async () => {
  await using sandbox = fresh({ enableDefaultSession: false, resources: { pids: 2000, memory_bytes: 2 ** 31 } });
  const results = await Promise.all(Array.from({ length: 200 }, (_, n) => sandbox.exec(`echo ${n}`)));
  assert.deepEqual(results.map((result) => result.stdout), Array.from({ length: 200 }, (_, n) => `${n}\n`));
});

/** Of an image that has a shell and no bash. */
const IMAGE = process.env['STOCKADE_TEST_IMAGE'];

test('an image without bash', { skip: !IMAGE && 'no image' }, async () => {
  await using sandbox = fresh({ image: IMAGE!, enableDefaultSession: false });
  assert.equal((await sandbox.exec('echo here; exit 3')).exitCode, 3);
  await using streamed = fresh({ image: IMAGE!, enableDefaultSession: false });
  const events = await all(parseSSEStream<ExecEvent>(await streamed.execStream('true')));
  assert.equal(events.at(-1)?.type, 'complete');
  const process = await sandbox.startProcess('echo started');
  assert.deepEqual(await process.waitForExit(), { exitCode: 0 });
  assert.equal((await process.getLogs()).stdout, 'started\n');
  await using other = fresh({ image: IMAGE! });
  await assert.rejects(other.exec('true'), CommandNotFoundError);
});

test('what is aborted in the middle ends with the reason', async () => {
  await using sandbox = fresh();
  const aborting = () => {
    const abort = new AbortController();
    return { signal: abort.signal, abort: () => abort.abort() };
  };
  for (const sessionId of [undefined, 'one']) {
    const { signal, abort } = aborting();
    const asked = { stream: true, signal, onOutput: abort, ...(sessionId && { sessionId }) };
    await assert.rejects(sandbox.exec('echo a; sleep 60', asked), { name: 'AbortError' });
  }
  const code = aborting();
  await assert.rejects(
    sandbox.runCode('echo a; sleep 60', { language: 'bash', signal: code.signal, onStdout: code.abort }), { name: 'AbortError' },
  );
  const streams = [
    (signal: AbortSignal) => sandbox.execStream('echo a; sleep 60', { signal }),
    (signal: AbortSignal) => sandbox.runCodeStream('echo a; sleep 60', { language: 'bash', signal }),
    (signal: AbortSignal) => sandbox.watch('/tmp', { signal }),
  ];
  for (const open of streams) {
    const { signal, abort } = aborting();
    const stream = await open(signal);
    const read = async () => {
      for await (const event of parseSSEStream<{ type: string }>(stream)) {
        assert.notEqual(event.type, 'error', JSON.stringify(event));
        abort();
      }
    };
    await assert.rejects(read(), { name: 'AbortError' });
  }
});
