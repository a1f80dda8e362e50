/**
 * The Cloudflare SDK's lower layer: one client per kind of thing, with the session as an argument. There it speaks to a
 * control server inside the container; in a sandbox here there is none, so it is given the sandbox itself.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { PHRASES } from './core.js';
import { ProcessExitedBeforeReadyError, SandboxError, ServiceNotRespondingError, notSupported } from './errors.js';
import { now } from './files.js';
import type { CodeContext, CreateContextOptions, Language, RunCodeOptions } from './interpreter.js';
import type { Sandbox } from './sandbox.js';
import { asyncIterableToSSEStream } from './sse.js';
import type * as Cf from './types.js';

export interface SandboxClientOptions {
  /** What `getSandbox` gives. */
  sandbox?: Sandbox;
  /** The address of a container's control server, which sandboxes here have not. */
  baseUrl?: string;
  [other: string]: unknown;
}

/** What all of them have. */
class DomainClient {
  protected readonly sandbox: Sandbox;

  constructor(options: SandboxClientOptions) {
    const { sandbox } = options;
    if (!sandbox) throw notSupported('control servers in sandboxes', 'give the sandbox: new SandboxClient({ sandbox: getSandbox(…) })');
    this.sandbox = sandbox;
  }

  /** How long the daemon may be away is said to `getSandbox`: `absenceTimeoutMs`. */
  setRetryTimeoutMs(_milliseconds: number): void {}
}

/** A session as an option: none is the sandbox's own. */
const within = (sessionId?: string): { sessionId?: string } => (sessionId ? { sessionId } : {});
const bounded = <T extends Timed>({ timeoutMs, ...rest }: T): Omit<T, 'timeoutMs'> & { timeout?: number } =>
  ({ ...rest, ...(timeoutMs !== undefined && { timeout: timeoutMs }) });

interface Timed { timeoutMs?: number; env?: Cf.EnvVars; cwd?: string }
type Stream = ReadableStream<Uint8Array>;

export class CommandClient extends DomainClient {
  execute(command: string, sessionId?: string, options: Timed = {}): Promise<Cf.ExecResult> {
    return this.sandbox.exec(command, { ...bounded(options), ...within(sessionId) });
  }

  executeStream(command: string, sessionId?: string, options: Timed = {}): Promise<Stream> {
    return this.sandbox.execStream(command, { ...bounded(options), ...within(sessionId) });
  }
}

export class FileClient extends DomainClient {
  mkdir(path: string, sessionId?: string, options: { recursive?: boolean } = {}): Promise<Cf.MkdirResult> {
    return this.sandbox.mkdir(path, { ...options, ...within(sessionId) });
  }

  writeFileStream(path: string, content: Stream, sessionId?: string): Promise<Cf.WriteFileResult & { bytesWritten: number }> {
    return this.sandbox.writeFile(path, content, within(sessionId));
  }

  writeFile(path: string, content: string, sessionId?: string, options: { encoding?: string } = {}): Promise<Cf.WriteFileResult> {
    return this.sandbox.writeFile(path, content, { ...options, ...within(sessionId) });
  }

  readFile(path: string, sessionId: string | undefined, options: { encoding: 'none' }): Promise<Cf.ReadFileStreamResult>;
  readFile(path: string, sessionId?: string, options?: { encoding?: string }): Promise<Cf.ReadFileResult>;
  readFile(path: string, sessionId?: string, options: { encoding?: string } = {}): Promise<Cf.ReadFileResult | Cf.ReadFileStreamResult> {
    return this.sandbox.readFile(path, { ...options, ...within(sessionId) });
  }

  readFileStream(path: string, sessionId?: string): Promise<Stream> {
    return this.sandbox.readFileStream(path, within(sessionId));
  }

  deleteFile(path: string, sessionId?: string): Promise<Cf.DeleteFileResult> {
    return this.sandbox.deleteFile(path, within(sessionId));
  }

  renameFile(path: string, newPath: string, sessionId?: string): Promise<Cf.RenameFileResult> {
    return this.sandbox.renameFile(path, newPath, within(sessionId));
  }

  moveFile(path: string, newPath: string, sessionId?: string): Promise<Cf.MoveFileResult> {
    return this.sandbox.moveFile(path, newPath, within(sessionId));
  }

  listFiles(path: string, sessionId?: string, options: Cf.ListFilesOptions = {}): Promise<Cf.ListFilesResult> {
    return this.sandbox.listFiles(path, { ...options, ...within(sessionId) });
  }

  exists(path: string, sessionId?: string): Promise<Cf.FileExistsResult> {
    return this.sandbox.exists(path, within(sessionId));
  }
}

/** A process as data. */
export interface ProcessInfo {
  id: string;
  pid?: number;
  command: string;
  status: Cf.ProcessStatus;
  startTime: string;
  endTime?: string;
  exitCode?: number;
}

function infoOf({ id, pid, command, status, startTime, endTime, exitCode }: Cf.Process): ProcessInfo {
  return {
    id, command, status, startTime: startTime.toISOString(), ...(pid !== undefined && { pid }),
    ...(endTime && { endTime: endTime.toISOString() }), ...(exitCode !== undefined && { exitCode }),
  };
}

