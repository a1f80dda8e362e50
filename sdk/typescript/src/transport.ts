/**
 * HTTP/1.1 over the daemon's Unix socket.
 *
 * Retries, and why they are safe: a socket that cannot be connected to has taken nothing; `SHUTTING_DOWN` and
 * `SANDBOX_BUSY` are refusals before anything was done; and what only reads may be asked twice when the connection
 * broke. Nothing else is sent twice: of a command whose connection broke nobody knows whether it ran.
 */
import { Agent, request as httpRequest, type ClientRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { operations, type ErrorBody, type Operations } from './api.js';
import { ConnectionError, SandboxError, failure, fromDaemon, isPlatformTransientError, lost, type Asked } from './errors.js';
import { checkBody, invalid } from './checks.js';
import { LARGE_BYTES, readWhole } from './whole.js';

/** The environment variable that names the socket, as for the command line. */
const SOCKET_VARIABLE = 'STOCKADE_SOCKET';
const SOCKET_DEFAULT = '/run/stockade/stockade.sock';

/** The daemon takes 512 connections of one user; streams and other programs of the same user want some too. */
const CONNECTIONS_MAX = 400;
/** The daemon closes a connection that is idle for longer than a request may take to arrive; ours are closed before. */
const IDLE_MS = 10_000;
/** How long the daemon may be away (a restart) before its absence is an error, and between attempts. */
const ABSENCE_MS = 10_000;
const ATTEMPT_INTERVAL_MS = 50;

export interface StockadeOptions {
  /** Path of the daemon's socket. `$STOCKADE_SOCKET`, or `/run/stockade/stockade.sock`, when absent. */
  socket?: string;
  /** How long to wait for a daemon that is not there (it may be restarting), in milliseconds; 10,000 when absent. */
  absenceTimeoutMs?: number;
  /** `handlers` in the daemon's `--runtime-dir`, for `setOutboundByHost`; beside the socket when absent, where it is by default. */
  handlersDirectory?: string;
}

export type Body = string | Uint8Array | ReadableStream<Uint8Array> | Readable | AsyncIterable<Uint8Array | string>;

export type Operation = keyof Operations;

/** What an operation is called with. */
export interface Arguments<O extends Operation> {
  path?: Operations[O]['path'];
  query?: Operations[O]['query'];
  body?: Operations[O]['body'];
  /** Instead of JSON. */
  bytes?: Body;
  contentType?: string;
  headers?: OutgoingHttpHeaders;
  accept?: string;
  signal?: AbortSignal | undefined;
}

/** An answer whose body has not been read. */
export interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: IncomingMessage;
  request: ClientRequest;
  /** What ends it: then its body breaks, and this says why. */
  signal?: AbortSignal | undefined;
}

/** What is read from a socket at once. */
const PIECE_BYTES = 64 * 1024;

/** Refusals before anything was done. */
const PASSING = new Set(['SHUTTING_DOWN', 'SANDBOX_BUSY']);
const READS = new Set(['GET', 'HEAD']);
const ABSENT = new Set(['ENOENT', 'ECONNREFUSED']);

export class Transport {
  readonly socket: string;
  /** Where the daemon looks for sockets of handlers. */
  readonly handlers: string;
  readonly #agent: Agent;
  readonly #absenceMs: number;

