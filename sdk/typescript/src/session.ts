/** What can be done in a session, or in a sandbox without one: the methods that both have. */
import { posix } from 'node:path';
import { checkBody, checkNames, idOf, timeOf } from './checks.js';
import { defined, exec, execEvents, inBash, type Place } from './commands.js';
import type { Core } from './core.js';
import { FileSystemError, InvalidBackupConfigError, SandboxError, SessionDestroyedError, failure } from './errors.js';
import { infoOf, now, pathOf, readFile, readFileStream } from './files.js';
import { Interpreter } from './interpreter.js';
import { mountBucket, unmountBucket } from './mounts.js';
import { ProcessHandle, decode, logEvents, logsOf, spawn, start, type SandboxProcess } from './processes.js';
import { asyncIterableToSSEStream, eventsOf } from './sse.js';
import { Terminal, sessionTerminal } from './terminals.js';
import type { Body } from './transport.js';
import { upgradeRequired, wantsUpgrade } from './upgrade.js';
import type * as Cf from './types.js';
import type { ChangeEvent, MountView, StartProcess } from './api.js';
import type {
  CodeContext, CreateContextOptions, DetachOptions, DetachedRun, ExecutionResult, RunCodeOptions,
} from './interpreter.js';

/** As there: three days, and 256 characters. */
const BACKUP_TTL_S = 259_200;
const BACKUP_NAME_MAX = 256;
const EXCLUDED = ['.git', 'node_modules', '.DS_Store'];
/** Variables of a shell that are about itself. */
const OF_THE_SHELL = new Set(['_', 'SHLVL', 'PWD', 'OLDPWD']);

type Stream = ReadableStream<Uint8Array>;

export class ExecutionSession {
  /** The session's name; of the default session too. */
  readonly id: string;
  /** For methods of this package. */
  protected readonly core: Core;
  readonly #session: string | undefined;
  readonly #options: Cf.SessionOptions;
  #interpreter: Interpreter | undefined;

  constructor(core: Core, session: string | undefined, options: Cf.SessionOptions = {}) {
    this.core = core;
    this.#session = session;
    this.#options = options;
    this.id = session ?? core.id;
  }

  // --- commands ---

  /** Runs a command line and waits for its end. A code other than 0 is a result, not an error. */
  exec(command: string, options?: Cf.ExecOptions): Promise<Cf.ExecResult>;
  /** Starts a program and gives a handle: the form of version 1.0 of the Cloudflare SDK. */
  exec(command: string[], options?: { cwd?: string; env?: Cf.EnvVars; timeout?: number; stdin?: boolean }): Promise<SandboxProcess>;
  async exec(command: string | string[], given: object = {}): Promise<Cf.ExecResult | SandboxProcess> {
    if (typeof command !== 'string') return this.#spawn(command, given);
    const options: Cf.ExecOptions = given;
    const timed = this.#timed(options);
    return this.#inSession(options.sessionId, (place) => exec(place, command, timed));
  }

