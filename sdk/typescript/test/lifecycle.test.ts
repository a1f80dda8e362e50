import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Stockade, ValidationFailedError, getSandbox, type Sandbox, type SandboxOptions } from '@stockade/sandbox';
import { Breaking, SOCKET, fresh } from './world.js';

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

test('what a sandbox uses is shown, and its limits change while it runs', async () => {
  await using sandbox = fresh();
  await sandbox.exec('true');
  const stats = await sandbox.stats({ disk: true });
  assert.ok(stats.cpu.usage_us! > 0 && stats.disk!.files >= 0);
  using stockade = new Stockade(SOCKET);
  assert.ok((await stockade.stats()).some((one) => one.id === sandbox.name));
  let seen = 0;
  for await (const one of sandbox.watchStats({ intervalMs: 100 })) {
    assert.equal(one.id, sandbox.name);
    if (++seen === 2) await sandbox.destroy();
  }
  assert.ok(seen >= 2);
  await sandbox.exec('true');
  const asked = await sandbox.setResources({ pids: 50 }, { dryRun: true });
  assert.deepEqual(asked.changes, [{ limit: 'pids', before: 512, after: 50 }]);
  await sandbox.setResources({ pids: 50 });
  assert.ok((await stockade.quota()).sandboxes.used > 0);
  assert.match(await stockade.metrics(), /stockade_sandboxes/);
  assert.ok((await stockade.audit({ sandbox: sandbox.name })).lines.length > 0);
  for await (const event of stockade.events({ sandboxes: [sandbox.name], after: 1 })) {
    assert.equal(event.type, 'sandbox.created');
    break;
  }
  assert.equal((await sandbox.info()).isolation?.limits['pids']?.value, 50);
});

test('snapshots, forks and backups give files back, and to others', async () => {
  await using sandbox = fresh();
  await sandbox.writeFile('/workspace/f', 'one');
  const { id } = await sandbox.snapshot({ name: 'before', ttl_ms: 600_000 });
  assert.deepEqual((await sandbox.snapshots()).map((one) => one.id), [id]);
  await sandbox.writeFile('/workspace/f', 'two');
  const [child] = await sandbox.fork();
  await using forked = child!;
  assert.equal((await sandbox.rollback()).state, 'stopped');
  assert.equal((await sandbox.readFile('/workspace/f')).content, 'one');
  assert.equal((await forked.readFile('/workspace/f')).content, 'two');
  await forked.restore(id);
  assert.equal((await forked.readFile('/workspace/f')).content, 'one');
  await sandbox.exec('mkdir -p p/out && echo keep > p/keep && echo gone > p/out/x && echo m > p/x.log && echo "*.log" > p/.gitignore');
  const backup = await sandbox.createBackup({ dir: '/workspace/p', name: 'p', excludes: ['out'], gitignore: true });
  assert.equal(backup.dir, '/workspace/p');
  using stockade = new Stockade(SOCKET);
  const kept = await stockade.snapshots.get(backup.id);
  const left = Date.parse(kept.expires_at!) - Date.parse(kept.created_at);
  assert.ok(Math.abs(left - 259_200_000) < 1000, 'three days');
  assert.deepEqual(await forked.restoreBackup(backup), { success: true, dir: '/workspace/p', id: backup.id });
  assert.equal((await forked.exec('ls -A p')).stdout.trim().split(/\s+/).sort().join(' '), '.gitignore keep');
  await assert.rejects(sandbox.createBackup({ dir: 'relative' }), { name: 'InvalidBackupConfigError', code: 'INVALID_BACKUP_CONFIG', httpStatus: 400 });
  await assert.rejects(sandbox.restoreBackup({ id: 'nothing', dir: '/workspace' }), { name: 'BackupNotFoundError' });
  await assert.rejects(sandbox.commit('team/made:1'), { daemonCode: 'SNAPSHOT_UNSUPPORTED' });
  await assert.rejects(sandbox.export({ format: 'tar' }), { daemonCode: 'SNAPSHOT_UNSUPPORTED' });
  await assert.rejects(sandbox.push('localhost:1/team/made:1'), { daemonCode: 'SNAPSHOT_UNSUPPORTED' });
  await assert.rejects(sandbox.store({ bucket: 'b', key: '/' }), { daemonCode: 'PATH_INVALID' });
  await assert.rejects(stockade.images.load({ bucket: 'b', key: '/' }), { daemonCode: 'PATH_INVALID' });
  await assert.rejects(stockade.images.import(Buffer.of(), { rootfs: true, identity: 'none' }), { daemonCode: 'KEY_INVALID' });
  const uploaded = await stockade.snapshots.upload(await stockade.snapshots.download(backup.id), '/workspace/q', { name: 'moved', ttl_ms: 600_000 });
  assert.equal(uploaded.sandbox, null);
  await forked.restore(uploaded.id);
  assert.equal((await forked.exec('ls -A q')).stdout, (await forked.exec('ls -A p')).stdout);
  await stockade.snapshots.remove(uploaded.id);
  for (const one of await stockade.snapshots.list()) {
    if (one.sandbox === sandbox.name) await stockade.snapshots.remove(one.id);
  }
});