  constructor(options: StockadeOptions = {}) {
    this.socket = options.socket || process.env[SOCKET_VARIABLE] || SOCKET_DEFAULT;
    this.handlers = options.handlersDirectory ?? join(dirname(this.socket), 'handlers');
    this.#absenceMs = options.absenceTimeoutMs ?? ABSENCE_MS;
    if (!(this.#absenceMs >= 0)) throw invalid('absenceTimeoutMs', `absenceTimeoutMs is ${this.#absenceMs}: give milliseconds, or leave it out`);
    this.#agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS_MAX, timeout: IDLE_MS, scheduling: 'lifo' });
  }

  /** Closes the connections that are kept. */
  close(): void {
    this.#agent.destroy();
  }

  /** Performs an operation and gives its answer as JSON. */
  async call<O extends Operation>(name: O, given: Arguments<O> = {}): Promise<Operations[O]['answer']> {
    const [method] = operations[name];
    for (let attempt = 0; ; attempt += 1) {
      try {
        const answer = await this.open(name, given);
        const text = await textOf(answer);
        return (text === '' ? undefined : JSON.parse(text)) as Operations[O]['answer'];
      } catch (error) {
        // The connection broke under a question: ask once more. `open` has seen to the rest.
        if (attempt > 0 || !READS.has(method) || !(error instanceof ConnectionError)) throw error;
      }
    }
  }

  /** Performs an operation and gives its answer as it begins; failures are thrown. */
  async open<O extends Operation>(name: O, given: Arguments<O> = {}): Promise<Answer> {
    const [method, template] = operations[name];
    const path = target(template, (given.path ?? {}) as Record<string, string | number>, given.query ?? {});
    const headers: OutgoingHttpHeaders = { host: 'stockade', ...given.headers };
    if ('bytes' in given) checkBody(given.bytes);
    let body: Body | undefined = given.bytes;
    if (given.body !== undefined) {
      body = JSON.stringify(given.body);
      headers['content-type'] = 'application/json';
    } else if (body !== undefined) {
      headers['content-type'] = given.contentType ?? 'application/octet-stream';
    }
    if (given.accept) headers['accept'] = given.accept;
    const answer = await this.send(method, path, headers, body, given.signal, name);
    if (answer.status < 400) return answer;
    throw await refusal(answer, name, given);
  }

  /** Sends a request, again while the daemon is away or refuses for the moment. */
  async send(
    method: string, path: string, headers: OutgoingHttpHeaders, body?: Body, signal?: AbortSignal, name = path,
  ): Promise<Answer> {
    const again = body === undefined || typeof body === 'string' || body instanceof Uint8Array;
    const start = performance.now();
    for (;;) {
      let error: unknown;
      try {
        const answer = await this.#once(method, path, headers, body, signal);
        // Another one's 503 is an answer as any other: that of a server in a sandbox.
        if (!PASSING.has(String(answer.headers['x-stockade-error']))) return answer;
        error = await refusal(answer, name);
      } catch (caught) {
        error = caught;
        const absent = caught instanceof ConnectionError && ABSENT.has(String(caught.context['errno']));
        if (!absent && !isPlatformTransientError(caught)) throw caught;
      }
      if (!again || performance.now() - start > this.#absenceMs) throw error;
      await sleep(ATTEMPT_INTERVAL_MS, undefined, signal ? { signal } : {});
    }
  }

  async #once(
    method: string, path: string, headers: OutgoingHttpHeaders, body: Body | undefined, signal: AbortSignal | undefined,
  ): Promise<Answer> {
    signal?.throwIfAborted();
    const whole = typeof body === 'string' || body instanceof Uint8Array ? body : undefined;
    if (whole !== undefined) headers = { ...headers, 'content-length': Buffer.byteLength(whole) };
    const request = httpRequest({ socketPath: this.socket, agent: this.#agent, method, path, headers });
    // One that comes after the answer has begun is told by the answer's body.
    request.on('error', () => undefined);
    const abort = () => request.destroy(signal?.reason instanceof Error ? signal.reason : new Error('aborted'));
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const answered = once(request, 'response') as Promise<[IncomingMessage]>;
      if (whole !== undefined) request.end(whole);
      else if (body === undefined) request.end();
      else await Promise.race([pour(body as Exclude<Body, string | Uint8Array>, request), answered]);
      const [response] = await answered;
      const end = () => signal?.removeEventListener('abort', abort);
      response.once('close', end);
      return { status: response.statusCode ?? 0, headers: response.headers, body: response, request, signal };
    } catch (error) {
      signal?.removeEventListener('abort', abort);
      throw broken(error, signal);
    }
  }
}

/** Sends a body of any length. An answer that comes before its end stands; what is left is not sent then. */
async function pour(body: Exclude<Body, string | Uint8Array>, request: ClientRequest): Promise<void> {
  const source = body instanceof Readable ? body : Readable.from(body as AsyncIterable<Uint8Array>);
  let answered = false;
  request.once('response', () => { answered = true; });
  try {
    await pipeline(source, request);
  } catch (error) {
    if (!answered) throw error;
  }
}

/** What to throw when a connection broke. */
export function broken(error: unknown, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof SandboxError) return error;
  const { message } = error as Error;
  return lost(`the connection to the daemon broke: ${message}`, error, 'is the daemon running, and is this its socket?');
}

/** Path and query of a request. */
export function target(
  template: string, path: Record<string, string | number>, query: Record<string, unknown>,
): string {
  const parts = template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(part(name, path[name])));
  const pairs = Object.entries(query).flatMap(([name, value]) => {
    if (value === undefined || value === null) return [];
    return [value].flat().map((one) => `${name}=${encodeURIComponent(String(one))}`);
  });
  return pairs.length === 0 ? parts : `${parts}?${pairs.join('&')}`;
}

/** The parts of an answer's body as they come; when the connection breaks, in the words of this client. */
export async function* partsOf(answer: Answer): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* answer.body as AsyncIterable<Buffer>;
  } catch (error) {
    throw broken(error, answer.signal);
  } finally {
    answer.request.destroy();
  }
}