  async #spawn(argv: string[], options: Cf.BaseExecOptions & { stdin?: boolean }): Promise<SandboxProcess> {
    const spec: StartProcess = { argv, env: defined(options.env), stdin: options.stdin ?? false };
    if (options.cwd !== undefined) spec.cwd = options.cwd;
    const timeout = timeOf('timeout', options.timeout);
    if (timeout !== undefined) spec.timeout_ms = timeout;
    return spawn(this.core, spec);
  }

  /** The same as a stream of events, for `parseSSEStream`. Cancelling it kills the command. */
  async execStream(command: string, options: Cf.StreamOptions = {}): Promise<Stream> {
    const timed = this.#timed(options);
    return this.#inSession(options.sessionId, async (place) => {
      return asyncIterableToSSEStream(execEvents(place, command, timed));
    });
  }

  #timed<T extends Cf.BaseExecOptions>(options: T): T {
    const timeout = timeOf('timeout', options.timeout) ?? this.#options.commandTimeoutMs;
    return timeout === undefined ? options : { ...options, timeout };
  }

  /** Does something in the session, which is made when it is not there. */
  async #inSession<T>(named: string | undefined, act: (place: Place) => Promise<T>): Promise<T> {
    const place = { core: this.core, session: named ?? this.#session };
    await this.core.ensure();
    try {
      return await act(place);
    } catch (error) {
      if (!(error instanceof SessionDestroyedError) || place.session === undefined) throw error;
      await this.#create(place.session);
      return act(place);
    }
  }

  async #create(session: string): Promise<void> {
    const { cwd, env } = this.#options;
    try {
      await this.core.call('createSession', { body: { id: session, env: defined(env), ...(cwd && { cwd }) } });
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'SESSION_EXISTS') throw error;
    }
  }

  /** Where the session is and what it exports, if its shell runs and is free to say so. */
  async #state(named?: string): Promise<{ cwd?: string; env?: Record<string, string> }> {
    const session = named ?? this.#session;
    if (session === undefined) return {};
    const initial = { ...(this.#options.cwd && { cwd: this.#options.cwd }), env: defined(this.#options.env) };
    try {
      const view = await this.core.call('getSession', { path: { session } });
      if (view.pid == null || view.commands > 0) return { cwd: view.cwd, env: view.env };
      const asked = { path: { session }, body: { shell: `printf '%s\\0' "$PWD"; command env -0` } };
      const told = await this.core.call('runInSession', asked);
      const [cwd, ...pairs] = decode(told.stdout, told.stdout_encoding).toString('utf8').split('\0');
      const env = pairs.filter(Boolean).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]);
      return { ...(cwd && { cwd }), env: Object.fromEntries(env.filter(([name]) => name && !OF_THE_SHELL.has(name))) };
    } catch (error) {
      if (error instanceof SessionDestroyedError) return initial;
      throw error;
    }
  }

  /** A path as the session means it. */
  async #path(path: string, within?: Cf.Within): Promise<string> {
    if (path.startsWith('/')) return path;
    const { cwd } = await this.#state(typeof within === 'string' ? within : within?.sessionId);
    return cwd ? posix.join(cwd, path) : path;
  }

  // --- processes ---

  /** Starts a background process. What it has written is kept, and it outlives this program. */
  async startProcess(command: string, options: Cf.ProcessOptions = {}, sessionId?: string): Promise<ProcessHandle> {
    const session = options.sessionId ?? sessionId ?? this.#session;
    const timeout = timeOf('timeout', options.timeout);
    const id = idOf('processId', options.processId);
    const state = await this.#state(session);
    const cwd = options.cwd === undefined || options.cwd.startsWith('/') ? options.cwd ?? state.cwd : posix.join(state.cwd ?? '/', options.cwd);
    const spec: StartProcess = {
      env: { ...state.env, ...defined(options.env) },
      stdin: options.stdin ?? false,
      on_exit: options.autoCleanup ? 'remove' : 'keep',
      ...(cwd && { cwd }),
      ...(id && { id }),
      ...(timeout && { timeout_ms: timeout }),
      ...(options.logBytesMax && { log_bytes_max: options.logBytesMax }),
    };
    const handle = await inBash(this.core, command, (line) => start(this.core, { ...spec, ...line }, options, session));
    if (session !== undefined) this.core.started(session, handle);
    return handle;
  }

  async listProcesses(): Promise<ProcessHandle[]> {
    const { processes } = await this.core.call('listProcesses');
    return processes.map((view) => new ProcessHandle(this.core, view));
  }

  async getProcess(id: string): Promise<ProcessHandle | null> {
    try {
      return await this.processOf(id);
    } catch (error) {
      if (error instanceof SandboxError && error.daemonCode === 'PROCESS_NOT_FOUND') return null;
      throw error;
    }
  }

  /** The same, for those who know that it is there. */
  async processOf(id: string): Promise<ProcessHandle> {
    return new ProcessHandle(this.core, await this.core.call('getProcess', { path: { process: id } }));
  }

  async killProcess(id: string, signal?: string | number): Promise<void> {
    const process = await this.processOf(id);
    if (process.status === 'running') await process.kill(signal);
  }

  /** Ends all processes, side by side, and says how many there were. */
  async killAllProcesses(): Promise<number> {
    const running = (await this.listProcesses()).filter((one) => one.status === 'running');
    await Promise.all(running.map((one) => one.kill()));
    return running.length;
  }

  /** Removes those that have ended, with their logs, and says how many there were. */
  async cleanupCompletedProcesses(): Promise<number> {
    const ended = (await this.listProcesses()).filter((one) => one.status !== 'running');
    await Promise.all(ended.map((one) => one.remove()));
    return ended.length;
  }

  getProcessLogs(id: string): Promise<Cf.ProcessLogs> {
    return logsOf(this.core, id);
  }

  /** A log from its beginning, followed to its end. Broken connections are taken up where they broke. */
  async streamProcessLogs(id: string, options: { signal?: AbortSignal } = {}): Promise<Stream> {
    await this.core.call('getProcess', { path: { process: id } });
    return asyncIterableToSSEStream(logEvents(this.core, id, options.signal));
  }

  // --- files ---

  async writeFile(
    path: string, content: string | Body, options: { encoding?: string; sessionId?: string; mode?: string; parents?: boolean; signal?: AbortSignal } = {},
  ): Promise<Cf.WriteFileResult & { bytesWritten: number }> {
    checkBody(content);
    const bytes = typeof content === 'string' && options.encoding === 'base64' ? Buffer.from(content, 'base64') : content;
    const query = {
      path: await this.#path(path, options.sessionId),
      ...(options.mode && { mode: options.mode }),
      ...(options.parents && { parents: true }),
    };
    const { size } = await this.core.call('writeFile', { query, bytes, signal: options.signal });
    return { success: true, path, bytesWritten: size, timestamp: now() };
  }

  readFile(path: string, options: { encoding: 'none'; sessionId?: string }): Promise<Cf.ReadFileStreamResult>;
  readFile(path: string, options?: { encoding?: string; sessionId?: string }): Promise<Cf.ReadFileResult>;
  async readFile(
    path: string, options: { encoding?: string; sessionId?: string } = {},
  ): Promise<Cf.ReadFileResult | Cf.ReadFileStreamResult> {
    const result = await readFile(this.core, await this.#path(path, options.sessionId), options.encoding);
    return { ...result, path };
  }

  async readFileStream(path: string, options: { sessionId?: string } = {}): Promise<Stream> {
    return readFileStream(this.core, await this.#path(path, options.sessionId));
  }

  async mkdir(path: string, options: { recursive?: boolean; sessionId?: string } = {}): Promise<Cf.MkdirResult> {
    const { recursive = false } = options;
    const body = { path: await this.#path(path, options.sessionId), parents: recursive };
    await this.core.call('makeDirectory', { body });
    return { success: true, path, recursive, timestamp: now() };
  }

  async deleteFile(path: string, within?: Cf.Within): Promise<Cf.DeleteFileResult> {
    const target = await this.#path(path, within);
    const info = await this.core.call('statFile', { query: { path: target, no_follow: true } });
    if (info.type === 'directory') throw directory(path);
    await this.core.call('removeFile', { body: { path: target } });
    return { success: true, path, timestamp: now() };
  }

  async renameFile(from: string, to: string, within?: Cf.Within): Promise<Cf.RenameFileResult> {
    const body = {
      from: await this.#path(from, within), to: await this.#path(to, within), overwrite: true,
    };
    await this.core.call('renameFile', { body });
    return { success: true, path: from, newPath: to, timestamp: now() };
  }

  /** As `mv`: into a directory, and across file systems. */
  async moveFile(from: string, to: string, within?: Cf.Within): Promise<Cf.MoveFileResult> {
    const [source, given] = [await this.#path(from, within), await this.#path(to, within)];
    const { type } = await this.core.call('fileExists', { query: { path: given } });
    const target = type === 'directory' ? posix.join(given, posix.basename(source)) : given;
    try {
      await this.core.call('renameFile', { body: { from: source, to: target, overwrite: true } });
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'CROSS_DEVICE') throw error;
      await this.core.call('copyFile', { body: { from: source, to: target, overwrite: true } });
      await this.core.call('removeFile', { body: { path: source, recursive: true } });
    }
    return { success: true, path: from, newPath: to, timestamp: now() };
  }

  async listFiles(path: string, options: Cf.ListFilesOptions = {}): Promise<Cf.ListFilesResult> {
    const base = await this.#path(path, options.sessionId);
    const query = { path: base, recursive: options.recursive ?? false, hidden: options.includeHidden ?? false };
    const files: Cf.FileInfo[] = [];
    for (let cursor: string | undefined; ;) {
      const page = await this.core.call('listFiles', { query: { ...query, limit: 10_000, ...(cursor && { cursor }) } });
      files.push(...page.entries.map((entry) => infoOf(base, entry)));
      if (page.cursor == null) break;
      cursor = page.cursor;
    }
    return { success: true, path, files, count: files.length, timestamp: now() };
  }

  async exists(path: string, within?: Cf.Within): Promise<Cf.FileExistsResult> {
    const { exists } = await this.core.call('fileExists', { query: { path: await this.#path(path, within) } });
    return { success: true, path, exists, timestamp: now() };
  }

  // --- watching ---

  /** Changes below a path as a stream. Comes back when nothing that happens from now on is missed. */
  async watch(path: string, options: Cf.WatchOptions = {}): Promise<Stream> {
    const base = await this.#path(path, options.sessionId);
    const asked = { query: watched(base, options), accept: 'text/event-stream', signal: options.signal };
    const events = eventsOf(await this.core.open('watchFiles', asked), 'watchFiles');
    await events.next();
    return asyncIterableToSSEStream(watchEvents(base, events));
  }

  /** Whether anything has changed since the `version` of an answer before. */
  async checkChanges(path: string, options: Cf.CheckChangesOptions = {}): Promise<Cf.CheckChangesResult> {
    const query = watched(await this.#path(path, options.sessionId), options);
    const asked = { query: { ...query, ...(options.since && { cursor: options.since }) } };
    const { status, cursor } = await this.core.call('filesChanged', asked);
    const told = { success: true as const, version: cursor, timestamp: now() };
    return status === 'resync' ? { ...told, status, reason: 'expired' } : { ...told, status };
  }

  // --- git ---

  async gitCheckout(url: string, options: Cf.GitCheckoutOptions = {}): Promise<Cf.GitCheckoutResult> {
    const { branch, depth, token, username, password, recurseSubmodules } = options;
    const timeout = timeOf('cloneTimeoutMs', options.cloneTimeoutMs);
    const { cwd } = await this.#state(options.sessionId);
    const path = options.targetDir && !options.targetDir.startsWith('/') && cwd ? posix.join(cwd, options.targetDir) : options.targetDir;
    const body = {
      url, recurse_submodules: recurseSubmodules ?? false,
      ...(timeout && { timeout_ms: timeout }),
      ...(path && { path }), ...(branch && { branch }), ...(depth && { depth }),
      ...(token && { token }), ...(username && { username }), ...(password && { password }),
    };
    const done = await this.core.call('cloneRepository', { body, signal: options.signal });
    return {
      success: true, repoUrl: url, branch: done.branch ?? branch ?? '', targetDir: done.path, timestamp: now(),
      ...(done.commit && { commit: done.commit }),
    };
  }

  // --- environment ---

  /** Sets variables, and unsets those that are undefined or null: in this session, for what runs from now on. */
  async setEnvVars(env: Cf.EnvVars): Promise<void> {
    checkNames(env);
    if (this.#session === undefined) return;
    const set = Object.entries(defined(env)).map(([name, value]) => `${name}=${value}`);
    const unset = Object.keys(env).filter((name) => env[name] == null);
    Object.assign(this.#options, { env: { ...this.#options.env, ...env } });
    for (const argv of [['export', ...set], ['unset', ...unset]]) {
      if (argv.length === 1) continue;
      await this.#inSession(undefined, ({ session }) => this.core.call('runInSession', { path: { session: session! }, body: { argv } }));
    }
  }

  // --- code ---

  /** For methods of this package. */
  protected get interpreter(): Interpreter {
    this.#interpreter ??= new Interpreter(this.core);
    return this.#interpreter;
  }

  createCodeContext(options?: CreateContextOptions): Promise<CodeContext> { return this.interpreter.create(options); }
  runCode(code: string, options?: RunCodeOptions): Promise<ExecutionResult> { return this.interpreter.run(code, options); }
  runCodeStream(code: string, options?: RunCodeOptions): Promise<Stream> { return this.interpreter.stream(code, options); }
  listCodeContexts(): Promise<CodeContext[]> { return this.interpreter.list(); }
  deleteCodeContext(id: string): Promise<void> { return this.interpreter.remove(id); }
  /** Stockade: as Ctrl-C does; the state stays. */
  interruptCodeContext(id: string): Promise<void> { return this.interpreter.interrupt(id); }
  /** Stockade: a new interpreter, which knows nothing. */
  restartCodeContext(id: string): Promise<CodeContext> { return this.interpreter.restart(id); }
  /** Stockade: starts a cell that goes on whatever becomes of this program; `getCodeRun` tells what came of it. */
  startCode(code: string, options?: DetachOptions): Promise<DetachedRun> { return this.interpreter.detach(code, options); }
  /** Stockade: what came of a cell of `startCode`, once it has ended; waits for that for so many milliseconds. */
  getCodeRun(context: string, run: string, wait?: number): Promise<DetachedRun> { return this.interpreter.kept(context, run, wait); }
  /** Stockade: the cells of `startCode` that the daemon still knows: the last ones of each context. */
  listCodeRuns(context: string): Promise<DetachedRun[]> { return this.interpreter.allKept(context); }

  // --- terminals ---

  /** Lets a browser look at this session's terminal and type into it. For the answer to a request for an upgrade. */
  async terminal(request: Request, options: Cf.PtyOptions = {}): Promise<Response> {
    if (!wantsUpgrade(request)) return upgradeRequired();
    if (this.#session !== undefined) await this.#inSession(undefined, async () => this.#known());
    const terminal: Terminal = await sessionTerminal(this.core, this.#session ?? 'default', options);
    return terminal.connect(request);
  }

  async #known(): Promise<void> {
    if (this.#session !== undefined) await this.core.call('getSession', { path: { session: this.#session } });
  }

  // --- buckets ---

  /** Mounts a bucket, or with an endpoint `file:///…` a directory of the host. Its keys never enter the sandbox. */
  mountBucket(bucket: string, mountPath: string, options: Cf.MountBucketOptions = {}): Promise<void> {
    return mountBucket(this.core, bucket, mountPath, options);
  }

  /** Takes it away when everything is in the bucket; fails when something is not. */
  unmountBucket(mountPath: string): Promise<void> {
    return unmountBucket(this.core, mountPath);
  }

  /** What is mounted, and how it goes. */
  async listMounts(): Promise<MountView[]> {
    return (await this.core.call('listMounts')).mounts;
  }

  // --- backups ---

  /** Keeps a directory as it is now, for three days unless `ttl` (seconds) says otherwise. */
  async createBackup(options: Cf.BackupOptions): Promise<Cf.DirectoryBackup> {
    const { dir, name, ttl = BACKUP_TTL_S, gitignore = false, excludes = [] } = options;
    const invalid = (reason: string) => failure(InvalidBackupConfigError, 'INVALID_BACKUP_CONFIG', reason, {
      httpStatus: 400, operation: 'backup.create', context: { reason },
    });
    if (!dir?.startsWith('/') || dir.split('/').includes('..')) throw invalid('dir must be an absolute path without ".."');
    if (name !== undefined && name.length > BACKUP_NAME_MAX) throw invalid(`name must have at most ${BACKUP_NAME_MAX} characters`);
    if (!(ttl > 0)) throw invalid('ttl must be a positive number of seconds');
    const body = { path: dir, ttl_ms: Math.ceil(ttl * 1000), gitignore, exclude: excludes, ...(name !== undefined && { name }) };
    const { id } = await this.core.call('createSnapshot', { body });
    return { id, dir };
  }

  /** Puts a directory back that was kept, in this sandbox or another one. What is there is replaced in one step. */
  async restoreBackup(backup: Cf.DirectoryBackup): Promise<Cf.RestoreBackupResult> {
    const { id, dir } = backup;
    await this.core.call('restoreSandbox', { body: { snapshot: id, path: dir } });
    return { success: true, dir, id };
  }
}

function watched(path: string, options: Cf.WatchOptions) {
  const { recursive = true, include } = options;
  const exclude = options.exclude ?? (include ? undefined : EXCLUDED);
  return { path, recursive, ...(include && { include }), ...(exclude && { exclude }) };
}

async function* watchEvents(
  base: string, events: AsyncIterable<{ event: string; data: unknown }>,
): AsyncGenerator<Cf.FileWatchSSEEvent> {
  yield { type: 'watching', path: base, watchId: `watch-${Date.now()}` };
  const changed = (eventType: string, path: string, isDirectory: boolean) => ({
    type: 'event', eventType, path: posix.join(base, path), isDirectory, timestamp: now(),
  }) as Cf.FileWatchSSEEvent;
  try {
    for await (const { event, data } of events) {
      if (event === 'overflow') yield { type: 'error', error: 'more happened than was seen: look at everything' };
      else if (event === 'gone') yield { type: 'stopped', reason: 'what is watched was removed' };
      else {
        const { path, from, directory: isDirectory } = data as ChangeEvent;
        if (event !== 'rename') yield changed(event, pathOf(path), isDirectory);
        else {
          if (from != null) yield changed('move_from', pathOf(from), isDirectory);
          yield changed('move_to', pathOf(path), isDirectory);
        }
      }
    }
  } catch (error) {
    if (!(error instanceof SandboxError)) throw error;
    yield { type: 'error', error: error.message };
  }
}

function directory(path: string): SandboxError {
  return failure(FileSystemError, 'IS_DIRECTORY', `Cannot delete directory with deleteFile(): ${path}`, {
    httpStatus: 400, context: { path }, suggestion: "removeTree(path), or exec('rm -rf …')",
  });
}