const done = () => ({ success: true, timestamp: now() });

export class ProcessClient extends DomainClient {
  async startProcess(
    command: string, sessionId?: string, options: Timed & { processId?: string; encoding?: string; autoCleanup?: boolean } = {},
  ): Promise<ProcessStartResult> {
    const { id, pid } = await this.sandbox.startProcess(command, { ...bounded(options), ...within(sessionId) });
    return { ...done(), processId: id, pid, command };
  }

  async listProcesses(): Promise<ProcessListResult> {
    return { ...done(), processes: (await this.sandbox.listProcesses()).map(infoOf) };
  }

  async getProcess(processId: string): Promise<ProcessInfoResult> {
    return { ...done(), process: infoOf(await this.sandbox.processOf(processId)) };
  }

  async killProcess(processId: string): Promise<ProcessKillResult> {
    await this.sandbox.killProcess(processId);
    return { ...done(), processId };
  }

  async killAllProcesses(): Promise<ProcessCleanupResult> {
    return { ...done(), cleanedCount: await this.sandbox.killAllProcesses() };
  }

  async getProcessLogs(processId: string): Promise<ProcessLogsResult> {
    return { ...done(), ...(await this.sandbox.getProcessLogs(processId)) };
  }

  streamProcessLogs(processId: string, options?: { signal?: AbortSignal }): Promise<Stream> {
    return this.sandbox.streamProcessLogs(processId, options);
  }
}

export interface BaseApiResponse { success: boolean; timestamp: string }
export interface ProcessStartResult extends BaseApiResponse { processId: string; pid?: number; command: string }
export interface ProcessListResult extends BaseApiResponse { processes: ProcessInfo[] }
export interface ProcessInfoResult extends BaseApiResponse { process: ProcessInfo }
export interface ProcessKillResult extends BaseApiResponse { processId: string; signal?: string }
export interface ProcessLogsResult extends BaseApiResponse, Cf.ProcessLogs {}
export interface ProcessCleanupResult extends BaseApiResponse { message?: string; killedCount?: number; cleanedCount: number }

export interface PortWatchRequest {
  port: number;
  mode: 'http' | 'tcp';
  path?: string;
  statusMin?: number;
  statusMax?: number;
  /** Whose end ends the waiting. */
  processId?: string;
  interval?: number;
}
const INTERVAL_MS = 500;

export class PortClient extends DomainClient {
  /** Waits for somebody who listens: `watching`, and then `ready`, `process_exited` or `error`. */
  async watchPort(request: PortWatchRequest): Promise<Stream> {
    return asyncIterableToSSEStream(this.#watch(request));
  }

  async *#watch(request: PortWatchRequest): AsyncGenerator<object> {
    const { port } = request;
    yield { type: 'watching', port };
    try {
      const statusCode = await this.#answer(request);
      yield { type: 'ready', port, ...(statusCode !== undefined && { statusCode }) };
    } catch (error) {
      if (error instanceof ProcessExitedBeforeReadyError) yield { type: 'process_exited', port, exitCode: error.exitCode };
      else if (error instanceof SandboxError) yield { type: 'error', port, error: error.message };
      else throw error;
    }
  }

  /** The status with which a server on the port answers, once it does as is wished. */
  async #answer({ port, mode, path = '/', statusMin: min = 200, statusMax: max = 399, processId, interval }: PortWatchRequest) {
    if (processId !== undefined) {
      const process = await this.sandbox.processOf(processId);
      await process.waitForPort(port, { mode, path, status: { min, max } });
      return undefined;
    }
    for (;;) {
      const status = await this.#asked(port, mode, path);
      if (status === true || (typeof status === 'number' && status >= min && status <= max)) return status === true ? undefined : status;
      await sleep(interval ?? INTERVAL_MS);
    }
  }

  async #asked(port: number, mode: 'http' | 'tcp', path: string): Promise<number | boolean> {
    try {
      if (mode === 'tcp') {
        (await this.sandbox.connectPort(port)).destroy();
        return true;
      }
      const response = await this.sandbox.containerFetch(`http://localhost:${port}${path}`, port);
      await response.body?.cancel();
      return response.headers.has('x-stockade-error') ? false : response.status;
    } catch (error) {
      if (error instanceof ServiceNotRespondingError) return false;
      throw error;
    }
  }

  exposePort(port: number, _sessionId?: string, name?: string): Promise<Cf.ExposedPortInfo> {
    return this.sandbox.exposePort(port, name === undefined ? {} : { name });
  }

  async unexposePort(port: number, _sessionId?: string): Promise<{ success: boolean; port: number }> {
    await this.sandbox.unexposePort(port);
    return { success: true, port };
  }

  async getExposedPorts(_sessionId?: string): Promise<{ success: boolean; ports: Cf.ExposedPort[] }> {
    return { success: true, ports: await this.sandbox.getExposedPorts() };
  }
}

