import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as sdk from '@stockade/sandbox';
import { ContainerUnavailableError, NotSupportedError, SandboxError, Stockade, ValidationFailedError, getSandbox } from '@stockade/sandbox';
import { SOCKET, fresh } from './world.js';

/** The names that programs for the Cloudflare SDK import, and the methods that they call. */
const ROOT = [
  'getSandbox', 'Sandbox', 'proxyToSandbox', 'proxyTerminal', 'parseSSEStream', 'responseToAsyncIterable', 'asyncIterableToSSEStream',
  'streamFile', 'collectFile', 'isPlatformTransientError', 'SandboxError', 'FileNotFoundError', 'CommandNotFoundError',
  'ProcessNotFoundError', 'PortNotExposedError', 'GitRepositoryNotFoundError', 'SessionAlreadyExistsError', 'ContextNotFoundError',
];
const METHODS = [
  'exec', 'execStream', 'startProcess', 'listProcesses', 'getProcess', 'killProcess', 'killAllProcesses', 'cleanupCompletedProcesses',
  'getProcessLogs', 'streamProcessLogs', 'writeFile', 'readFile', 'readFileStream', 'mkdir', 'deleteFile', 'renameFile', 'moveFile',
  'listFiles', 'exists', 'watch', 'checkChanges', 'gitCheckout', 'createCodeContext', 'runCode', 'runCodeStream', 'listCodeContexts',
  'deleteCodeContext', 'exposePort', 'unexposePort', 'getExposedPorts', 'isPortExposed', 'validatePortToken', 'wsConnect', 'terminal',
  'mountBucket', 'unmountBucket', 'createBackup', 'restoreBackup', 'createSession', 'getSession', 'deleteSession', 'setEnvVars',
  'setSleepAfter', 'setKeepAlive', 'setContainerTimeouts', 'setTransport', 'setLabels', 'setSandboxName', 'configure', 'destroy', 'stop',
  'getState', 'getContainerPlacementId', 'containerFetch', 'fetch', 'setAllowedHosts', 'setDeniedHosts', 'setOutboundByHost',
  'removeOutboundByHost', 'createTerminal', 'getTerminal', 'listTerminals',
];

test('every name of the Cloudflare SDK is here', () => {
  const sandbox = getSandbox(SOCKET, 'names') as unknown as Record<string, unknown>;
  assert.deepEqual(ROOT.filter((name) => !(name in sdk)), []);
  assert.deepEqual(METHODS.filter((name) => typeof sandbox[name] !== 'function'), []);
});

test('a sandbox is made by its first use, and again after its end', async () => {
  const sandbox = fresh({ labels: { test: 'surface' } });
  assert.deepEqual((await sandbox.getState()).status, 'stopped');
  await Promise.all([sandbox.exec('echo x > /workspace/x'), sandbox.exec('true'), sandbox.exists('/')]);
  assert.deepEqual((await sandbox.getState()).status, 'healthy');
  using stockade = new Stockade(SOCKET);
  assert.deepEqual((await stockade.list({ labels: ['test=surface'] })).map((one) => one.id), [sandbox.name]);
  await Promise.all([sandbox.destroy(), sandbox.destroy()]);
  assert.equal((await sandbox.exists('/workspace/x')).exists, false);
  // Destroyed by somebody else: the same.
  await stockade.sandbox(sandbox.name).destroy();
  assert.equal((await sandbox.exec('echo there')).stdout, 'there\n');
  await sandbox.destroy();
});

test('what the daemon has not is said by name', async () => {
  await using sandbox = fresh();
  const calls: [Promise<unknown>, RegExp][] = [
    [sandbox.mountBucket('b', '/data', { endpoint: 'https://s3.example.org' }), /bucket mounts/],
    [sandbox.mountBucket('b', '/data'), /R2 bindings/],
    [sandbox.createBackup({ dir: '/workspace' }), /snapshots and backups/],
    [sandbox.restoreBackup({ id: 'x', dir: '/workspace' }), /snapshots and backups/],
  ];
  for (const [call, feature] of calls) {
    await assert.rejects(call, (error: unknown) => {
      assert.ok(error instanceof NotSupportedError && error.code === 'NOT_SUPPORTED' && error.httpStatus === 501);
      assert.match(String(error.context['feature']), feature);
      assert.ok(error.suggestion);
      return true;
    });
  }
});

test('errors keep what the daemon said', async () => {
  await assert.rejects(getSandbox(SOCKET, 'Not An Id').exec('true'), (error: unknown) => {
    assert.ok(error instanceof ValidationFailedError && error.daemonCode === 'INVALID_ID');
    const json = error.toJSON();
    assert.deepEqual([json['code'], json['httpStatus'], json['name']], ['VALIDATION_FAILED', 400, 'ValidationFailedError']);
    assert.ok(error.requestId && error.hint && error.message);
    return true;
  });
  await assert.rejects(fresh({ image: 'not/there:1' }).exec('true'), (error: unknown) => {
    assert.ok(error instanceof SandboxError && error.daemonCode === 'IMAGE_NOT_FOUND');
    return true;
  });
  const away = getSandbox({ socket: '/nowhere/s', absenceTimeoutMs: 100 }, 'x');
  await assert.rejects(away.exec('true'), { code: 'RPC_TRANSPORT_ERROR', httpStatus: 503 });
  assert.ok(ContainerUnavailableError.prototype instanceof SandboxError);
});

test('the daemon is asked about itself and its images', async () => {
  using stockade = new Stockade(SOCKET);
  assert.equal((await stockade.health()).status, 'ok');
  assert.equal((await stockade.info()).api, 'v1');
  assert.ok('paths' in (await stockade.openapi()));
  assert.ok(Array.isArray((await stockade.images.list()).images));
  await assert.rejects(stockade.images.get('not/there:1'), { code: 'IMAGE_NOT_FOUND' });
  await assert.rejects(stockade.images.import('this is no tar'), { code: 'IMAGE_INVALID' });
  await using sandbox = await stockade.create({ labels: { a: 'b' } });
  assert.equal((await sandbox.info()).labels['a'], 'b');
});
