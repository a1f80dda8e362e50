/** A sandbox: the methods of the Cloudflare SDK's class, and those that only Stockade has. */
import { Readable, type Duplex } from 'node:stream';
import type {
  BucketObject, CloneRepository, CommandResult, CommandView, CopyFile, CreateSandbox, CreateSnapshot, Environment, FileInfo as Entry, ForkSandbox, Image, Lifecycle,
  PushSandbox, Pushed, RecordingView, ResourceLimits, ResourcesChange, RunCommand, SandboxStats, SandboxView, SearchFiles, SearchResult, SessionView,
  SnapshotView, StoredObject, TerminalView,
} from './api.js';
import { RunningCommand } from './attach.js';
import { SandboxClient } from './client.js';
import { checkNames, idOf, timeOf } from './checks.js';
import { defined } from './commands.js';
import { Core, PHRASES } from './core.js';
import { SandboxError, ServiceNotRespondingError, ValidationFailedError, failure, notSupported } from './errors.js';
import { now } from './files.js';
import { Network, policyOf, type OutboundHandler } from './network.js';
import { connectTo, exposePort, exposedPorts, unexposePort, validToken } from './ports.js';
import { endSame } from './processes.js';
import { ExecutionSession } from './session.js';
import { eventsOf } from './sse.js';
import { Terminal, terminalSpec, type TerminalOptions } from './terminals.js';
import { Transport, readableOf, textOf, type Body } from './transport.js';
import type * as Cf from './types.js';
import { fetchFrom, upgradeTo } from './upgrade.js';

/** The session of calls that name none. */
const DEFAULT_SESSION = 'default';
const CWD = '/workspace';
/** Where requests go that `fetch` is given without a port, as there. */
const PORT_DEFAULT = 3000;
/** How long `startAndWaitForPorts` waits for each port, as there. */
const PORT_READY_MS = 90_000;
/** How long the daemon waits for a port in one request. */
const WAIT_MAX_MS = 60_000;

/** The daemon's states, in the words of the Cloudflare SDK. */
const STATUS: Record<SandboxView['state'], Cf.SandboxState['status']> = {
  running: 'healthy', paused: 'running', stopped: 'stopped', dead: 'stopped_with_code',
};
const UNITS_MS = { s: 1000, m: 60_000, h: 3_600_000 };

/** The environment in its type is a Worker's, and says nothing here. */
export class Sandbox<_Env = unknown> extends ExecutionSession implements AsyncDisposable {
  /** What may leave. */
  readonly network: Network;
  /** Quick tunnels are Cloudflare's; `exposePort` gives addresses here. */
  readonly tunnels = {
    get: async (_port: number, _options?: Cf.TunnelOptions): Promise<Cf.TunnelInfo> => { throw PHRASES.tunnels(); },
    list: async (): Promise<Cf.TunnelInfo[]> => { throw PHRASES.tunnels(); },
    destroy: async (_tunnel: number | Cf.TunnelInfo): Promise<void> => { throw PHRASES.tunnels(); },
  };
  /** Stockade: what was recorded of its terminals and commands, as files for asciinema. */
  readonly recordings = {
    /** The oldest first. */
    list: async (): Promise<RecordingView[]> => (await this.core.call('listRecordings')).recordings,
    /** In asciinema's format, also while it goes on. */
    get: async (recording: string): Promise<string> => textOf(await this.core.open('getRecording', { path: { recording } })),
    remove: async (recording: string): Promise<void> => {
      await this.core.call('deleteRecording', { path: { recording } });
    },
  };
  /** Named handlers for `setOutboundByHost`. */
  readonly outboundHandlers: Record<string, OutboundHandler<never>> = {};
  /** Where requests go that name no port. */
  defaultPort: number;
  #destroying: Promise<void> | undefined;
  #portReadyMs = PORT_READY_MS;
  #client: SandboxClient | undefined;

