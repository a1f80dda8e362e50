import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import {
  ContextNotFoundError, getSandbox, parseSSEStream, serve, type FetchHandler, type Sandbox,
} from '@stockade/sandbox';
import agent from '../examples/agent-loop.js';
import ci, { job } from '../examples/ci.js';
import interpreter from '../examples/code-interpreter.js';
import analysis from '../examples/data-analysis.js';
import type { Env } from '../examples/env.js';
import execute from '../examples/execute-command.js';
import files from '../examples/file-operations.js';
import websocket from '../examples/websocket.js';
import { PYTHON, SOCKET, all, fresh, needsPython } from './world.js';

/** Serves an example, and ends its sandbox with it. */
async function served<T>(handler: FetchHandler<Env>, sandbox: string | undefined, use: (url: string) => Promise<T>): Promise<T> {
  const { url, close } = await serve(handler, { Sandbox: PYTHON }, { port: 0 });
  try {
    return await use(url);
  } finally {
    close();
    if (sandbox) await getSandbox(PYTHON, sandbox).destroy();
  }
}

const json = async (url: string): Promise<unknown> => (await fetch(url)).json();

test('execute a command', needsPython, () => served(execute, 'execute-command', async (url) => {
  const answer = (await json(url)) as { output: string };
  assert.match(answer.output, /^Python 3\.\d+\.\d+\n$/);
  assert.deepEqual({ ...answer, output: '' }, { output: '', exitCode: 0, success: true });
}));

test('a code context', needsPython, () => served(interpreter, 'code-interpreter', async (url) => {
  const answer = (await json(url)) as { result: string; logs: object };
  assert.match(answer.result, /^(np\.int64\()?450\)?$/);
  assert.deepEqual(answer.logs, { stdout: [], stderr: [] });
}));

test('cells share their state, and show what they are', async () => {
  await using sandbox = fresh({ resources: { memory_bytes: 1 << 30 } });
  const context = await sandbox.createCodeContext({ envVars: { A: 'b' } });
  const heard: string[] = [];
  const first = await sandbox.runCode('import os; print(os.environ["A"]); x = 41; x + 1', {
    context, onStdout: ({ text }) => void heard.push(text), onResult: (result) => void heard.push(...result.formats()),
  });
  assert.deepEqual([first.logs.stdout.join(''), first.results[0]?.text, first.executionCount], ['b\n', '42', 1]);
  assert.deepEqual([heard[0], heard.at(-1)], ['b\n', 'text']);
  const failed = await sandbox.runCode('x / 0', { context });
  assert.deepEqual([failed.error?.name, failed.error?.lineNumber], ['ZeroDivisionError', 1]);
  const events = await all(parseSSEStream<{ type: string }>(await sandbox.runCodeStream('print(x); x', { context })));
  assert.deepEqual(events.map((event) => event.type), ['stdout', 'result', 'execution_complete']);
  const { id, ended } = await sandbox.startCode("import time; time.sleep(0.5); print('slept'); 7", { context });
  assert.equal(ended, false);
  const slept = await sandbox.getCodeRun(context.id, id, 60_000);
  assert.deepEqual([slept.result?.logs.stdout.join(''), slept.result?.results[0]?.text], ['slept\n', '7']);
  assert.deepEqual((await sandbox.listCodeRuns(context.id)).map((run) => [run.id, run.ended]), [[id, true]]);
  await sandbox.runCode("import threading; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()", { context });
  const after = await sandbox.runCode("time.sleep(0.6); print('on')", { context });
  assert.deepEqual([after.logs.stdout.join(''), after.background?.join('')], ['on\n', 'late\n']);
  await sandbox.restartCodeContext(context.id);
  assert.equal((await sandbox.runCode('x', { context })).error?.name, 'NameError');
  await sandbox.deleteCodeContext(context.id);
  await assert.rejects(sandbox.runCode('1', { context }), ContextNotFoundError);
});

