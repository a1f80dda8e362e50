/** What can be done in a session, or in a sandbox without one: the methods that both have. */
import { posix } from 'node:path';
import { defined, exec, execEvents, inBash, type Place } from './commands.js';
import { PHRASES, type Core } from './core.js';
import { FileSystemError, SandboxError, SessionDestroyedError, failure } from './errors.js';
import { infoOf, now, pathOf, readFile, readFileStream } from './files.js';
import { Interpreter } from './interpreter.js';
import { ProcessHandle, SandboxProcess, decode, logEvents, logsOf, start } from './processes.js';
import { asyncIterableToSSEStream, eventsOf } from './sse.js';
import { Terminal, sessionTerminal } from './terminals.js';
import type { Body } from './transport.js';
import type * as Cf from './types.js';
import type { ChangeEvent, StartProcess } from './api.js';
import type {
  CodeContext, CreateContextOptions, ExecutionResult, RunCodeOptions,
} from './interpreter.js';

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
  exec(command: string | string[], given: object = {}): Promise<Cf.ExecResult | SandboxProcess> {
    if (typeof command !== 'string') return this.#spawn(command, given);
    const options: Cf.ExecOptions = given;
    return this.#inSession(options.sessionId, (place) => exec(place, command, this.#timed(options)));
  }

  async #spawn(argv: string[], options: Cf.BaseExecOptions & { stdin?: boolean }): Promise<SandboxProcess> {
    const spec: StartProcess = { argv, env: defined(options.env), stdin: options.stdin ?? false };
    if (options.cwd !== undefined) spec.cwd = options.cwd;
    if (options.timeout !== undefined) spec.timeout_ms = options.timeout;
    return new SandboxProcess(this.core, await this.core.call('startProcess', { body: spec }));
  }

  /** The same as a stream of events, for `parseSSEStream`. Cancelling it kills the command. */
  async execStream(command: string, options: Cf.StreamOptions = {}): Promise<Stream> {
    return this.#inSession(options.sessionId, async (place) => {
      return asyncIterableToSSEStream(execEvents(place, command, this.#timed(options)));
    });
  }

  #timed<T extends Cf.BaseExecOptions>(options: T): T {
    const timeout = options.timeout ?? this.#options.commandTimeoutMs;
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
  async #path(path: string, session?: string): Promise<string> {
    if (path.startsWith('/')) return path;
    const { cwd } = await this.#state(session);
    return cwd ? posix.join(cwd, path) : path;
  }

  // --- processes ---

  /** Starts a background process. What it has written is kept, and it outlives this program. */
  async startProcess(command: string, options: Cf.ProcessOptions = {}): Promise<ProcessHandle> {
    const state = await this.#state(options.sessionId);
    const cwd = options.cwd === undefined || options.cwd.startsWith('/') ? options.cwd ?? state.cwd : posix.join(state.cwd ?? '/', options.cwd);
    const spec: StartProcess = {
      env: { ...state.env, ...defined(options.env) },
      stdin: options.stdin ?? false,
      on_exit: options.autoCleanup ? 'remove' : 'keep',
      ...(cwd && { cwd }),
      ...(options.processId && { id: options.processId }),
      ...(options.timeout && { timeout_ms: options.timeout }),
      ...(options.logBytesMax && { log_bytes_max: options.logBytesMax }),
    };
    const session = options.sessionId ?? this.#session;
    return inBash(this.core, command, (line) => start(this.core, { ...spec, ...line }, options, session));
  }

  async listProcesses(): Promise<ProcessHandle[]> {
    const { processes } = await this.core.call('listProcesses');
    return processes.map((view) => new ProcessHandle(this.core, view));
  }

  async getProcess(id: string): Promise<ProcessHandle | null> {
    try {
      return new ProcessHandle(this.core, await this.core.call('getProcess', { path: { process: id } }));
    } catch (error) {
      if (error instanceof SandboxError && error.daemonCode === 'PROCESS_NOT_FOUND') return null;
      throw error;
    }
  }

  async killProcess(id: string, signal?: string | number): Promise<void> {
    const view = await this.core.call('getProcess', { path: { process: id } });
    if (view.state === 'running') await new ProcessHandle(this.core, view).kill(signal);
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
    path: string, content: string | Body, options: { encoding?: string; sessionId?: string; mode?: string; parents?: boolean } = {},
  ): Promise<Cf.WriteFileResult> {
    const bytes = typeof content === 'string' && options.encoding === 'base64' ? Buffer.from(content, 'base64') : content;
    const query = {
      path: await this.#path(path, options.sessionId),
      ...(options.mode && { mode: options.mode }),
      ...(options.parents && { parents: true }),
    };
    await this.core.call('writeFile', { query, bytes });
    return { success: true, path, timestamp: now() };
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

  async deleteFile(path: string, options: { sessionId?: string } = {}): Promise<Cf.DeleteFileResult> {
    const target = await this.#path(path, options.sessionId);
    const info = await this.core.call('statFile', { query: { path: target, no_follow: true } });
    if (info.type === 'directory') throw directory(path);
    await this.core.call('removeFile', { body: { path: target } });
    return { success: true, path, timestamp: now() };
  }

  async renameFile(from: string, to: string, options: { sessionId?: string } = {}): Promise<Cf.RenameFileResult> {
    const body = {
      from: await this.#path(from, options.sessionId), to: await this.#path(to, options.sessionId), overwrite: true,
    };
    await this.core.call('renameFile', { body });
    return { success: true, path: from, newPath: to, timestamp: now() };
  }

  /** As `mv`: into a directory, and across file systems. */
  async moveFile(from: string, to: string, options: { sessionId?: string } = {}): Promise<Cf.MoveFileResult> {
    const [source, given] = [await this.#path(from, options.sessionId), await this.#path(to, options.sessionId)];
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

  async exists(path: string, options: { sessionId?: string } = {}): Promise<Cf.FileExistsResult> {
    const { exists } = await this.core.call('fileExists', { query: { path: await this.#path(path, options.sessionId) } });
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
    return { success: true, status, version: cursor, timestamp: now(), ...(status === 'resync' && { reason: 'expired' }) };
  }

  // --- git ---

  async gitCheckout(url: string, options: Cf.GitCheckoutOptions = {}): Promise<Cf.GitCheckoutResult> {
    const { branch, depth, token, username, password, recurseSubmodules } = options;
    const { cwd } = await this.#state(options.sessionId);
    const path = options.targetDir && !options.targetDir.startsWith('/') && cwd ? posix.join(cwd, options.targetDir) : options.targetDir;
    const body = {
      url, recurse_submodules: recurseSubmodules ?? false,
      ...(options.cloneTimeoutMs && { timeout_ms: options.cloneTimeoutMs }),
      ...(path && { path }), ...(branch && { branch }), ...(depth && { depth }),
      ...(token && { token }), ...(username && { username }), ...(password && { password }),
    };
    const done = await this.core.call('cloneRepository', { body });
    return {
      success: true, repoUrl: url, branch: done.branch ?? branch ?? '', targetDir: done.path, timestamp: now(),
      ...(done.commit && { commit: done.commit }),
    };
  }

  // --- environment ---

  /** Sets variables, and unsets those that are undefined or null: in this session, for what runs from now on. */
  async setEnvVars(env: Cf.EnvVars): Promise<void> {
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

  // --- terminals ---

  /** Lets a browser look at this session's terminal and type into it. For the answer to a request for an upgrade. */
  async terminal(request: Request, options: Cf.PtyOptions = {}): Promise<Response> {
    if (this.#session !== undefined) await this.#inSession(undefined, async () => this.#known());
    const terminal: Terminal = await sessionTerminal(this.core, this.#session ?? 'default', options);
    return terminal.connect(request);
  }

  async #known(): Promise<void> {
    if (this.#session !== undefined) await this.core.call('getSession', { path: { session: this.#session } });
  }

  // --- what this daemon has not ---

  async mountBucket(_bucket: string, _path: string, options: { endpoint?: string } = {}): Promise<void> {
    throw options.endpoint === undefined ? PHRASES.r2() : PHRASES.buckets();
  }

  async unmountBucket(_path: string): Promise<void> {
    throw PHRASES.buckets();
  }

  async createBackup(_options: { dir: string; name?: string; ttl?: number }): Promise<never> {
    throw PHRASES.backups();
  }

  async restoreBackup(_backup: { id: string; dir: string }): Promise<never> {
    throw PHRASES.backups();
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
