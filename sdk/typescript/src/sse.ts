/**
 * Server-sent events (WHATWG HTML §9.2): those of the daemon, which have names and ids, and those that the Cloudflare
 * SDK's streams are made of, which are lines of `data: {json}` only.
 */
import type { ErrorBody } from './api.js';
import { fromDaemon } from './errors.js';
import { broken, type Answer } from './transport.js';

/** An event of the daemon. */
export interface DaemonEvent {
  event: string;
  /** Where to go on after it. */
  id: string | undefined;
  data: unknown;
}

/** A line's worth of text at most; the daemon's events have 32 KiB of output, in base64 at worst. */
const LINE_CHARACTERS_MAX = 16 * 1024 * 1024;

/** Cuts text into lines, whatever pieces it comes in. */
class Lines {
  #rest = '';

  *add(text: string): Generator<string> {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    if (this.#rest.length > LINE_CHARACTERS_MAX) throw new Error('a line of an event stream is too long');
    yield* lines;
  }
}

interface Fields { event: string; id: string | undefined; data: string[] }

/** The fields of each event of a stream of bytes. */
async function* fieldsOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Fields> {
  const decoder = new TextDecoder();
  const lines = new Lines();
  let fields: Fields = { event: 'message', id: undefined, data: [] };
  for await (const part of bytes) {
    for (const line of lines.add(decoder.decode(part, { stream: true }))) {
      if (line === '') {
        if (fields.data.length > 0) yield fields;
        fields = { event: 'message', id: undefined, data: [] };
        continue;
      }
      const colon = line.indexOf(':');
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (name === 'data') fields.data.push(value);
      else if (name === 'event') fields.event = value;
      else if (name === 'id') fields.id = value;
    }
  }
}

/** The events of an answer of the daemon. Its `error` is thrown; leaving the loop closes the connection. */
export async function* eventsOf(answer: Answer, operation: string): AsyncGenerator<DaemonEvent> {
  try {
    for await (const { event, id, data } of fieldsOf(answer.body)) {
      const value: unknown = JSON.parse(data.join('\n'));
      if (event === 'error') throw fromDaemon(value as ErrorBody, 500, operation);
      yield { event, id, data: value };
    }
  } catch (error) {
    throw broken(error, answer.signal);
  } finally {
    answer.request.destroy();
  }
}

async function* iterate(stream: ReadableStream<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  const abort = () => void reader.cancel(signal?.reason).catch(() => undefined);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) break;
      yield value;
    }
    signal?.throwIfAborted();
  } finally {
    signal?.removeEventListener('abort', abort);
    await reader.cancel().catch(() => undefined);
    reader.releaseLock();
  }
}

/** The events of a stream that `execStream`, `streamProcessLogs`, `watch`, `runCodeStream` … gave. */
export async function* parseSSEStream<T>(
  stream: ReadableStream<Uint8Array>, signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  for await (const { data } of fieldsOf(iterate(stream, signal))) {
    const text = data.join('\n');
    if (text === '[DONE]') return;
    yield JSON.parse(text) as T;
  }
}

/** The same of an HTTP response. */
export async function* responseToAsyncIterable<T>(
  response: Response, signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
  if (!response.body) throw new Error('the response has no body');
  yield* parseSSEStream<T>(response.body, signal);
}

/** Events as such a stream. Cancelling it ends what they come from. */
export function asyncIterableToSSEStream<T>(
  events: AsyncIterable<T>, options: { signal?: AbortSignal; serialize?: (event: T) => string } = {},
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const serialize = options.serialize ?? JSON.stringify;
  const iterator = events[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        options.signal?.throwIfAborted();
        const { done, value } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(`data: ${serialize(value)}\n\n`));
      } catch (error) {
        controller.error(error);
      }
    },
    async cancel() {
      await iterator.return?.();
    },
  }, { highWaterMark: 0 });
}
