import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import {
  ConnectionError, FileExistsError, FileNotFoundError, FileSystemError, GitRepositoryNotFoundError, Stockade, collectFile, getSandbox,
  parseSSEStream, streamFile, type FileWatchSSEEvent,
} from '@stockade/sandbox';
import { Breaking, all, fresh } from './world.js';

test('files are written, read, listed, moved and deleted as there', async () => {
  await using sandbox = fresh();
  assert.deepEqual((await sandbox.mkdir('/workspace/project/src', { recursive: true })).recursive, true);
  await assert.rejects(sandbox.mkdir('/workspace/project'), FileExistsError);
  const text = JSON.stringify({ name: 'my-app', version: '1.0.0' });
  assert.deepEqual((await sandbox.writeFile('/workspace/project/package.json', text)).success, true);
  const read = await sandbox.readFile('/workspace/project/package.json');
  assert.deepEqual({ ...read, timestamp: '' }, {
    success: true, path: '/workspace/project/package.json', content: text, encoding: 'utf-8', isBinary: false,
    mimeType: 'application/json', size: text.length, timestamp: '',
  });
  await sandbox.exec('cd project && touch .hidden && ln -s package.json link && chmod 750 src && mkfifo pipe');
  const { files, count } = await sandbox.listFiles('.');
  assert.equal(count, 4);
  assert.deepEqual(files.map(({ name, type, mode }) => [name, type, mode]), [
    ['link', 'symlink', 'rwxrwxrwx'], ['package.json', 'file', 'rw-r--r--'], ['pipe', 'other', 'rw-r--r--'], ['src', 'directory', 'rwxr-x---'],
  ]);
  assert.equal(files[1]!.absolutePath, '/workspace/project/package.json');
  const everything = await sandbox.listFiles('/workspace', { recursive: true, includeHidden: true });
  assert.ok(everything.files.some((file) => file.relativePath === 'project/.hidden'));
  await sandbox.renameFile('package.json', 'renamed.json');
  await sandbox.moveFile('renamed.json', '/tmp');
  assert.equal((await sandbox.exists('/tmp/renamed.json')).exists, true);
  await assert.rejects(sandbox.deleteFile('/workspace/project/src'), (error: unknown) => {
    assert.ok(error instanceof FileSystemError && error.code === 'IS_DIRECTORY');
    assert.match(error.message, /Cannot delete directory .*deleteFile\(\)/);
    return true;
  });
  await sandbox.deleteFile('/tmp/renamed.json');
  assert.equal((await sandbox.exists('/tmp/renamed.json')).exists, false);
  await assert.rejects(sandbox.readFile('/nowhere'), (error: unknown) => {
    assert.ok(error instanceof FileNotFoundError);
    assert.deepEqual([error.code, error.httpStatus, error.operation], ['FILE_NOT_FOUND', 404, 'file.read']);
    return true;
  });
});

test('bytes are base64 unless text is asked for, and go in and out as they are', async () => {
  await using sandbox = fresh();
  const bytes = randomBytes(100_000);
  await sandbox.writeFile('/tmp/b', bytes.toString('base64'), { encoding: 'base64' });
  const read = await sandbox.readFile('/tmp/b');
  assert.deepEqual([read.encoding, read.isBinary, Buffer.from(read.content, 'base64').equals(bytes)], ['base64', true, true]);
  assert.ok((await sandbox.readBytes('/tmp/b')).equals(bytes));
  assert.ok((await sandbox.readBytes('/tmp/b', { start: 10, end: 20 })).equals(bytes.subarray(10, 20)));
  const { content, size } = await sandbox.readFile('/tmp/b', { encoding: 'none' });
  const parts = [];
  for await (const part of content) parts.push(part);
  assert.ok(size === bytes.length && Buffer.concat(parts).equals(bytes));
  const stream = new Blob([new Uint8Array(bytes)]).stream() as ReadableStream<Uint8Array>;
  await sandbox.writeFile('/tmp/c', stream, { mode: '600' });
  const collected = await collectFile(await sandbox.readFileStream('/tmp/c'));
  assert.ok(Buffer.from(collected.content as Uint8Array).equals(bytes));
  assert.deepEqual(collected.metadata, { mimeType: 'application/octet-stream', size: bytes.length, isBinary: true, encoding: 'base64' });
  assert.equal((await sandbox.stat('/tmp/c')).mode, '0600');
});

test('a stream of text has no character that is cut, and says what it was of', async () => {
  await using sandbox = fresh();
  const text = 'ä€🦀'.repeat(40_000);
  await sandbox.writeFile('/tmp/t.txt', text);
  const parts: string[] = [];
  const file = streamFile(await sandbox.readFileStream('/tmp/t.txt'));
  let last = await file.next();
  for (; !last.done; last = await file.next()) parts.push(last.value as string);
  assert.ok(parts.length > 4 && parts.join('') === text);
  assert.deepEqual(last.value, { mimeType: 'text/plain', size: Buffer.byteLength(text), isBinary: false, encoding: 'utf-8' });
});

test('many megabytes go both ways without being held in memory', async () => {
  await using sandbox = fresh();
  const [chunk, count] = [randomBytes(1 << 20), 64];
  const sent = createHash('sha256');
  async function* source() {
    for (let n = 0; n < count; n += 1) {
      sent.update(chunk);
      yield chunk;
    }
  }
  await sandbox.writeFile('/workspace/big', Readable.from(source()));
  const received = createHash('sha256');
  for await (const part of await sandbox.download('/workspace/big')) received.update(part as Buffer);
  assert.equal(received.digest('hex'), sent.digest('hex'));
});

