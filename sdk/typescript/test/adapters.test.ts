import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SandboxClient, SandboxError, parseSSEStream, type PortWatchRequest } from '@stockade/sandbox';
import { Editor, Shell } from '@stockade/sandbox/openai';
import { OpencodeStartupError, createOpencodeServer, proxyToOpencode, proxyToOpencodeServer } from '@stockade/sandbox/opencode';
import { all, fresh } from './world.js';

test('the lower layer of clients does what the sandbox does', async () => {
  await using sandbox = fresh();
  const client = new SandboxClient({ sandbox });
  await client.utils.createSession({ id: 'one', env: { WHO: 'one' } });
  assert.equal((await client.commands.execute('echo $WHO; cd /tmp', 'one')).stdout, 'one\n');
  await client.files.writeFile('greeting', 'hello', 'one');
  assert.equal((await client.files.readFile('/tmp/greeting')).content, 'hello');
  assert.deepEqual((await client.files.listFiles('.', 'one')).files.map((file) => file.name), ['greeting']);
  await client.files.renameFile('greeting', 'there', 'one');
  assert.equal((await client.files.exists('/tmp/there')).exists, true);
  const { processId } = await client.processes.startProcess('echo $WHO; sleep 60', 'one', { processId: 'sleeper' });
  assert.equal((await client.processes.getProcess(processId)).process?.status, 'running');
  await client.processes.killProcess(processId);
  assert.equal((await client.processes.getProcessLogs(processId)).stdout, 'one\n');
  await client.ports.exposePort(8080, undefined, 'web');
  assert.deepEqual((await client.ports.getExposedPorts()).ports.map((port) => [port.port, port.name]), [[8080, 'web']]);
  assert.equal(await client.utils.ping(), 'healthy');
  assert.match(await client.utils.getVersion(), /^\d+\.\d+/);
  assert.ok((await client.utils.listSessions()).sessions.includes('one'));
  const { processes } = await client.processes.listProcesses();
  assert.deepEqual(processes.map((one) => [one.id, one.status, one.exitCode, typeof one.startTime]), [['sleeper', 'killed', 143, 'string']]);
  const text = new ReadableStream<Uint8Array>({ start(pipe) { pipe.enqueue(Buffer.from('streamed')); pipe.close(); } });
  assert.equal((await client.files.writeFileStream('/tmp/streamed', text)).bytesWritten, 8);
  assert.equal((await sandbox.client.watch.checkChanges({ path: '/tmp' })).status, 'unchanged');
  await client.utils.deleteSession('one');
});

test('the lower layer waits for ports and runs code', async () => {
  await using sandbox = fresh({ resources: { memory_bytes: 1 << 30 } });
  const { client } = sandbox;
  await client.connect();
  const { processId } = await client.processes.startProcess('sleep 0.3; exec python3 -m http.server 8000');
  const types = async (request: PortWatchRequest) => (await all(parseSSEStream<{ type: string }>(await client.ports.watchPort(request)))).map((one) => one.type);
  assert.deepEqual(await types({ port: 8000, mode: 'http', interval: 50 }), ['watching', 'ready']);
  assert.deepEqual(await types({ port: 8000, mode: 'tcp', processId }), ['watching', 'ready']);
  await sandbox.startAndWaitForPorts(8000);
  const short = await client.processes.startProcess('exit 4');
  assert.deepEqual(await types({ port: 9, mode: 'tcp', processId: short.processId }), ['watching', 'process_exited']);
  const said: string[] = [];
  const { id } = await client.interpreter.createCodeContext({ envVars: { A: 'a', B: undefined } });
  await client.interpreter.runCodeStream(id, 'import os; print(os.environ["A"], "B" in os.environ)', undefined, { onStdout: ({ text }) => { said.push(text); } });
  assert.equal(said.join(''), 'a False\n');
  const events = await all(parseSSEStream<{ type: string }>(await client.interpreter.streamCode(id, '6 * 7')));
  assert.deepEqual(events.map((event) => event.type), ['result', 'execution_complete']);
});

