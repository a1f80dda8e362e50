/**
 * Requests for servers in sandboxes: ordinary ones by the platform's `Request` and `Response`, and upgrades by a
 * response that takes over the connection of a server of `node:http`.
 */
import { createServer as createHttpServer, type IncomingMessage, type OutgoingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { Readable, type Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Core } from './core.js';
import { target } from './transport.js';

/** Takes over the connection on which a request for an upgrade came. */
export type TakeOver = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

const TAKE_OVER = Symbol('takes over the connection');

/** A response with status 101, which the platform's class does not allow. `createServer` and `upgrade` know what to do with it. */
export function switching(takeOver: TakeOver): Response {
  const response = new Response(null, { status: 200 });
  Object.defineProperties(response, {
    status: { value: 101 }, statusText: { value: 'Switching Protocols' }, ok: { value: false }, [TAKE_OVER]: { value: takeOver },
  });
  return response;
}

/** Headers that are about one connection (RFC 9110 §7.6.1). */
const HOPS = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'expect']);

function forwarded(headers: Headers): OutgoingHttpHeaders {
  const named = new Set((headers.get('connection') ?? '').split(',').map((name) => name.trim().toLowerCase()));
  return Object.fromEntries([...headers].filter(([name]) => !HOPS.has(name) && !named.has(name)));
}

/** Where the daemon passes a request on to a port. */
function proxied(core: Core, port: number, url: string): string {
  const { pathname, search } = new URL(url);
  return target('/v1/sandboxes/{id}/ports/{port}/proxy', { id: core.id, port }, {}) + pathname + search;
}

const BODILESS = new Set([101, 204, 205, 304]);

/** An answer that has not been read, as the platform's response. */
function responseOf(answer: { status: number; body: IncomingMessage }): Response {
  const headers = new Headers();
  const raw = answer.body.rawHeaders;
  for (let index = 0; index + 1 < raw.length; index += 2) {
    if (!HOPS.has(raw[index]!.toLowerCase())) headers.append(raw[index]!, raw[index + 1]!);
  }
  const bodiless = BODILESS.has(answer.status);
  if (bodiless) answer.body.resume();
  const body = bodiless ? null : (Readable.toWeb(answer.body) as ReadableStream<Uint8Array>);
  return new Response(body, { status: answer.status, headers });
}

/** Sends a request to a server in a sandbox. */
export async function fetchFrom(core: Core, request: Request, port: number): Promise<Response> {
  await core.ensure();
  const headers = forwarded(request.headers);
  headers['host'] ??= new URL(request.url).host;
  const body = request.body ?? undefined;
  const url = proxied(core, port, request.url);
  return responseOf(await core.transport.send(request.method, url, headers, body, request.signal));
}

export const wantsUpgrade = (request: Request): boolean => request.headers.get('upgrade')?.toLowerCase() === 'websocket';

/** For a request that asks for no WebSocket where there is nothing else (RFC 9110 §15.5.22). */
export const upgradeRequired = (): Response => new Response('a WebSocket is expected here', {
  status: 426, headers: { connection: 'upgrade', upgrade: 'websocket' },
});