test('a large file comes whole, and a part of it', async () => {
  await using sandbox = fresh();
  const bytes = randomBytes(9 * 1024 * 1024 + 7);
  await sandbox.writeFile('/tmp/large', bytes);
  assert.ok((await sandbox.readBytes('/tmp/large')).equals(bytes));
  assert.ok((await sandbox.readBytes('/tmp/large', { start: 3, end: 8_000_000 })).equals(bytes.subarray(3, 8_000_000)));
  const file = await sandbox.readFile('/tmp/large');
  assert.deepEqual([file.encoding, file.size], ['base64', bytes.length]);
  assert.ok(Buffer.from(file.content, 'base64').equals(bytes));
  // A connection that breaks in the middle of it: the ordinary way is tried, and says so.
  await using breaking = await Breaking.after(() => 5_000_000);
  await assert.rejects(getSandbox(breaking.socket, sandbox.name).readBytes('/tmp/large'), ConnectionError);
});

test('changes are watched and asked for', async () => {
  await using sandbox = fresh();
  const abort = new AbortController();
  const events = parseSSEStream<FileWatchSSEEvent>(await sandbox.watch('/workspace', { include: ['*.txt'] }), abort.signal);
  const first = (await events.next()).value;
  assert.ok(first && first.type === 'watching' && first.path === '/workspace');
  const { version, status } = await sandbox.checkChanges('/workspace');
  assert.equal(status, 'unchanged');
  await sandbox.exec('echo 1 > skipped.md; echo 1 > a.txt; mv a.txt b.txt; rm b.txt');
  const seen: string[] = [];
  while (seen.at(-1) !== 'delete /workspace/b.txt') {
    const event = (await events.next()).value as FileWatchSSEEvent;
    assert.equal(event.type, 'event');
    if (event.type === 'event') seen.push(`${event.eventType} ${event.path}`);
  }
  assert.deepEqual(seen.filter((line) => line.startsWith('move')), ['move_from /workspace/a.txt', 'move_to /workspace/b.txt']);
  assert.equal((await sandbox.checkChanges('/workspace', { since: version })).status, 'changed');
  const pending = events.next();
  abort.abort(new Error('seen enough'));
  await assert.rejects(pending, /seen enough/);
});

test('trees are copied, searched, packed and unpacked', async () => {
  await using sandbox = fresh();
  await sandbox.mkdir('/workspace/a/b', { recursive: true });
  await sandbox.writeFile('/workspace/a/b/c.txt', 'one\ntwo needle\n');
  await sandbox.symlink('b/c.txt', '/workspace/a/link');
  await sandbox.chmod('/workspace/a/b/c.txt', '640');
  await sandbox.chown('/workspace/a/b/c.txt', '0:0');
  await sandbox.copy('/workspace/a', '/workspace/copy');
  assert.deepEqual((await sandbox.search('/workspace/copy', { text: 'needle' })).matches.map(({ path, line }) => [path, line]), [['b/c.txt', 2]]);
  await sandbox.uploadArchive('/workspace/unpacked', await sandbox.downloadArchive('/workspace/a'));
  assert.equal((await sandbox.readFile('/workspace/unpacked/b/c.txt')).content, 'one\ntwo needle\n');
  assert.equal((await sandbox.stat('/workspace/unpacked/link', { noFollow: true })).target, 'b/c.txt');
  await sandbox.removeTree('/workspace/unpacked');
  await sandbox.removeTree('/workspace/unpacked', { missingOk: true });
});

test('a repository is checked out', async () => {
  await using sandbox = fresh();
  const made = await sandbox.exec('git init -q -b main r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first && cd ..');
  assert.ok(made.success, made.stderr);
  const result = await sandbox.gitCheckout('/workspace/r', { targetDir: '/workspace/clone', branch: 'main' });
  assert.deepEqual([result.success, result.branch, result.targetDir], [true, 'main', '/workspace/clone']);
  assert.match(result.commit ?? '', /^[0-9a-f]{40}$/);
  await assert.rejects(sandbox.gitCheckout('/workspace/nothing'), (error: unknown) => {
    assert.ok(error instanceof GitRepositoryNotFoundError);
    return error.httpStatus === 404;
  });
});

test('a watch whose connection breaks says so, and what was missed can be asked for', async () => {
  await using sandbox = fresh();
  await sandbox.info();
  const { version } = await sandbox.checkChanges('/workspace');
  await using breaking = await Breaking.after(() => 3_000);
  const other = getSandbox(breaking.socket, sandbox.name);
  const events = parseSSEStream<FileWatchSSEEvent>(await other.watch('/workspace'));
  await sandbox.exec('for i in $(seq 1 200); do echo $i > $i.txt; done');
  let last: FileWatchSSEEvent | undefined;
  for await (const event of events) last = event;
  assert.equal(last?.type, 'error');
  const missed = await sandbox.checkChanges('/workspace', { since: version });
  assert.equal(missed.status, 'changed');
  assert.equal((await sandbox.checkChanges('/workspace', { since: missed.version })).status, 'unchanged');
});

test('content whose connection breaks says so in the words of this client', async () => {
  await using sandbox = fresh();
  await sandbox.writeFile('/tmp/large', new Uint8Array(1_000_000));
  await using breaking = await Breaking.after(() => 300_000);
  using client = new Stockade(breaking.socket);
  const other = client.sandbox(sandbox.name);
  const { content } = await other.readFile('/tmp/large', { encoding: 'none' });
  await assert.rejects(all(content), ConnectionError);
  await assert.rejects(async () => all(await other.download('/tmp/large')), ConnectionError);
});