export class GitClient extends DomainClient {
  checkout(
    repoUrl: string, sessionId?: string, options: { branch?: string; targetDir?: string; depth?: number; timeoutMs?: number } = {},
  ): Promise<Cf.GitCheckoutResult> {
    const { timeoutMs, ...rest } = options;
    return this.sandbox.gitCheckout(repoUrl, { ...rest, ...(timeoutMs !== undefined && { cloneTimeoutMs: timeoutMs }), ...within(sessionId) });
  }
}

export type ExecutionCallbacks = Pick<RunCodeOptions, 'onStdout' | 'onStderr' | 'onResult' | 'onError'>;

/** Where code runs: in a context by its id, or in the one that a language has by itself. */
const among = (contextId: string | undefined, language: string | undefined): { language?: Language } => {
  const named = contextId ?? language;
  return named === undefined ? {} : { language: named as Language };
};

export class InterpreterClient extends DomainClient {
  createCodeContext(options?: CreateContextOptions): Promise<CodeContext> { return this.sandbox.createCodeContext(options); }

  async runCodeStream(
    contextId: string | undefined, code: string, language: string | undefined, callbacks: ExecutionCallbacks, timeoutMs?: number,
  ): Promise<void> {
    await this.sandbox.runCode(code, { ...callbacks, ...among(contextId, language), ...(timeoutMs !== undefined && { timeout: timeoutMs }) });
  }

  streamCode(contextId: string, code: string, language?: string): Promise<Stream> {
    return this.sandbox.runCodeStream(code, among(contextId, language));
  }

  listCodeContexts(): Promise<CodeContext[]> { return this.sandbox.listCodeContexts(); }
  deleteCodeContext(id: string): Promise<void> { return this.sandbox.deleteCodeContext(id); }
}

export class WatchClient extends DomainClient {
  watch({ path, ...options }: Cf.WatchOptions & { path: string }): Promise<Stream> { return this.sandbox.watch(path, options); }

  checkChanges({ path, ...options }: Cf.CheckChangesOptions & { path: string }): Promise<Cf.CheckChangesResult> {
    return this.sandbox.checkChanges(path, options);
  }
}

/** Archives in the container are for Cloudflare's own store. */
export class BackupClient extends DomainClient {
  async createArchive(_dir: string, _archivePath: string): Promise<never> { throw archives(); }
  async restoreArchive(_dir: string, _archivePath: string): Promise<never> { throw archives(); }
  async uploadParts(_request: object): Promise<never> { throw archives(); }
}

const archives = () => notSupported('archives in sandboxes', 'createBackup and restoreBackup keep them outside');

export class UtilityClient extends DomainClient {
  async ping(): Promise<string> { return (await this.sandbox.info()).state === 'running' ? 'healthy' : 'stopped'; }

  async getVersion(): Promise<string> { return this.sandbox.version(); }

  async getCommands(): Promise<string[]> { throw notSupported('lists of commands', "exec('compgen -c')"); }

  async createSession(options: CreateSessionRequest): Promise<CreateSessionResponse> {
    const { id } = await this.sandbox.createSession(options);
    return { ...done(), id, message: `session ${id} is there` };
  }

  async listSessions(): Promise<{ sessions: string[] }> {
    return { sessions: (await this.sandbox.listSessions()).map(({ id }) => id) };
  }

  deleteSession(sessionId: string): Promise<Cf.SessionDeleteResult> { return this.sandbox.deleteSession(sessionId); }
}

export interface CreateSessionRequest { id: string; env?: Cf.EnvVars; cwd?: string; commandTimeoutMs?: number }
export interface CreateSessionResponse extends BaseApiResponse { id: string; message: string; containerPlacementId?: string | null }

/** All of them. */
export class SandboxClient {
  readonly backup: BackupClient;
  readonly commands: CommandClient;
  readonly files: FileClient;
  readonly processes: ProcessClient;
  readonly ports: PortClient;
  readonly git: GitClient;
  readonly interpreter: InterpreterClient;
  readonly utils: UtilityClient;
  readonly watch: WatchClient;
  readonly #sandbox: Sandbox | undefined;

  constructor(options: SandboxClientOptions) {
    this.backup = new BackupClient(options);
    this.commands = new CommandClient(options);
    this.files = new FileClient(options);
    this.processes = new ProcessClient(options);
    this.ports = new PortClient(options);
    this.git = new GitClient(options);
    this.interpreter = new InterpreterClient(options);
    this.utils = new UtilityClient(options);
    this.watch = new WatchClient(options);
    this.#sandbox = options.sandbox;
  }

  get tunnels(): never { throw PHRASES.tunnels(); }

  /** See `DomainClient`. */
  setRetryTimeoutMs(_milliseconds: number): void {}
  getTransportMode(): 'http' { return 'http'; }
  isWebSocketConnected(): boolean { return false; }
  /** Has the sandbox be there. Connections come and go by themselves. */
  async connect(): Promise<void> { await this.#sandbox?.info(); }
  disconnect(): void {}
}

/** A Worker's entry point that hears what containers send out. Programs export it by name; nobody makes one here. */
export class ContainerProxy {
  constructor() {
    throw notSupported('ContainerProxy', "a sandbox's setOutboundHandler and setOutboundByHost; the daemon's gateway stands in its place");
  }
}