/** Passes a WebSocket on to a server in a sandbox, byte for byte. */
export async function upgradeTo(core: Core, request: Request, port: number): Promise<Response> {
  if (!wantsUpgrade(request)) return upgradeRequired();
  await core.ensure();
  const path = proxied(core, port, request.url);
  return switching((incoming, client, head) => {
    const server: Socket = connect(core.transport.socket);
    const end = () => {
      server.destroy();
      client.destroy();
    };
    client.on('error', end);
    client.once('close', () => server.destroy());
    server.on('error', () => {
      if (client.writable && server.bytesRead === 0) client.write('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
      end();
    });
    server.once('connect', () => {
      server.setNoDelay(true);
      server.write(headOf(incoming, path));
      if (head.length > 0) server.write(head);
      server.pipe(client);
      client.pipe(server);
    });
  });
}

/** The head of a request, with another path. Node has refused heads with anything in them that could end one. */
function headOf(request: IncomingMessage, path: string): string {
  const lines = [`${request.method} ${path} HTTP/1.1`];
  for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
    lines.push(`${request.rawHeaders[index]}: ${request.rawHeaders[index + 1]}`);
  }
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** What answers requests, as modules of Workers do. */
export interface FetchHandler<Env = unknown> {
  fetch(request: Request, env: Env): Response | Promise<Response>;
}

/** A request of `node:http` as the platform's, if it can be one. */
function requestOf(incoming: IncomingMessage, abort?: AbortSignal): Request | undefined {
  const headers = new Headers();
  for (let index = 0; index + 1 < incoming.rawHeaders.length; index += 2) {
    headers.append(incoming.rawHeaders[index]!, incoming.rawHeaders[index + 1]!);
  }
  const url = `http://${incoming.headers.host ?? 'localhost'}${incoming.url ?? '/'}`;
  const method = incoming.method ?? 'GET';
  const init: RequestInit & { duplex?: 'half' } = { method, headers };
  if (abort) init.signal = abort;
  // Asked before the body is taken: the platform has no words for TRACE, nor for some names of hosts.
  if (!representable(url, method)) return undefined;
  if (method !== 'GET' && method !== 'HEAD') {
    init.body = Readable.toWeb(incoming) as ReadableStream<Uint8Array>;
    init.duplex = 'half';
  }
  return new Request(url, init);
}

function representable(url: string, method: string): boolean {
  try {
    new Request(url, { method });
    return true;
  } catch {
    return false;
  }
}

/** What a handler threw is for whoever runs this program, and not for whoever asked: that may be a sandbox. */
function tell(error: unknown): void {
  console.error('a handler of requests failed:', error);
}

async function reply(response: Response, outgoing: ServerResponse): Promise<void> {
  const headers: [string, string][] = [...response.headers].filter(([name]) => name !== 'set-cookie');
  for (const [name, value] of headers) outgoing.setHeader(name, value);
  const cookies = response.headers.getSetCookie();
  if (cookies.length > 0) outgoing.setHeader('set-cookie', cookies);
  outgoing.writeHead(response.status);
  outgoing.flushHeaders();
  if (!response.body) {
    outgoing.end();
    return;
  }
  await pipeline(Readable.fromWeb(response.body as import('node:stream/web').ReadableStream), outgoing);
}

/** Answers a request for an upgrade: for the event `upgrade` of a server that is there already. */
export async function upgrade<Env>(
  handler: FetchHandler<Env>, env: Env, incoming: IncomingMessage, socket: Duplex, head: Buffer,
): Promise<void> {
  socket.on('error', () => socket.destroy());
  try {
    const request = requestOf(incoming);
    if (!request) {
      socket.end('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
      return;
    }
    const response = await handler.fetch(request, env);
    const takeOver = (response as unknown as { [TAKE_OVER]?: TakeOver })[TAKE_OVER];
    if (takeOver) {
      takeOver(incoming, socket, head);
      return;
    }
    const body = Buffer.from(await response.arrayBuffer());
    const headers = [...response.headers].filter(([name]) => !HOPS.has(name) && name !== 'content-length');
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const status = `HTTP/1.1 ${response.status} ${response.statusText || 'Answer'}`;
    socket.write(`${status}\r\n${lines}content-length: ${body.length}\r\nconnection: close\r\n\r\n`);
    socket.end(body);
  } catch (error) {
    tell(error);
    socket.end('HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
  }
}

const PLAIN = { 'content-type': 'text/plain' };

/** A server of `node:http` for a module with `fetch(request, env)`, upgrades included. It does not listen yet. */
export function createServer<Env>(handler: FetchHandler<Env>, env: Env): Server {
  const server = createHttpServer((incoming, outgoing) => {
    const abort = new AbortController();
    outgoing.once('close', () => {
      if (!outgoing.writableFinished) abort.abort();
    });
    const answer = async () => {
      try {
        const request = requestOf(incoming, abort.signal);
        if (request) await reply(await handler.fetch(request, env), outgoing);
        else outgoing.writeHead(400).end();
      } catch (error) {
        // Whoever has left hears nothing, and what fails for that is no failure.
        if (!abort.signal.aborted) tell(error);
        if (outgoing.headersSent) outgoing.destroy();
        else outgoing.writeHead(500, PLAIN).end('Internal Server Error');
      }
    };
    void answer();
  });
  server.on('upgrade', (incoming, socket, head) => void upgrade(handler, env, incoming, socket, head));
  return server;
}

/** The same, listening: on a port of loopback unless a host is named; 0 takes any port that is free. */
export async function serve<Env>(
  handler: FetchHandler<Env>, env: Env, options: { port?: number; host?: string } = {},
): Promise<{ server: Server; url: string; close: () => void }> {
  const server = createServer(handler, env);
  const { port = 8787, host = '127.0.0.1' } = options;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { server, url: `http://localhost:${(server.address() as AddressInfo).port}/`, close };
}
