import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import {
  InvalidPortError, NotSupportedError, SandboxError, Stockade, createServer, getSandbox, proxyToSandbox, type FetchHandler, type Sandbox,
} from '@stockade/sandbox';
import { ROOMY, SOCKET, fresh } from './world.js';

/** Answers requests with what it has seen of them, and WebSockets with their own words. */
const SERVER = `
const http = require('http'), { WebSocketServer } = require('/usr/share/nodejs/ws');
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', part => body += part).on('end', () => {
    if (request.url === '/away') return response.writeHead(302, { location: '/elsewhere' }).end();
    if (request.url === '/none') return response.writeHead(204).end();
    response.writeHead(200, [['set-cookie', 'a=1'], ['set-cookie', 'b=2'], ['content-type', 'application/json']]);
    response.end(JSON.stringify({ method: request.method, url: request.url, body, headers: request.headers }));
  });
});
new WebSocketServer({ server }).on('connection', (socket, request) => {
  socket.send('hello ' + request.url);
  socket.on('message', (data, binary) => socket.send(binary ? data : 'echo ' + data));
});
server.listen(8080, () => console.log('listening'));
`;

interface Seen { method: string; url: string; body: string; headers: Record<string, string> }

async function serving(sandbox: Sandbox): Promise<void> {
  await sandbox.writeFile('/workspace/server.js', SERVER);
  await (await sandbox.startProcess('exec node server.js')).waitForLog('listening', 60_000);
}

async function listening<T>(handler: FetchHandler, use: (port: number) => Promise<T>): Promise<T> {
  const server = createServer(handler, undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    return await use((server.address() as AddressInfo).port);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** A request to a host name that need not resolve. */
async function ask(port: number, host: string, path = '/', body?: string): Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; text: string }> {
  const request = httpRequest({ host: '127.0.0.1', port, path, method: body === undefined ? 'GET' : 'POST', headers: { host } });
  request.end(body);
  const [response] = await once(request, 'response');
  let text = '';
  for await (const part of response) text += String(part);
  return { status: response.statusCode, headers: response.headers, text };
}

test('requests, WebSockets and previews reach a server in a sandbox', async () => {
  await using sandbox = fresh(ROOMY);
  await serving(sandbox);

  const direct = await sandbox.containerFetch(new Request('http://any/path?q=1', { method: 'PUT', body: 'body' }), 8080);
  assert.deepEqual([direct.status, direct.headers.getSetCookie()], [200, ['a=1', 'b=2']]);
  const seen = (await direct.json()) as Seen;
  assert.deepEqual([seen.method, seen.url, seen.body, seen.headers['host']], ['PUT', '/path?q=1', 'body', 'localhost:8080']);
  assert.equal((await sandbox.containerFetch('http://any/none', 8080)).status, 204);
  assert.equal((await sandbox.containerFetch(new Request('http://any/away', { redirect: 'manual' }), 8080)).headers.get('location'), '/elsewhere');

  const handler: FetchHandler = {
    async fetch(request) {
      const preview = await proxyToSandbox(request, { Sandbox: SOCKET });
      if (preview) return preview;
      if (request.headers.get('upgrade') === 'websocket') return sandbox.wsConnect(request, 8080);
      return Response.json({ mine: new URL(request.url).pathname });
    },
  };
  await listening(handler, async (port) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/chat?a=b`);
    const messages: string[] = [];
    socket.on('message', (data) => messages.push(String(data)));
    await once(socket, 'message');
    socket.send('one');
    await once(socket, 'message');
    assert.deepEqual(messages, ['hello /chat?a=b', 'echo one']);
    const big = Buffer.alloc(3_000_000, 7);
    socket.send(big);
    const [back] = (await once(socket, 'message')) as [Buffer];
    assert.ok(back.equals(big));
    socket.close();
    await once(socket, 'close');

    const exposed = await sandbox.exposePort(8080, { hostname: `localhost:${port}`, name: 'web', token: 'abc_1' });
    assert.deepEqual(exposed, { url: `http://8080-${sandbox.name}-abc_1.localhost:${port}/`, port: 8080, name: 'web' });
    const { host } = new URL(exposed.url);
    const answer = await ask(port, host, '/x', 'posted');
    const told = JSON.parse(answer.text) as Seen;
    assert.deepEqual([told.url, told.body, told.headers['x-forwarded-host'], answer.headers['set-cookie']], ['/x', 'posted', host, ['a=1', 'b=2']]);
    const viewer = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: { host } });
    assert.equal(String((await once(viewer, 'message'))[0]), 'hello /ws');
    viewer.terminate();
    assert.deepEqual(JSON.parse((await ask(port, `localhost:${port}`, '/own')).text), { mine: '/own' });

    assert.deepEqual([await sandbox.validatePortToken(8080, 'abc_1'), await sandbox.validatePortToken(8080, 'abc_2')], [true, false]);
    const wrong = await ask(port, host.replace('abc_1', 'abc_2'));
    assert.deepEqual([wrong.status, JSON.parse(wrong.text).code], [404, 'INVALID_TOKEN']);
    assert.deepEqual(await sandbox.getExposedPorts('example.org'), [
      { url: `https://8080-${sandbox.name}-abc_1.example.org/`, port: 8080, name: 'web', status: 'active' },
    ]);
    await sandbox.unexposePort(8080);
    await sandbox.unexposePort(8080);
    assert.equal(await sandbox.isPortExposed(8080), false);
    assert.equal((await ask(port, host)).status, 404);
  });

  // The daemon's own address, without any server of ours.
  const { url } = await sandbox.exposePort(8080);
  const { hostname, port, host } = new URL(url);
  assert.match(hostname, new RegExp(`^8080-${sandbox.name}-`));
  assert.equal((JSON.parse((await ask(Number(port), host, '/preview')).text) as Seen).url, '/preview');

  const raw = await sandbox.connectPort(8080);
  raw.write('GET /raw HTTP/1.0\r\n\r\n');
  let text = '';
  for await (const part of raw) text += String(part);
  assert.match(text, /"url":"\/raw"/);
});