  constructor(transport: Transport, id: string, options: Cf.SandboxOptions = {}) {
    const core = new Core(transport, options.normalizeId ? id.toLowerCase() : id, { cwd: CWD, ...wishedOf(options) }, wishedOf(options));
    super(core, options.enableDefaultSession === false ? undefined : DEFAULT_SESSION);
    this.network = new Network(core);
    this.defaultPort = options.defaultPort ?? PORT_DEFAULT;
    this.#bound(options.containerTimeouts ?? {});
  }

  #bound({ instanceGetTimeoutMS, portReadyTimeoutMS }: Cf.ContainerTimeouts): void {
    this.core.creationMs = timeOf('instanceGetTimeoutMS', instanceGetTimeoutMS) ?? this.core.creationMs;
    this.#portReadyMs = timeOf('portReadyTimeoutMS', portReadyTimeoutMS) ?? this.#portReadyMs;
  }

  /** The Cloudflare SDK's lower layer. */
  get client(): SandboxClient {
    this.#client ??= new SandboxClient({ sandbox: this });
    return this.#client;
  }

  /** The sandbox's id. */
  get name(): string { return this.core.id; }

  // --- life ---

  /** Kills everything in it and removes its files. Calls at the same time come together. */
  destroy(): Promise<void> {
    this.#destroying ??= this.#destroy().finally(() => { this.#destroying = undefined; });
    return this.#destroying;
  }

  async #destroy(): Promise<void> {
    await this.network.close();
    try {
      await this.core.transport.call('destroySandbox', { path: { id: this.core.id } });
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'SANDBOX_NOT_FOUND') throw error;
    }
    this.core.forget();
  }

  /**
   * Ends everything in it. Its files stay, unlike there, and so do its variables, its ports and the logs of its processes; shells of
   * sessions and code contexts begin anew. The next call that needs it wakes it. One that is not there is left so.
   */
  async stop(): Promise<void> {
    try {
      await this.core.transport.call('stopSandbox', { path: { id: this.core.id } });
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'SANDBOX_NOT_FOUND') throw error;
    }
  }

  /** Stockade: keeps its files as they are now. What runs in it is frozen meanwhile. */
  snapshot(options: CreateSnapshot = {}): Promise<SnapshotView> { return this.core.call('createSnapshot', { body: options }); }

  /** Stockade: the snapshots that were made of it, the oldest first. */
  async snapshots(): Promise<SnapshotView[]> { return (await this.core.call('listSandboxSnapshots')).snapshots; }

  /** Stockade: ends what runs in it and gives it the files of a snapshot. The next call wakes it. */
  restore(snapshot: string, path?: string): Promise<SandboxView> {
    return this.core.call('restoreSandbox', { body: path === undefined ? { snapshot } : { snapshot, path } });
  }

  /** Stockade: the same with one of its own snapshots, the latest unless one is named. */
  rollback(snapshot?: string): Promise<SandboxView> {
    return this.core.call('rollBackSandbox', { body: snapshot === undefined ? {} : { snapshot } });
  }

  /** Stockade: makes an image of all of its files, in the daemon's store. */
  commit(reference: string): Promise<Image> { return this.core.call('commitSandbox', { body: { reference } }); }

  /**
   * Stockade: all of its files as an archive: `oci`, which `images.import` takes elsewhere, or `tar`, compressed with zstd. With a
   * `recipient` of age nobody else can read it.
   */
  async export(options: Cf.ExportOptions & { signal?: AbortSignal } = {}): Promise<Readable> {
    const { signal, ...query } = options;
    return readableOf(await this.core.open('exportSandbox', { query, signal }));
  }

  /** Stockade: sends an image of all of its files to a registry. */
  push(to: string | PushSandbox, { signal }: { signal?: AbortSignal } = {}): Promise<Pushed> {
    return this.core.call('pushSandbox', { body: typeof to === 'string' ? { reference: to } : to, signal });
  }

  /** Stockade: writes the archive of an export to an object in a bucket, whose keys stay with the daemon. */
  store(object: BucketObject, options: Cf.ExportOptions & { signal?: AbortSignal } = {}): Promise<StoredObject> {
    const { signal, ...how } = options;
    return this.core.call('storeSandbox', { body: { object, ...how }, signal });
  }

  /** Stockade: makes sandboxes whose files begin as its own are now. What runs in it is not copied. */
  async fork(options: ForkSandbox = {}): Promise<Sandbox[]> {
    const { sandboxes } = await this.core.call('forkSandbox', { body: options });
    return sandboxes.map(({ id }) => new Sandbox(this.core.transport, id));
  }

  /** Stockade: freezes everything in it, with its memory. The next call that needs it lets it go on. */
  pause(): Promise<SandboxView> { return this.core.call('pauseSandbox'); }

  /** Stockade: has it run again, also when it has ended by itself, after which no other call does that. */
  async start(): Promise<SandboxView> {
    const view = await this.core.call('startSandbox');
    // Options could not be put in force while it had ended.
    this.core.forget();
    await this.core.ensure();
    return view;
  }

  /** Has it run, and waits until somebody listens on each of these ports, or on the default one. */
  async startAndWaitForPorts(
    asked: number | number[] | { ports?: number | number[]; cancellationOptions?: Cf.PortWait } = {}, options: Cf.PortWait = {},
  ): Promise<void> {
    timeOf('portReadyTimeoutMS', options.portReadyTimeoutMS);
    const { ports = this.defaultPort, cancellationOptions = options } = typeof asked === 'object' && !Array.isArray(asked) ? asked : { ports: asked };
    await this.start();
    await Promise.all([ports].flat().map((port) => this.#listens(port, cancellationOptions)));
  }

  async #listens(port: number, options: Cf.PortWait): Promise<void> {
    for (let left = timeOf('portReadyTimeoutMS', options.portReadyTimeoutMS) ?? this.#portReadyMs; ; left -= WAIT_MAX_MS) {
      options.abort?.throwIfAborted();
      try {
        (await this.connectPort(port, { waitMs: Math.min(left, WAIT_MAX_MS) })).destroy();
        return;
      } catch (error) {
        if (!(error instanceof ServiceNotRespondingError) || left <= WAIT_MAX_MS) throw error;
      }
    }
  }

  /** Nothing to do: every call is a use of the sandbox. */
  renewActivityTimeout(): void {}

  /** Stockade: when it sleeps and ends by itself. The whole of it: what is absent is never. */
  async setLifecycle(lifecycle: Lifecycle): Promise<SandboxView> {
    const view = await this.core.call('setLifecycle', { body: lifecycle });
    this.core.spec = { ...this.core.spec, lifecycle };
    return view;
  }

  /** Stockade: what it uses; with `disk` its files are counted too. Wakes nothing. */
  stats(options: { disk?: boolean } = {}): Promise<SandboxStats> {
    return this.core.call('getStats', { query: options });
  }

  /** Stockade: what it uses, again and again, until it is destroyed. */
  async *watchStats(options: { intervalMs?: number; disk?: boolean; signal?: AbortSignal } = {}): AsyncGenerator<SandboxStats> {
    const query = { interval_ms: options.intervalMs, disk: options.disk };
    const answer = await this.core.open('getStats', { query, accept: 'text/event-stream', signal: options.signal });
    for await (const { event, data } of eventsOf(answer, 'getStats')) {
      if (event === 'gone') return;
      yield data as SandboxStats;
    }
  }

  /** Stockade: other limits, also while it runs. Those that are absent stay, and 0 is none. */
  setResources(resources: ResourceLimits, options: { dryRun?: boolean } = {}): Promise<ResourcesChange> {
    return this.core.call('changeResources', { body: resources, query: options.dryRun ? { dry_run: true } : {} });
  }

  /** How it is. Never makes or wakes one. */
  async getState(): Promise<Cf.SandboxState> {
    try {
      const view = await this.core.transport.call('getSandbox', { path: { id: this.core.id } });
      return { status: STATUS[view.state], lastChange: Date.parse(view.created_at) };
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'SANDBOX_NOT_FOUND') throw error;
      return { status: 'stopped', lastChange: Date.now() };
    }
  }

  /** The daemon's version. */
  async version(): Promise<string> { return (await this.core.transport.call('getInfo')).version; }

  /** There are no placements: one host. */
  async getContainerPlacementId(): Promise<null> { return null; }

  /** Stockade: makes it now rather than with the first operation, and says what it really got. */
  info(): Promise<SandboxView> {
    return this.core.call('getSandbox');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  // --- settings ---

  /** Stops it when nobody has used it for so long: seconds, or `"30s"`, `"10m"`, `"2h"`. */
  async setSleepAfter(sleepAfter: string | number): Promise<void> {
    await this.#change({ idle_timeout_ms: sleepAfterMs(sleepAfter) });
  }

  /** Whether it never sleeps nor ends by itself, whatever else is said. */
  async setKeepAlive(keepAlive: boolean): Promise<void> {
    await this.#change({ keep_alive: keepAlive });
  }

  /** Changes a part of its lifecycle, and how it is made again. */
  async #change(part: Lifecycle): Promise<void> {
    await this.core.ensure();
    await this.core.adjust(part);
    this.core.spec = { ...this.core.spec, lifecycle: { ...this.core.spec?.lifecycle, ...part } };
  }

  async setContainerTimeouts(timeouts: Cf.ContainerTimeouts): Promise<void> { this.#bound(timeouts); }

  async setTransport(_transport: Cf.SandboxTransport): Promise<void> {}

  /** Before the sandbox is made; they cannot be changed later. */
  async setLabels(labels: Record<string, string>): Promise<void> {
    if (await this.core.adjust()) throw notSupported('labels that change', 'give `labels` to getSandbox');
    this.core.spec = { ...this.core.spec, labels };
  }

  async setSandboxName(name: string, normalizeId = false): Promise<void> {
    if ((normalizeId ? name.toLowerCase() : name) === this.core.id) return;
    throw notSupported('sandboxes whose id changes', 'getSandbox with the other id');
  }

  async configure(settings: {
    sandboxName?: { name: string; normalizeId?: boolean }; sleepAfter?: string | number; keepAlive?: boolean;
    containerTimeouts?: Cf.ContainerTimeouts; transport?: Cf.SandboxTransport; labels?: Record<string, string>;
  }): Promise<void> {
    if (settings.sandboxName) await this.setSandboxName(settings.sandboxName.name, settings.sandboxName.normalizeId);
    if (settings.sleepAfter !== undefined) await this.setSleepAfter(settings.sleepAfter);
    if (settings.keepAlive !== undefined) await this.setKeepAlive(settings.keepAlive);
    if (settings.containerTimeouts) await this.setContainerTimeouts(settings.containerTimeouts);
    if (settings.labels) await this.setLabels(settings.labels);
  }

  /** Sets variables of the sandbox, and of its default session, for what is started from now on. */
  override async setEnvVars(env: Cf.EnvVars): Promise<void> {
    checkNames(env);
    const unset = Object.keys(env).filter((name) => env[name] == null);
    await this.core.call('changeEnvironment', { body: { set: defined(env), unset } });
    await super.setEnvVars(env);
  }

  // --- sessions ---

  /** The same as `exec` and `execStream` with that `sessionId`. */
  execWithSessionToken(command: string, sessionId: string, options?: Cf.ExecOptions): Promise<Cf.ExecResult> {
    return this.exec(command, { ...options, sessionId });
  }

  execStreamWithSessionToken(command: string, sessionId: string, options?: Cf.StreamOptions): Promise<ReadableStream<Uint8Array>> {
    return this.execStream(command, { ...options, sessionId });
  }

  /** Makes a session: a shell whose directory, variables and functions live on between commands. */
  async createSession(options: Cf.SessionOptions = {}): Promise<ExecutionSession> {
    const cwd = options.cwd ?? this.core.spec?.cwd;
    const id = idOf('id', options.id);
    timeOf('commandTimeoutMs', options.commandTimeoutMs);
    const body = { env: defined(options.env), ...(cwd && { cwd }), ...(id && { id }) };
    const view = await this.core.call('createSession', { body });
    return new ExecutionSession(this.core, view.id, { ...options, ...(cwd && { cwd }) });
  }

  /** A session by name; it is made with the first command if it is not there. */
  async getSession(id: string): Promise<ExecutionSession> {
    return new ExecutionSession(this.core, id, { ...(this.core.spec?.cwd && { cwd: this.core.spec.cwd }) });
  }

  /** Ends its shell and what that runs, and the background processes that this program has started in it. */
  async deleteSession(id: string): Promise<Cf.SessionDeleteResult> {
    if (id === DEFAULT_SESSION) {
      throw failure(ValidationFailedError, 'VALIDATION_FAILED', 'the default session cannot be deleted: destroy() the sandbox', { httpStatus: 400 });
    }
    await this.core.call('deleteSession', { path: { session: id } });
    await Promise.all(this.core.ended(id).map((process) => endSame(this.core, process)));
    return { success: true, sessionId: id, timestamp: now() };
  }

  /** Stockade. */
  async listSessions(): Promise<SessionView[]> {
    return (await this.core.call('listSessions')).sessions;
  }

  // --- ports ---

  /** Gives a port an address for browsers: below `hostname`, or the daemon's own. */
  exposePort(port: number, options: Cf.ExposePortOptions = {}): Promise<Cf.ExposedPortInfo> {
    return exposePort(this.core, port, options);
  }

  unexposePort(port: number): Promise<void> { return unexposePort(this.core, port); }

  getExposedPorts(hostname?: string): Promise<Cf.ExposedPort[]> { return exposedPorts(this.core, hostname); }

  async isPortExposed(port: number): Promise<boolean> {
    const { ports } = await this.core.call('listPorts');
    return ports.some((one) => one.port === port);
  }

  validatePortToken(port: number, token: string): Promise<boolean> { return validToken(this.core, port, token); }

  /** Passes a request on to a server in the sandbox. */
  containerFetch(request: Request | string | URL, portOrInit?: number | RequestInit, port?: number): Promise<Response> {
    const init = typeof portOrInit === 'object' ? portOrInit : undefined;
    const asked = request instanceof Request && !init ? request : new Request(request, init);
    return fetchFrom(this.core, asked, port ?? (typeof portOrInit === 'number' ? portOrInit : this.defaultPort));
  }

  fetch(request: Request): Promise<Response> { return this.containerFetch(request); }

  /** Passes a WebSocket on to a server in the sandbox: for the answer to a request for an upgrade. */
  wsConnect(request: Request, port: number): Promise<Response> { return upgradeTo(this.core, request, port); }

  /** Stockade: a connection to a port, for any protocol. */
  connectPort(port: number, options: { waitMs?: number } = {}): Promise<Duplex> {
    return connectTo(this.core, port, options.waitMs);
  }

  // --- terminals ---

  async createTerminal(options: TerminalOptions = {}): Promise<Terminal> {
    const view = await this.core.call('openTerminal', { body: terminalSpec(options) });
    return new Terminal(this.core, view.id);
  }

  async getTerminal(id: string): Promise<Terminal | null> {
    try {
      await this.core.call('getTerminal', { path: { terminal: id } });
      return new Terminal(this.core, id);
    } catch (error) {
      if (error instanceof SandboxError && error.daemonCode === 'TERMINAL_NOT_FOUND') return null;
      throw error;
    }
  }

  async listTerminals(): Promise<TerminalView[]> {
    return (await this.core.call('listTerminals')).terminals;
  }

  // --- what leaves ---

  allowHost(host: string): Promise<void> { return this.network.allowHost(host); }
  denyHost(host: string): Promise<void> { return this.network.denyHost(host); }
  removeAllowedHost(host: string): Promise<void> { return this.network.removeAllowedHost(host); }
  removeDeniedHost(host: string): Promise<void> { return this.network.removeDeniedHost(host); }
  setAllowedHosts(hosts: string[]): Promise<void> { return this.network.setAllowedHosts(hosts); }
  setDeniedHosts(hosts: string[]): Promise<void> { return this.network.setDeniedHosts(hosts); }

  /** Answers the sandbox's requests for a host in this program: by a function, or one of `outboundHandlers` by its name. */
  async setOutboundByHost<P>(host: string, handler: string | OutboundHandler<P>, params?: P): Promise<void> {
    const found = typeof handler === 'string' ? this.outboundHandlers[handler] : handler;
    if (!found) throw failure(ValidationFailedError, 'VALIDATION_FAILED', `no handler is called ${String(handler)}`, { httpStatus: 400 });
    await this.network.setOutboundByHost(host, found as OutboundHandler<P | undefined>, params);
  }

  /** Several of them, by the names of `outboundHandlers`. */
  async setOutboundByHosts<P>(handlers: Record<string, string | { method: string; params?: P }>): Promise<void> {
    for (const [host, handler] of Object.entries(handlers)) {
      const { method, params } = typeof handler === 'string' ? { method: handler, params: undefined } : handler;
      await this.setOutboundByHost(host, method, params);
    }
  }

  /** A handler for all hosts there are: the daemon's gateway has handlers for hosts by name. */
  async setOutboundHandler(_method: string, _params?: unknown): Promise<void> { throw PHRASES.everyHost(); }

  removeOutboundByHost(host: string): Promise<void> { return this.network.removeOutboundByHost(host); }

  // --- Stockade: commands, files, environment ---

  /** Runs a program outside of any session, and gives everything that the daemon says of it. */
  run(command: string[] | RunCommand, options: { signal?: AbortSignal } = {}): Promise<CommandResult> {
    const body = Array.isArray(command) ? { argv: command } : command;
    return this.core.call('runCommand', { body, signal: options.signal });
  }

  /** Runs a program with live input and output. It ends when its output is left. */
  attach(command: string[] | RunCommand): Promise<RunningCommand> {
    return RunningCommand.start(this.core, Array.isArray(command) ? { argv: command } : command);
  }

  async listCommands(): Promise<CommandView[]> {
    return (await this.core.call('listCommands')).commands;
  }

  async signalCommand(id: string, signal: string | number): Promise<void> {
    await this.core.call('signalCommand', { path: { command: id }, body: { signal } });
  }

  /** Kills all processes at once; with `remove` their logs go too. */
  async killProcesses(options: { remove?: boolean } = {}): Promise<number> {
    return (await this.core.call('killProcesses', { query: options })).killed;
  }

  async env(): Promise<Record<string, string>> {
    return (await this.core.call('getEnvironment')).env;
  }

  /** Replaces all variables, `PATH` among them. */
  async replaceEnv(env: Environment['env']): Promise<void> {
    await this.core.call('replaceEnvironment', { body: { env } });
  }

  /** The bytes of a file, or of a part of it: `end` is behind the last one. */
  async readBytes(path: string, range?: { start: number; end?: number }, options: { signal?: AbortSignal } = {}): Promise<Buffer> {
    const headers = range ? { range: `bytes=${range.start}-${range.end === undefined ? '' : range.end - 1}` } : {};
    return (await this.core.content({ path }, headers, options.signal)).bytes;
  }

  /** The bytes of a file as they come. */
  async download(path: string, options: { signal?: AbortSignal } = {}): Promise<Readable> {
    return readableOf(await this.core.open('readFile', { query: { path }, ...options }));
  }

  stat(path: string, options: { noFollow?: boolean } = {}): Promise<Entry> {
    return this.core.call('statFile', { query: { path, ...(options.noFollow && { no_follow: true }) } });
  }

  async copy(from: string, to: string, options: Omit<CopyFile, 'from' | 'to'> = {}): Promise<void> {
    await this.core.call('copyFile', { body: { from, to, ...options } });
  }

  async removeTree(path: string, options: { missingOk?: boolean } = {}): Promise<void> {
    await this.core.call('removeFile', { body: { path, recursive: true, missing_ok: options.missingOk ?? false } });
  }

  async chmod(path: string, mode: string): Promise<void> {
    await this.core.call('changeMode', { body: { path, mode } });
  }

  async chown(path: string, owner: string, options: { noFollow?: boolean } = {}): Promise<void> {
    await this.core.call('changeOwner', { body: { path, owner, no_follow: options.noFollow ?? false } });
  }

  async symlink(target: string, path: string): Promise<void> {
    await this.core.call('makeSymlink', { body: { target, path } });
  }

  search(path: string, options: Omit<SearchFiles, 'path'>): Promise<SearchResult> {
    return this.core.call('searchFiles', { body: { path, ...options } });
  }

  /** A tree as a tar archive, made while it is read. */
  async downloadArchive(path: string, options: { signal?: AbortSignal } = {}): Promise<Readable> {
    return readableOf(await this.core.open('downloadArchive', { query: { path }, ...options }));
  }

  /** Unpacks a tar archive below a directory. */
  async uploadArchive(path: string, tar: Body, options: { owners?: boolean; signal?: AbortSignal } = {}): Promise<void> {
    const query = { path, ...(options.owners && { owners: true }) };
    await this.core.call('uploadArchive', { query, bytes: tar, contentType: 'application/x-tar', signal: options.signal });
  }

  /** Clones with everything that the daemon takes. */
  clone(repository: CloneRepository, options: { signal?: AbortSignal } = {}) {
    return this.core.call('cloneRepository', { body: repository, ...options });
  }
}