test('the shell and the editor of the OpenAI Agents SDK', async () => {
  await using sandbox = fresh();
  const shell = new Shell(sandbox);
  const { output } = await shell.run({ commands: ['pwd', 'echo oops >&2; exit 3', 'sleep 9', 'echo never'], timeoutMs: 500 });
  assert.deepEqual(output.map((one) => [one.stdout, one.stderr, one.outcome]).slice(0, 2), [
    ['/workspace\n', '', { type: 'exit', exitCode: 0 }], ['', 'oops\n', { type: 'exit', exitCode: 3 }],
  ]);
  assert.deepEqual(output.slice(2).map((one) => one.outcome), [{ type: 'timeout' }]);
  assert.deepEqual(shell.results.map((one) => one.exitCode), [0, 3, null]);

  const editor = new Editor(sandbox);
  await editor.createFile({ type: 'create_file', path: 'src/shelf.py', diff: '+class Shelf:\n+    def add(self):\n+        pass\n+\n+    def take(self):\n+        pass\n' });
  const diff = '@@     def take(self):\n-        pass\n+        return 42\n+\n+print(Shelf().take())\n*** End of File\n';
  assert.deepEqual(await editor.updateFile({ type: 'update_file', path: '/workspace/src/shelf.py', diff }), {
    status: 'completed', output: 'Updated /workspace/src/shelf.py',
  });
  assert.equal((await sandbox.exec('python3 src/shelf.py && grep -c pass src/shelf.py')).stdout, '42\n1\n');
  await assert.rejects(editor.updateFile({ type: 'update_file', path: 'src/shelf.py', diff: '-not there\n+x\n' }), /Invalid Context/);
  await assert.rejects(editor.updateFile({ type: 'update_file', path: 'none', diff: '-a\n+b\n' }), /Cannot update missing file: none/);
  await assert.rejects(editor.deleteFile({ type: 'delete_file', path: '../../etc/passwd' }), /outside workspace/);
  await editor.deleteFile({ type: 'delete_file', path: 'src/shelf.py' });
  assert.deepEqual(editor.results.map((one) => `${one.operation} ${one.status}`), [
    'create completed', 'update completed', 'update failed', 'update failed', 'delete completed',
  ]);
});

/** Answers as much of OpenCode's API as is asked here. */
const OPENCODE = `#!/usr/bin/env python3
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write((self.path + ' ' + os.getcwd() + ' ' + os.environ.get('ACME_API_KEY', '')).encode())
http.server.HTTPServer(('0.0.0.0', int(sys.argv[sys.argv.index('--port') + 1])), Handler).serve_forever()
`;

test('the server of OpenCode', async () => {
  await using sandbox = fresh();
  await assert.rejects(createOpencodeServer(sandbox), (error: unknown) => {
    assert.ok(error instanceof OpencodeStartupError && error instanceof SandboxError);
    assert.deepEqual([error.code, error.httpStatus, error.context['port']], ['OPENCODE_STARTUP_FAILED', 503, 4096]);
    return /not found/.test(String(error.context['stderr']));
  });
  await sandbox.writeFile('/workspace/bin/opencode', OPENCODE, { parents: true, mode: '755' });
  await sandbox.setEnvVars({ PATH: '/workspace/bin:/usr/bin:/bin' });
  const options = { directory: '/tmp', config: { provider: { acme: { options: { apiKey: 'key' } } } } };
  const server = await createOpencodeServer(sandbox, options);
  const again = await createOpencodeServer(sandbox, options);
  assert.equal((await sandbox.listProcesses()).filter((one) => one.status === 'running').length, 1);
  const answer = await proxyToOpencodeServer(new Request('http://here/session'), sandbox, again);
  assert.equal(await answer.text(), '/session /tmp key');
  const page = await proxyToOpencode(new Request('http://here/'), sandbox, server);
  assert.deepEqual([page.status, page.headers.get('location')], [302, 'http://here/?url=http%3A%2F%2Fhere']);
  await server.close();
});
