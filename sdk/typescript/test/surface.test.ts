import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import * as sdk from '@stockade/sandbox';
import { ContainerUnavailableError, NotSupportedError, SandboxError, Stockade, ValidationFailedError, getSandbox } from '@stockade/sandbox';
import { WarmPool, bridge, resolveWorkspacePath, shellQuote } from '@stockade/sandbox/bridge';
import { createOpencode } from '@stockade/sandbox/opencode';
import { SOCKET, fresh } from './world.js';

/** The names that programs for the Cloudflare SDK import, and the methods that they call. */
const ROOT = [
  'getSandbox', 'Sandbox', 'proxyToSandbox', 'proxyTerminal', 'parseSSEStream', 'responseToAsyncIterable', 'asyncIterableToSSEStream',
  'streamFile', 'collectFile', 'isPlatformTransientError', 'SandboxError', 'FileNotFoundError', 'CommandNotFoundError',
  'CodeInterpreter', 'isExecResult', 'isProcess', 'isProcessStatus', 'isDurableObjectCodeUpdateReset', 'FileExistsError', 'FileSystemError',
  'PermissionDeniedError', 'CommandError', 'ProcessError', 'ProcessReadyTimeoutError', 'ProcessExitedBeforeReadyError', 'PortError',
  'PortAlreadyExposedError', 'PortInUseError', 'InvalidPortError', 'ServiceNotRespondingError', 'CustomDomainRequiredError', 'GitError',
  'GitBranchNotFoundError', 'GitAuthenticationError', 'GitNetworkError', 'GitCloneError', 'GitCheckoutError', 'InvalidGitUrlError',
  'InterpreterNotReadyError', 'CodeExecutionError', 'ValidationFailedError', 'BackupNotFoundError', 'BackupExpiredError', 'BackupCreateError',
  'BackupRestoreError', 'InvalidBackupConfigError', 'BucketMountError', 'BucketUnmountError', 'S3FSMountError', 'InvalidMountConfigError',
  'MissingCredentialsError', 'FileTooLargeError', 'SessionTerminatedError', 'SessionDestroyedError', 'ContainerUnavailableError',
  'SandboxClient', 'BackupClient', 'CommandClient', 'FileClient', 'GitClient', 'InterpreterClient', 'PortClient', 'ProcessClient',
  'UtilityClient', 'ContainerProxy', 'RPCTransportError', 'OperationInterruptedError', 'StaleProcessHandleError',
  'ProcessSpawnFailedError', 'ProcessAbortedError', 'ProcessWaitTimeoutError', 'ProcessExitedBeforeLogError', 'InvalidProcessCwdError',
  'InvalidProcessEnvironmentError', 'InvalidProcessCursorError', 'TerminalNotFoundError', 'TerminalControlError',
  'StaleTerminalHandleError', 'InvalidTerminalCwdError', 'InvalidTerminalCursorError',
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
  'removeOutboundByHost', 'setOutboundByHosts', 'allowHost', 'denyHost', 'removeAllowedHost', 'removeDeniedHost', 'createTerminal',
  'getTerminal', 'listTerminals', 'execWithSessionToken', 'execStreamWithSessionToken', 'startAndWaitForPorts', 'renewActivityTimeout',
];

const ENTRIES: Record<string, string[]> = {
  bridge: ['bridge', 'WarmPool', 'shellQuote', 'resolveWorkspacePath'],
  openai: ['Shell', 'Editor'],
  opencode: ['createOpencode', 'createOpencodeServer', 'proxyToOpencode', 'proxyToOpencodeServer', 'OpencodeStartupError'],
  xterm: ['SandboxAddon'],
};
const PROCESS = ['kill', 'getStatus', 'getLogs', 'waitForLog', 'waitForPort', 'waitForExit'];
const ARGV_PROCESS = ['status', 'logs', 'output', 'waitForExit', 'waitForLog', 'waitForPort', 'kill'];
const TERMINAL = ['write', 'resize', 'output', 'waitForExit', 'interrupt', 'terminate', 'connect'];

