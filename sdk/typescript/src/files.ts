/** Files: results in the shapes of the Cloudflare SDK, from the daemon's raw bytes. */
import { isUtf8 } from 'node:buffer';
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import type { FileInfo as Entry, PathText } from './api.js';
import type { Core } from './core.js';
import { asyncIterableToSSEStream, parseSSEStream } from './sse.js';
import { partsOf, readableOf } from './transport.js';
import type { FileChunk, FileInfo, FileMetadata, FileStreamEvent, ReadFileResult, ReadFileStreamResult } from './types.js';

/** Bytes of a chunk of `readFileStream`; divisible by three, so that base64 has no padding within. */
const CHUNK_BYTES = 65_535;

export const now = (): string => new Date().toISOString();

/** A path that the daemon gave. One that is not UTF-8 is shown as far as it can be. */
export function pathOf(path: PathText): string {
  return typeof path === 'string' ? path : Buffer.from(path.base64, 'base64').toString('utf8');
}

/** `644` as `rw-r--r--`. */
function modeOf(mode: string): string {
  const bits = Number.parseInt(mode, 8);
  return [...'rwxrwxrwx'].map((letter, index) => (bits & (1 << (8 - index)) ? letter : '-')).join('');
}

export function infoOf(base: string, entry: Entry): FileInfo {
  const relativePath = pathOf(entry.path);
  const mode = modeOf(entry.mode);
  const known = entry.type === 'file' || entry.type === 'directory' || entry.type === 'symlink';
  return {
    name: posix.basename(relativePath),
    absolutePath: posix.join(base, relativePath),
    relativePath,
    type: known ? (entry.type as FileInfo['type']) : 'other',
    size: entry.size,
    modifiedAt: entry.modified_at,
    mode,
    permissions: { readable: mode[0] === 'r', writable: mode[1] === 'w', executable: mode[2] === 'x' },
  };
}

const TEXTUAL = /^(text\/|application\/(json|javascript|xml|x-sh|x-yaml|yaml|toml|x-httpd-php|typescript|sql)|.*\+(json|xml)$)/;

/** Whether bytes are text: valid UTF-8 without NUL. */
const isText = (bytes: Uint8Array): boolean => isUtf8(bytes) && !bytes.includes(0);

function mimeOf(header: string | undefined, binary: boolean): string {
  const mime = header?.split(';')[0]?.trim() || 'application/octet-stream';
  return mime === 'application/octet-stream' && !binary ? 'text/plain' : mime;
}

export async function readFile(
  core: Core, path: string, encoding: string | undefined,
): Promise<ReadFileResult | ReadFileStreamResult> {
  if (encoding === 'none') {
    const answer = await core.open('readFile', { query: { path } });
    const mimeType = mimeOf(answer.headers['content-type'], true);
    const size = Number(answer.headers['content-length'] ?? 0);
    const content = Readable.toWeb(readableOf(answer)) as ReadableStream<Uint8Array>;
    return { success: true, path, content, encoding, isBinary: !TEXTUAL.test(mimeType), mimeType, size, timestamp: now() };
  }
  const { bytes, type } = await core.content({ path });
  const isBinary = !isText(bytes);
  const asBase64 = encoding === 'base64' || (encoding === undefined && isBinary);
  return {
    success: true,
    path,
    content: bytes.toString(asBase64 ? 'base64' : 'utf8'),
    encoding: asBase64 ? 'base64' : 'utf-8',
    isBinary,
    mimeType: mimeOf(type, isBinary),
    size: bytes.length,
    timestamp: now(),
  };
}

/** A file as the stream of `readFileStream`. */
export async function readFileStream(core: Core, path: string): Promise<ReadableStream<Uint8Array>> {
  const answer = await core.open('readFile', { query: { path } });
  const parts = chunks(partsOf(answer), CHUNK_BYTES);
  const first = await parts.next();
  const head = first.done ? new Uint8Array() : first.value;
  // A file is judged by its beginning; a character may be cut at the end of that.
  const text = !head.includes(0) && !new TextDecoder().decode(head, { stream: true }).includes('\ufffd');
  const mimeType = mimeOf(answer.headers['content-type'], !text);
  const size = Number(answer.headers['content-length'] ?? 0);
  async function* events(): AsyncGenerator<FileStreamEvent> {
    yield { type: 'metadata', mimeType, size, isBinary: !text, encoding: text ? 'utf-8' : 'base64' };
    const decoder = new TextDecoder();
    let bytesRead = 0;
    try {
      for (let part = first; !part.done; part = await parts.next()) {
        bytesRead += part.value.length;
        const data = text ? decoder.decode(part.value, { stream: true }) : Buffer.from(part.value).toString('base64');
        yield { type: 'chunk', data };
      }
      const rest = decoder.decode();
      if (rest) yield { type: 'chunk', data: rest };
      yield { type: 'complete', bytesRead };
    } catch (error) {
      yield { type: 'error', error: (error as Error).message };
    } finally {
      answer.request.destroy();
    }
  }
  return asyncIterableToSSEStream(events());
}

/** Bytes in pieces of one size. */
async function* chunks(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array, void, undefined> {
  let parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of source) {
    parts.push(part);
    length += part.length;
    if (length < size) continue;
    const whole = Buffer.concat(parts);
    let at = 0;
    for (; whole.length - at >= size; at += size) yield whole.subarray(at, at + size);
    parts = [whole.subarray(at)];
    length = whole.length - at;
  }
  if (length > 0) yield Buffer.concat(parts);
}

/** The content of a stream that `readFileStream` gave, text as strings and the rest as bytes; returns what it is. */
export async function* streamFile(
  stream: ReadableStream<Uint8Array>, signal?: AbortSignal,
): AsyncGenerator<FileChunk, FileMetadata, undefined> {
  let metadata: FileMetadata | undefined;
  for await (const event of parseSSEStream<FileStreamEvent>(stream, signal)) {
    if (event.type === 'metadata') {
      const { mimeType, size, isBinary, encoding } = event;
      metadata = { mimeType, size, isBinary, encoding };
    } else if (event.type === 'chunk') {
      yield metadata?.encoding === 'base64' ? new Uint8Array(Buffer.from(event.data, 'base64')) : event.data;
    } else if (event.type === 'complete') {
      if (metadata) return metadata;
    } else {
      throw new Error(event.error);
    }
  }
  throw new Error('the stream ended before the file did');
}

/** All of such a stream. */
export async function collectFile(
  stream: ReadableStream<Uint8Array>, signal?: AbortSignal,
): Promise<{ content: string | Uint8Array; metadata: FileMetadata }> {
  const parts: FileChunk[] = [];
  const file = streamFile(stream, signal);
  for (;;) {
    const { done, value } = await file.next();
    if (done) {
      const bytes = () => new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array))));
      return { content: value.encoding === 'base64' ? bytes() : parts.join(''), metadata: value };
    }
    parts.push(value);
  }
}