/** How long nobody may have used a sandbox, in milliseconds. */
function sleepAfterMs(given: string | number): number {
  if (typeof given === 'number' && given > 0) return Math.round(given * 1000);
  const [, count, unit] = /^(\d+)([smh])$/.exec(String(given)) ?? [];
  if (unit !== undefined) return Number(count) * UNITS_MS[unit as keyof typeof UNITS_MS];
  throw failure(ValidationFailedError, 'VALIDATION_FAILED', `sleepAfter is ${given}: give seconds, or a string as "30s", "10m" or "2h"`, {
    httpStatus: 400, context: { field: 'sleepAfter' },
  });
}

/** When a sandbox sleeps and ends by itself, if anything is said about that. */
function lifecycleOf({ sleepAfter, keepAlive, lifecycle }: Cf.SandboxOptions): Lifecycle | undefined {
  if (sleepAfter === undefined && keepAlive === undefined) return lifecycle;
  return {
    ...lifecycle,
    ...(sleepAfter !== undefined && { idle_timeout_ms: sleepAfterMs(sleepAfter) }),
    ...(keepAlive !== undefined && { keep_alive: keepAlive }),
  };
}

/** What options say that a sandbox is to be. */
function wishedOf(options: Cf.SandboxOptions): CreateSandbox {
  const { image, cwd, labels, resources, env, user, profile, durability, hostname } = options;
  const network = policyOf(options);
  const lifecycle = lifecycleOf(options);
  return {
    ...(image && { image }), ...(cwd && { cwd }), ...(labels && { labels }), ...(resources && { resources }), ...(env && { env }),
    ...(user && { user }), ...(profile && { profile }), ...(durability && { durability }), ...(hostname && { hostname }),
    ...(network && { network }), ...(lifecycle && { lifecycle }),
  };
}
