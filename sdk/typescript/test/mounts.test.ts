import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidMountConfigError, SandboxError } from '@stockade/sandbox';
import { fresh } from './world.js';

const SHARED = process.env['STOCKADE_TEST_DIRECTORY'] ?? '';

test('a mounted directory is there until it is unmounted', async () => {
  await using sandbox = fresh();
  await sandbox.mountBucket('bucket', '/data', { endpoint: `file://${SHARED}`, readOnly: true, prefix: '/in' });
  assert.equal((await sandbox.readFile('/data/greeting')).content, 'deeper\n');
  const [mount] = await sandbox.listMounts();
  assert.equal(mount?.path, '/data');
  assert.equal(mount?.read_only, true);
  await assert.rejects(sandbox.mountBucket('bucket', '/data', { endpoint: `file://${SHARED}`, readOnly: true }), InvalidMountConfigError);
  await sandbox.unmountBucket('/data');
  assert.deepEqual(await sandbox.listMounts(), []);
  await assert.rejects(sandbox.unmountBucket('/data'), { name: 'InvalidMountConfigError', message: /No active mount found at path/ });
});

test('what cannot be mounted is refused in the words of that SDK', async () => {
  await using sandbox = fresh();
  const options = { endpoint: 'file:///etc' };
  await assert.rejects(sandbox.mountBucket('ssl', '/data', options), (error: unknown) => {
    assert.ok(error instanceof InvalidMountConfigError && error.code === 'INVALID_MOUNT_CONFIG' && error.httpStatus === 400);
    assert.equal(error.daemonCode, 'DIRECTORY_DENIED');
    return true;
  });
  await assert.rejects(sandbox.mountBucket('b', '/data', { ...options, prefix: 'x' }), InvalidMountConfigError);
});

/** A real S3 server, with a bucket `photos`. */
const S3 = JSON.parse(process.env['STOCKADE_TEST_S3'] ?? 'null') as { endpoint: string; accessKeyId: string; secretAccessKey: string } | null;

test('a bucket is files, of which a part or nothing to write can be mounted', { skip: S3 === null && 'there is no S3 server' }, async () => {
  const { endpoint, ...credentials } = S3!;
  await using sandbox = fresh();
  await sandbox.mountBucket('photos', '/data', { endpoint, credentials, provider: 's3' });
  await sandbox.mkdir('/data/ts/deep', { recursive: true });
  await sandbox.writeFile('/data/ts/deep/Größe 🦀.txt', 'hello\n');
  assert.equal((await sandbox.exec("cat '/data/ts/deep/Größe 🦀.txt'")).stdout, 'hello\n');
  // Nothing in it knows the key.
  const search = await sandbox.exec(`env; cat /proc/self/mountinfo /proc/*/environ /proc/*/cmdline 2>/dev/null`);
  assert.ok(!search.stdout.includes(credentials.secretAccessKey) && search.stdout.includes('/data'));
  assert.ok(!JSON.stringify(await sandbox.listMounts()).includes(credentials.secretAccessKey));
  await sandbox.unmountBucket('/data');
  assert.equal((await sandbox.exists('/data/ts')).exists, false);

  await sandbox.mountBucket('photos', '/part', { endpoint, credentials, prefix: '/ts/deep', readOnly: true, credentialProxy: true });
  assert.deepEqual((await sandbox.listFiles('/part')).files.map((one) => one.name), ['Größe 🦀.txt']);
  await assert.rejects(sandbox.writeFile('/part/more', 'x'), (error: unknown) => error instanceof SandboxError);
  const written = await sandbox.exec('echo x > /part/more');
  assert.ok(written.exitCode !== 0 && /read-only/i.test(written.stderr), written.stderr);
  await sandbox.unmountBucket('/part');
});

test('a bucket that cannot be mounted says why', { skip: S3 === null && 'there is no S3 server' }, async () => {
  const { endpoint, ...credentials } = S3!;
  await using sandbox = fresh();
  const wrong = { ...credentials, secretAccessKey: 'wrong' };
  const failures: [Parameters<typeof sandbox.mountBucket>, string, string][] = [
    [['nobody', '/data', { endpoint, credentials }], 'BucketMountError', 'BUCKET_NOT_FOUND'],
    [['photos', '/data', { endpoint, credentials: wrong }], 'BucketMountError', 'BUCKET_DENIED'],
    [['photos', '/data', { endpoint: 'http://127.0.0.1:1', credentials }], 'BucketMountError', 'BUCKET_UNREACHABLE'],
    [['photos', '/data', { endpoint }], 'MissingCredentialsError', 'PERMISSION_DENIED'],
    [['photos', 'data', { endpoint, credentials }], 'InvalidMountConfigError', 'INVALID_REQUEST'],
    [['photos', '/', { endpoint, credentials }], 'InvalidMountConfigError', 'INVALID_REQUEST'],
  ];
  for (const [given, name, daemonCode] of failures) {
    await assert.rejects(sandbox.mountBucket(...given), (error: unknown) => {
      assert.ok(error instanceof SandboxError);
      assert.deepEqual([error.name, error.daemonCode], [name, daemonCode], error.message);
      assert.ok(error.requestId && error.hint);
      return true;
    });
  }
  assert.deepEqual(await sandbox.listMounts(), []);
});