test('a chart is a picture, and what it shows', needsPython, async () => {
  await using sandbox = getSandbox(PYTHON, `chart-${Date.now()}`);
  const cell = "import matplotlib.pyplot as plt; plt.bar(['a', 'b'], [1, 2]); plt.title('two'); plt.show()";
  const [result] = (await sandbox.runCode(cell)).results;
  assert.deepEqual(result?.formats().toSorted(), ['chart', 'png', 'text']);
  const { type, title, library, image } = result!.chart!;
  assert.deepEqual([type, title, library, image], ['bar', 'two', 'matplotlib', result!.png]);
});

test('file operations', () => served(files, 'file-operations', async (url) => {
  assert.deepEqual(await json(url), { content: '{"name":"my-app","version":"1.0.0"}', mimeType: 'application/json' });
}));

test('a WebSocket to port 8080', () => served(websocket, 'websocket', async (url) => {
  assert.deepEqual(await json(url), { message: 'WebSocket endpoint' });
  for (const word of ['hello', 'again']) {
    const socket = new WebSocket(url.replace('http', 'ws'));
    await once(socket, 'open');
    socket.send(word);
    assert.equal(String((await once(socket, 'message'))[0]), word.toUpperCase());
    socket.close();
    await once(socket, 'close');
  }
}));

test('an agent learns from the error of its first program', () => served(agent, undefined, async (url) => {
  assert.deepEqual(await json(url), { answer: '385', attempts: 2 });
}));

test('an analysis gives numbers and a chart', needsPython, () => served(analysis, undefined, async (url) => {
  const body = 'product,sales\nA,100\nB,200\nA,50\n';
  const answer = (await (await fetch(url, { method: 'POST', body })).json()) as { totals: object; chart: string };
  assert.deepEqual(answer.totals, { A: 150, B: 200 });
  const png = Buffer.from(answer.chart.replace('data:image/png;base64,', ''), 'base64');
  assert.deepEqual([png.subarray(1, 4).toString(), png.readUInt32BE(16), png.readUInt32BE(20)], ['PNG', 480, 300]);
  const refused = await fetch(url, { method: 'POST', body: 'nothing,of,this' });
  assert.deepEqual([refused.status, await refused.json()], [422, { error: "KeyError: 'product'" }]);
}));

test('a build job streams the logs of its steps side by side', async () => {
  await using origin = fresh();
  const made = await origin.exec(
    'git init -q -b main r && cd r && echo "print(6*7)" > six.py && git add . && git -c user.name=a -c user.email=a@b commit -q -m first'
    + ' && git bundle create -q /workspace/r.bundle HEAD main',
  );
  assert.ok(made.success, made.stderr);
  const bundle = await origin.readBytes('/workspace/r.bundle');
  // Each waits for the other: they run side by side, or never end.
  const wait = (own: string, other: string) => `touch /tmp/${own}; until [ -e /tmp/${other} ]; do sleep 0.02; done`;
  const steps = { build: `${wait('a', 'b')}; python3 six.py`, test: `${wait('b', 'a')}; echo failed; exit 3` };
  const put = (sandbox: Sandbox) => sandbox.writeFile('/tmp/r.bundle', bundle);
  const seen = await all(job({ Sandbox: SOCKET }, '/tmp/r.bundle', steps, put));
  assert.match(seen[0]!.text ?? '', /^main [0-9a-f]{40}$/);
  const of = (step: string) => seen.filter((line) => line.step === step).map(({ text, exitCode }) => text ?? exitCode);
  assert.deepEqual([of('build'), of('test')], [['42', 0], ['failed', 3]]);
});

test('a build job over HTTP breaks off when nothing can be cloned', () => served(ci, undefined, async (url) => {
  const body = JSON.stringify({ repository: '/nowhere', steps: {} });
  const response = await fetch(url, { method: 'POST', body });
  await assert.rejects(all(parseSSEStream(response.body!)));
}));