test('events come once each, whatever connection breaks', async () => {
  await using sandbox = fresh({ enableDefaultSession: false });
  await sandbox.info();
  using direct = new Stockade(SOCKET);
  const { next } = await direct.transport.call('listEvents', { query: { type: ['none'] } });
  let n = 0;
  // The first one breaks when the stream begins, before an event can have come.
  await using breaking = await Breaking.after(() => (n++ === 0 ? 250 : 3_000));
  using client = new Stockade(breaking.socket);
  const events = client.events({ sandboxes: [sandbox.name], types: ['command.started', 'command.exited', 'sandbox.destroyed'] });
  const seen: number[] = [];
  const first = events.next();
  const listening = (async () => {
    for (let one = await first; !one.done; one = await events.next()) {
      seen.push(one.value.seq);
      if (one.value.type === 'sandbox.destroyed') break;
    }
    await events.return(undefined);
  })();
  while (breaking.broken < 1) await sleep(10);
  for (let command = 0; command < 25; command += 1) await sandbox.run(['true']);
  await sandbox.destroy();
  await listening;
  const { events: all } = await direct.transport.call('listEvents', { query: { sandbox: [sandbox.name], after: next, limit: 1000 } });
  const expected = all.filter(({ type }) => /^command\.|destroyed$/.test(type)).map(({ seq }) => seq);
  assert.ok(expected.length >= 51, `only ${expected.length} events`);
  assert.deepEqual(seen, expected);
  assert.ok(breaking.broken > 3, `broken ${breaking.broken} times only`);
});

test('options are put in force in a sandbox that is there already, or refused', async () => {
  await using sandbox = fresh({ enableInternet: true, env: { A: '1' } });
  await sandbox.info();
  // Another program, later.
  const client = new Stockade(SOCKET);
  const later = (options: SandboxOptions) => new Stockade(SOCKET).sandbox(sandbox.name, options);
  const policy = async () => (await sandbox.network.get()).policy;
  assert.equal((await policy()).mode, 'all');
  const tight = later({ allowedHosts: ['example.com'], env: { A: '2', B: '3' }, resources: { pids: 100 } });
  assert.equal((await tight.exec('echo $A $B')).stdout, '2 3\n');
  assert.deepEqual([(await policy()).mode, (await policy()).allow], ['allow', ['example.com']]);
  assert.equal((await sandbox.stats()).pids.limit, 100);
  // What a program has changed is not changed back by its next request.
  const again = () => client.sandbox(sandbox.name, { allowedHosts: ['example.net'] });
  await again().exec('true');
  await again().setAllowedHosts(['example.org']);
  await again().exec('true');
  assert.deepEqual((await policy()).allow, ['example.org']);
  await later({ enableInternet: false }).exec('true');
  assert.equal((await policy()).mode, 'none');
  for (const options of [{ image: 'another' }, { cwd: '/elsewhere' }, { user: '1000' }] satisfies SandboxOptions[]) {
    await assert.rejects(later(options).exec('true'), { code: 'SANDBOX_CONFLICT', httpStatus: 409, daemonCode: 'SANDBOX_CONFLICT' });
  }
});