test('every name of the Cloudflare SDK is here', async () => {
  const sandbox = getSandbox(SOCKET, 'names') as unknown as Record<string, unknown>;
  assert.deepEqual(ROOT.filter((name) => !(name in sdk)), []);
  assert.deepEqual(METHODS.filter((name) => typeof sandbox[name] !== 'function'), []);
  for (const [entry, names] of Object.entries(ENTRIES)) {
    const there = await import(`@stockade/sandbox/${entry}`) as object;
    assert.deepEqual(names.filter((name) => !(name in there)), [], entry);
  }
  const lacking = (Class: { prototype: object }, names: string[]) => names.filter((name) => !(name in Class.prototype));
  assert.deepEqual(lacking(sdk.ProcessHandle, PROCESS), []);
  assert.deepEqual(lacking(sdk.SandboxProcess, ARGV_PROCESS), []);
  assert.deepEqual(lacking(sdk.Terminal, TERMINAL), []);
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

const thrown = async (act: () => unknown): Promise<unknown> => act();

test('what the daemon has not is said by name', async () => {
  await using sandbox = fresh();
  const calls: [Promise<unknown>, RegExp][] = [
    [sandbox.mountBucket('b', '/data', { endpoint: 'https://s3.example.org', s3fsOptions: ['nomixupload'] }), /s3fs/],
    [sandbox.mountBucket('b', '/data'), /R2 bindings/],
    [sandbox.mountBucket('b', '/data', { localBucket: true }), /local buckets/],
    [sandbox.setOutboundHandler('all'), /all hosts/],
    [thrown(() => sandbox.client.tunnels), /tunnels/],
    [sandbox.client.utils.getCommands(), /lists of commands/],
    [sandbox.tunnels.get(8080), /tunnels/],
    [sandbox.tunnels.list(), /tunnels/],
    [thrown(() => new sdk.SandboxClient({ baseUrl: 'http://localhost:3000' })), /control servers/],
    [thrown(() => new sdk.ContainerProxy()), /ContainerProxy/],
    [thrown(() => bridge({})), /bridge/],
    [thrown(() => new WarmPool()), /WarmPool/],
    [createOpencode(sandbox), /opencode-ai/],
    [new sdk.SandboxClient({ sandbox }).backup.createArchive('/workspace', '/x'), /archives/],
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
  await assert.rejects(away.exec('true'), { code: 'RPC_TRANSPORT_ERROR', httpStatus: 503, kind: 'connection_failed' });
  assert.ok(ContainerUnavailableError.prototype instanceof SandboxError);
});

test('errors say what they are about, as there', async () => {
  await using sandbox = fresh();
  const failures: [() => Promise<unknown>, object][] = [
    [() => sandbox.readFile('/no/such'), { name: 'FileNotFoundError', code: 'FILE_NOT_FOUND', httpStatus: 404, path: '/no/such' }],
    [() => sandbox.deleteFile('/tmp'), { name: 'FileSystemError', code: 'IS_DIRECTORY', httpStatus: 400, path: '/tmp' }],
    [() => sandbox.killProcess('nobody'), { name: 'ProcessNotFoundError', code: 'PROCESS_NOT_FOUND', httpStatus: 404, processId: 'nobody' }],
    [() => sandbox.exec(['/no/such', 'x']), { name: 'ProcessSpawnFailedError', code: 'PROCESS_SPAWN_FAILED', command: '/no/such x' }],
    [() => sandbox.exec(['true'], { cwd: '/no/such' }), { name: 'InvalidProcessCwdError', code: 'INVALID_PROCESS_CWD', httpStatus: 400 }],
    [() => sandbox.exec(['true'], { env: { 'A=B': 'c' } }), { name: 'InvalidProcessEnvironmentError', code: 'INVALID_PROCESS_ENVIRONMENT', httpStatus: 400 }],
    [() => sandbox.createTerminal({ cwd: '/no/such' }), { name: 'InvalidTerminalCwdError', code: 'INVALID_TERMINAL_CWD', httpStatus: 400 }],
    [() => sandbox.exec('sleep 9', { timeout: 50 }), { name: 'CommandError', code: 'COMMAND_EXECUTION_ERROR', httpStatus: 500, command: 'sleep 9' }],
    [() => sandbox.deleteCodeContext('c'), { name: 'ContextNotFoundError', code: 'CONTEXT_NOT_FOUND', httpStatus: 404, contextId: 'c' }],
    [() => sandbox.createSession({ id: 'default' }), { name: 'SessionAlreadyExistsError', code: 'SESSION_ALREADY_EXISTS', httpStatus: 409 }],
    [() => sandbox.exposePort(8080, { hostname: 'mine.workers.dev' }), { name: 'CustomDomainRequiredError', code: 'CUSTOM_DOMAIN_REQUIRED', httpStatus: 400 }],
    [() => sandbox.restoreBackup({ id: 'nothing', dir: '/tmp' }), { name: 'BackupNotFoundError', code: 'BACKUP_NOT_FOUND', httpStatus: 404, backupId: 'nothing' }],
    [() => sandbox.createBackup({ dir: '/no/such' }), { operation: 'backup.create' }],
    [() => sandbox.exposePort(70_000), { name: 'InvalidPortError', httpStatus: 400, port: 70_000 }],
    [() => sandbox.gitCheckout('ext::sh -c true'), { name: 'InvalidGitUrlError', code: 'INVALID_GIT_URL', httpStatus: 400 }],
    [() => sandbox.gitCheckout('file:///nowhere'), { name: 'GitRepositoryNotFoundError', repository: 'file:///nowhere' }],
  ];
  for (const [call, expected] of failures) {
    await assert.rejects(call, (error: unknown) => {
      assert.ok(error instanceof SandboxError);
      const told = Object.fromEntries(Object.keys(expected).map((name) => [name, (error as unknown as Record<string, unknown>)[name]]));
      assert.deepEqual(told, expected);
      return true;
    });
  }
  assert.ok(sdk.isExecResult(await sandbox.exec('true')) && !sdk.isExecResult({}));
  const process = await sandbox.startProcess('sleep 60');
  assert.ok(sdk.isProcess(process) && sdk.isProcessStatus(process.status) && !sdk.isProcess(null));
});

test('handles of version 1.0 have its errors', async () => {
  await using sandbox = fresh();
  const process = await sandbox.exec(['sh', '-c', 'echo line; sleep 60']);
  const timeout = { timeout: 50 };
  for (const wait of [() => process.waitForExit(timeout), () => process.waitForLog('never', timeout), () => process.output(timeout)]) {
    await assert.rejects(wait as () => Promise<unknown>, (error: unknown) => {
      assert.ok(error instanceof sdk.ProcessWaitTimeoutError && error.code === 'PROCESS_WAIT_TIMEOUT');
      assert.deepEqual([error.timeout, error.command, error.processId], [50, 'sh -c echo line; sleep 60', process.id]);
      return true;
    });
  }
  const abort = new AbortController();
  const waits = [process.waitForExit(abort), process.waitForLog('never', abort), process.waitForLog(/never/, abort), process.waitForPort(9, abort), process.output(abort)];
  const outcomes = Promise.allSettled(waits);
  abort.abort(new Error('no longer wanted'));
  for (const outcome of await outcomes) assert.match(String((outcome as PromiseRejectedResult).reason), /no longer wanted/);
  await assert.rejects(process.logs({ since: 'x' }).next(), sdk.InvalidProcessCursorError);
  await assert.rejects(process.logs({ since: '1000000' }).next(), sdk.InvalidProcessCursorError);
  await process.kill();
  await assert.rejects(process.waitForLog('never'), { name: 'ProcessExitedBeforeLogError', code: 'PROCESS_EXITED_BEFORE_LOG', exitCode: 143 });
  await assert.rejects(process.waitForPort(9), { name: 'ProcessExitedBeforeReadyError', code: 'PROCESS_EXITED_BEFORE_READY', exitCode: 143 });
  await (await sandbox.processOf(process.id)).remove();
  const ofProcess = [() => process.status(), () => process.kill(), () => process.waitForExit(), () => process.output(), () => process.logs().next()];
  for (const call of ofProcess) {
    await assert.rejects(call as () => Promise<unknown>, { name: 'StaleProcessHandleError', code: 'STALE_PROCESS_HANDLE' });
  }
  const terminal = await sandbox.createTerminal();
  await assert.rejects(terminal.output({ cursor: 'x' }).next(), sdk.InvalidTerminalCursorError);
  await terminal.terminate();
  for (const call of [() => terminal.info(), () => terminal.resize(9, 9), () => terminal.write('x'), () => terminal.output().next()]) {
    await assert.rejects(call as () => Promise<unknown>, { name: 'StaleTerminalHandleError', code: 'STALE_TERMINAL_HANDLE' });
  }
  const running = await sandbox.attach(['sleep', '60']);
  running.close();
  await assert.rejects(running.exit, { name: 'ProcessAbortedError', code: 'PROCESS_ABORTED' });
});

test('words of the bridge', () => {
  assert.deepEqual(["a/b.c", "it's", 'a\nb\\', ''].map(shellQuote), ['a/b.c', "$'it\\'s'", "$'a\\nb\\\\'", "$''"]);
  assert.deepEqual(['x/../y', '/etc', '../etc', '/workspace/./a'].map(resolveWorkspacePath), ['/workspace/y', null, null, '/workspace/a']);
});

test('code by itself', async () => {
  await using sandbox = fresh({ resources: { memory_bytes: 1 << 30 } });
  const interpreter = new sdk.CodeInterpreter(sandbox);
  const context = await interpreter.createCodeContext();
  assert.equal((await interpreter.runCode('6 * 7', { context })).results[0]?.text, '42');
  await interpreter.deleteCodeContext(context.id);
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

test('the package has its licence, and is built when it is packed', async () => {
  const root = new URL('../../node_modules/@stockade/sandbox/', import.meta.url);
  const { license, scripts } = JSON.parse(await readFile(new URL('package.json', root), 'utf8')) as { license: string; scripts: Record<string, string> };
  assert.deepEqual([license, scripts['prepack']], ['Apache-2.0', 'npm run build']);
  assert.match(await readFile(new URL('LICENSE', root), 'utf8'), /Apache License\s+Version 2\.0/);
});

test('what cannot be meant is refused before anything is sent', async () => {
  const nowhere = new Stockade({ socket: '/no/such/socket', absenceTimeoutMs: 0 });
  const sandbox = nowhere.sandbox('nowhere');
  const wrong = (value: unknown) => value as never;
  const refused: (() => Promise<unknown>)[] = [
    () => sandbox.setEnvVars({ 'A B': '1' }),
    () => nowhere.sandbox('').info(),
    () => sandbox.startProcess('true', { processId: '' }),
    () => sandbox.createSession({ id: '' }),
    ...[undefined, null, 5, { a: 1 }].map((content) => () => sandbox.writeFile('/tmp/x', wrong(content))),
    ...[0, -1, NaN].flatMap((timeout) => [
      () => sandbox.exec('true', { timeout }),
      () => sandbox.exec(['true'], { timeout }),
      () => sandbox.execStream('true', { timeout }),
      () => sandbox.startProcess('true', { timeout }),
      () => sandbox.runCode('1', { timeout }),
      () => sandbox.createCodeContext({ timeout }),
      () => sandbox.gitCheckout('https://example.com/a', { cloneTimeoutMs: timeout }),
      () => sandbox.createSession({ commandTimeoutMs: timeout }),
      () => sandbox.setContainerTimeouts({ portReadyTimeoutMS: timeout }),
      () => sandbox.startAndWaitForPorts(80, { portReadyTimeoutMS: timeout }),
    ]),
  ];
  for (const act of refused) await assert.rejects(act(), ValidationFailedError, String(act));
  await using real = fresh();
  const process = await real.startProcess('sleep 60');
  for (const timeout of [0, -1, NaN]) {
    const waits = [
      () => process.waitForExit(timeout), () => process.waitForLog('x', timeout), () => process.waitForLog(/x/, timeout),
      () => process.waitForPort(80, { timeout }),
    ];
    for (const wait of waits) await assert.rejects(wait(), ValidationFailedError);
  }
  await assert.rejects(real.getProcess(''), ValidationFailedError);
  await assert.rejects(real.deleteSession(''), ValidationFailedError);
  assert.equal((await real.exec('true', { timeout: undefined as never })).exitCode, 0);
});
