import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Stockade, ValidationFailedError, getSandbox, type Sandbox } from '@stockade/sandbox';
import { SOCKET, fresh } from './world.js';

/** Until the sandbox is so. Looking wakes nothing. */
async function becomes(sandbox: Sandbox, status: string): Promise<void> {
  while ((await sandbox.getState()).status !== status) await sleep(20);
}

async function lifecycleOf(sandbox: Sandbox): Promise<object> {
  return (await sandbox.info()).lifecycle;
}

test('a stopped sandbox keeps its files and logs, and the next call wakes it', async () => {
  await using sandbox = fresh();
  await sandbox.stop();
  assert.equal((await sandbox.getState()).status, 'stopped');
  using stockade = new Stockade(SOCKET);
  assert.ok(!(await stockade.list()).some((one) => one.id === sandbox.name), 'to stop it makes none');
  await sandbox.exec('cd /tmp; V=lost; echo here > /workspace/kept');
  await sandbox.setEnvVars({ A: 'b' });
  const process = await sandbox.startProcess('echo said; exec sleep 600');
  await process.waitForLog('said');
  await sandbox.stop();
  assert.equal((await sandbox.info()).state, 'stopped');
  assert.equal((await process.getLogs()).stdout, 'said\n');
  await assert.rejects(sandbox.setLabels({ a: 'b' }), { code: 'NOT_SUPPORTED' });
  assert.equal((await sandbox.getState()).status, 'stopped');
  // A shell that is new, with what the sandbox was told.
  const { stdout } = await sandbox.exec('cat kept; echo "$PWD $A ${V-none}"; ps ax | grep -c "[s]leep 600"');
  assert.equal(stdout, 'here\n/workspace b none\n0\n');
  assert.equal((await sandbox.getState()).status, 'healthy');
  await sandbox.stop();
  assert.equal((await sandbox.start()).state, 'running');
});

test('a paused sandbox goes on with its memory', async () => {
  await using sandbox = fresh();
  await sandbox.exec('V=kept');
  assert.equal((await sandbox.pause()).state, 'paused');
  assert.equal((await sandbox.getState()).status, 'running');
  assert.equal((await sandbox.exec('echo $V')).stdout, 'kept\n');
  assert.equal((await sandbox.getState()).status, 'healthy');
});

test('a sandbox sleeps when nobody has used it for so long, and not while it is kept alive', async () => {
  await using sandbox = fresh({ sleepAfter: 0.2 });
  await sandbox.exec('echo here > kept');
  await becomes(sandbox, 'stopped');
  await sandbox.setKeepAlive(true);
  assert.deepEqual(await lifecycleOf(sandbox), { idle_timeout_ms: 200, keep_alive: true, processes_hold: false });
  assert.equal((await sandbox.exec('cat kept')).stdout, 'here\n');
  await sleep(600);
  assert.equal((await sandbox.getState()).status, 'healthy');
  await sandbox.setKeepAlive(false);
  await becomes(sandbox, 'stopped');
});

test('when it sleeps is said in seconds or units, before it is made, later, and by whoever comes', async () => {
  const sleeping = { keep_alive: false, processes_hold: false };
  await using sandbox = fresh({ sleepAfter: '10m', lifecycle: { ttl_ms: 3_600_000 } });
  assert.deepEqual(await lifecycleOf(sandbox), { ...sleeping, idle_timeout_ms: 600_000, ttl_ms: 3_600_000 });
  for (const [given, ms] of [['30s', 30_000], ['2h', 7_200_000], [90, 90_000]] as const) {
    await sandbox.setSleepAfter(given);
    assert.deepEqual(await lifecycleOf(sandbox), { ...sleeping, idle_timeout_ms: ms, ttl_ms: 3_600_000 });
  }
  await sandbox.configure({ sleepAfter: '5m', keepAlive: true });
  const changed = { ...sleeping, idle_timeout_ms: 300_000, keep_alive: true, ttl_ms: 3_600_000 };
  assert.deepEqual(await lifecycleOf(sandbox), changed);
  // Somebody who says nothing changes nothing; who says something, that.
  assert.deepEqual(await lifecycleOf(getSandbox(SOCKET, sandbox.name)), changed);
  assert.deepEqual(await lifecycleOf(getSandbox(SOCKET, sandbox.name, { sleepAfter: 60 })), { ...changed, idle_timeout_ms: 60_000 });
  const whole = await sandbox.setLifecycle({ processes_hold: true });
  assert.deepEqual(whole.lifecycle, { keep_alive: false, processes_hold: true });
  // It is made again as it was last told.
  await sandbox.destroy();
  assert.deepEqual(await lifecycleOf(sandbox), { keep_alive: false, processes_hold: true });
  for (const wrong of ['soon', '10', '5d', '', 0, -1, NaN]) {
    assert.throws(() => getSandbox(SOCKET, 'x', { sleepAfter: wrong }), ValidationFailedError, String(wrong));
  }
  await assert.rejects(sandbox.setSleepAfter('soon'), ValidationFailedError);
  await assert.rejects(sandbox.setSleepAfter(0.01), { daemonCode: 'INVALID_REQUEST' });
});

test('a sandbox whose files would end with it cannot be stopped', async () => {
  await using sandbox = fresh({ resources: { disk_bytes: 1 << 24 } });
  await sandbox.info();
  await assert.rejects(sandbox.stop(), { daemonCode: 'STOP_UNSUPPORTED' });
  await assert.rejects(sandbox.setSleepAfter('10m'), { daemonCode: 'STOP_UNSUPPORTED' });
});