test('a port that nobody listens on, that is none, and tunnels', async () => {
  await using sandbox = fresh();
  const closed = await sandbox.containerFetch('http://any/', 9999);
  assert.deepEqual([closed.status, ((await closed.json()) as { code: string }).code], [502, 'PORT_CLOSED']);
  await assert.rejects(sandbox.connectPort(9999), { code: 'SERVICE_NOT_RESPONDING' });
  await assert.rejects(sandbox.exposePort(0), InvalidPortError);
  await assert.rejects(sandbox.tunnels.get(80), (error: unknown) => {
    assert.ok(error instanceof NotSupportedError);
    assert.match(error.suggestion ?? '', /exposePort/);
    return true;
  });
});

test('a preview of a sandbox that is gone does not make it again', async () => {
  const sandbox = fresh();
  const { url } = await sandbox.exposePort(8080, { hostname: 'localhost' });
  await sandbox.destroy();
  const answer = await proxyToSandbox(new Request(url), SOCKET);
  assert.equal(answer?.status, 404);
  assert.equal((await getSandbox(SOCKET, sandbox.name).getState()).status, 'stopped');
});

test('what a handler throws is told to this program, and not to whoever asks', async (context) => {
  const told = context.mock.method(console, 'error', () => {});
  await using sandbox = fresh();
  const fetch = async (): Promise<Response> => { throw new Error('secret detail'); };
  await sandbox.setOutboundByHost('api.internal', fetch, {});
  const { stdout } = await sandbox.exec('curl -sSi http://api.internal/');
  assert.match(stdout, /^HTTP\/1.1 500 /);
  assert.doesNotMatch(stdout, /secret/);
  assert.match(String(told.mock.calls[0]!.arguments[1]), /secret detail/);
  await listening({ fetch }, async (port) => {
    const answer = await ask(port, 'localhost');
    assert.deepEqual([answer.status, answer.text], [500, 'Internal Server Error']);
    const trace = httpRequest({ host: '127.0.0.1', port, method: 'TRACE' }).end();
    const [response] = await once(trace, 'response');
    let text = '';
    for await (const part of response) text += String(part);
    assert.deepEqual([response.statusCode, text], [400, '']);
  });
});

test('what asks for no WebSocket is told that it must', async () => {
  await using sandbox = fresh();
  const request = new Request('http://any/');
  for (const response of [await sandbox.wsConnect(request, 8080), await sandbox.terminal(request)]) {
    assert.deepEqual([response.status, response.headers.get('upgrade')], [426, 'websocket']);
  }
  assert.deepEqual(await sandbox.listTerminals(), []);
});

test('requests of a sandbox are answered by this program', async () => {
  await using sandbox = fresh();
  await sandbox.setOutboundByHost('api.internal', async (request, env, { containerId, params }) => {
    assert.equal(env, process.env);
    return Response.json({ url: request.url, body: await request.text(), containerId, params });
  }, { key: 'k' });
  for (const scheme of ['http', 'https']) {
    const result = await sandbox.exec(`curl -sS -d hi ${scheme}://api.internal/a?b`);
    assert.ok(result.success, result.stderr);
    assert.deepEqual(JSON.parse(result.stdout), {
      url: `${scheme}://api.internal/a?b`, body: 'hi', containerId: sandbox.name, params: { key: 'k' },
    });
  }
  await sandbox.removeOutboundByHost('api.internal');
  assert.equal((await sandbox.exec('curl -sS -m 5 http://api.internal/')).success, false);
  Object.assign(sandbox.outboundHandlers, { say: (_request: Request, _env: object, { params }: { params: string }) => new Response(params) });
  await sandbox.setOutboundByHosts({ 'one.internal': { method: 'say', params: 'one' }, 'two.internal': 'say' });
  assert.equal((await sandbox.exec('curl -sS http://one.internal/')).stdout, 'one');
  await assert.rejects(sandbox.setOutboundByHost('x.internal', 'unheard'), /no handler/);
  await sandbox.setAllowedHosts(['example.com']);
  await sandbox.allowHost('example.org');
  await sandbox.removeAllowedHost('example.com');
  await sandbox.denyHost('worse.example.org');
  await sandbox.removeDeniedHost('worse.example.org');
  await sandbox.denyHost('bad.example.org');
  const { policy } = await sandbox.network.get();
  assert.deepEqual([policy.allow, policy.deny], [['example.org'], ['bad.example.org']]);
  assert.ok((await sandbox.network.events()).events.length > 0);
  assert.deepEqual((await sandbox.network.set({ mode: 'none' }, { dryRun: true })).dry_run, true);
});

test('a directory of handlers where none can be is named', async () => {
  const client = new Stockade({ socket: SOCKET, handlersDirectory: '/no/such' });
  await using sandbox = client.sandbox(fresh().name);
  await assert.rejects(sandbox.setOutboundByHost('a.internal', () => new Response(''), {}), (error: unknown) => {
    assert.ok(error instanceof SandboxError);
    assert.deepEqual([error.code, error.context['path']], ['FILESYSTEM_ERROR', '/no/such']);
    assert.match(error.suggestion ?? '', /handlersDirectory/);
    return true;
  });
});