/** The same as a stream. */
export function readableOf(answer: Answer): Readable {
  return Readable.from(partsOf(answer), { objectMode: false });
}

/** A part of a path. An empty one would be the path of something else. */
function part(name: string, value: string | number | undefined): string {
  const text = String(value ?? '');
  if (text === '' || text === '.' || text === '..') throw invalid(name, `${JSON.stringify(text)} is no ${name}`);
  return text;
}

/** All bytes of an answer. */
export async function bytesOf(answer: Answer): Promise<Buffer> {
  // Small answers come in one piece; for large ones memory is had once.
  const length = Number(answer.headers['content-length'] ?? 0);
  const whole = length > PIECE_BYTES ? Buffer.allocUnsafeSlow(length) : undefined;
  const parts: Buffer[] = [];
  let at = 0;
  try {
    for await (const part of answer.body as AsyncIterable<Buffer>) {
      if (whole) at += part.copy(whole, at);
      else parts.push(part);
    }
  } catch (error) {
    throw broken(error, answer.signal);
  }
  if (whole) return whole.subarray(0, at);
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

export async function textOf(answer: Answer): Promise<string> {
  return (await bytesOf(answer)).toString('utf8');
}

/** The answer to a GET whole; a large one is asked for again over a connection of its own (`whole`). */
export async function contentOf<O extends Operation>(
  transport: Transport, name: O, given: Arguments<O>, answer: Answer,
): Promise<Buffer> {
  if (Number(answer.headers['content-length'] ?? 0) >= LARGE_BYTES) {
    answer.request.destroy();
    const path = target(operations[name][1], (given.path ?? {}) as Record<string, string>, given.query ?? {});
    const whole = await readWhole(transport.socket, path, given.headers ?? {}, given.signal);
    if (whole) return whole;
    answer = await transport.open(name, given);
  }
  return bytesOf(answer);
}

/** The error that an answer is. */
export async function refusal(answer: Answer, operation: string, asked: Asked = {}): Promise<SandboxError> {
  const text = await textOf(answer);
  try {
    const body = JSON.parse(text) as ErrorBody;
    if (typeof body.code === 'string') return fromDaemon(body, answer.status, operation, asked);
  } catch {
    // Not the daemon's words: shown as they are.
  }
  return failure(SandboxError, 'INVALID_JSON_RESPONSE', `${operation}: status ${answer.status}: ${text.slice(0, 200)}`, {
    httpStatus: answer.status,
  });
}
