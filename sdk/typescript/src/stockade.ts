/** The daemon itself: its sandboxes, images and snapshots. */
import type {
  AuditLines, BucketObject, CreateSandbox, DaemonInfo, Happened, Health, Image, ImageList, PullImage, QuotaView, SandboxStats, SandboxView, SnapshotView,
} from './api.js';
import { Sandbox } from './sandbox.js';
import { eventsOf } from './sse.js';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConnectionError, isPlatformTransientError } from './errors.js';
import { RESUMES_MAX, RESUME_INTERVAL_MS } from './processes.js';
import type { Readable } from 'node:stream';
import { Transport, readableOf, textOf, type Body, type StockadeOptions } from './transport.js';
import type { ImportOptions, SandboxOptions } from './types.js';
import { proxyTo } from './ports.js';
import type { PtyOptions } from './types.js';

/** What opens an upload: a header, for URLs are logged. */
const sealed = (identity?: string): Record<string, string> => identity === undefined ? {} : { 'x-stockade-identity': identity };

/** A type that no event has: the answer is where events end now. */
const NO_TYPE = 'none';

/** What happens to a layer of an image on its way. */
export type Progress = Record<string, unknown>;

/** Which daemon, and what its sandboxes are unless they say otherwise. */
export interface ClientOptions extends StockadeOptions {
  /** Options of every sandbox: the image above all, which a Worker has in its configuration. */
  defaults?: SandboxOptions;
}

export class Stockade implements Disposable {
  readonly transport: Transport;
  readonly #defaults: SandboxOptions;

  constructor(socketOrOptions: string | ClientOptions = {}) {
    const options = typeof socketOrOptions === 'string' ? { socket: socketOrOptions } : socketOrOptions;
    this.transport = new Transport(options);
    this.#defaults = options.defaults ?? {};
  }

  health(): Promise<Health> { return this.transport.call('getHealth'); }
  info(): Promise<DaemonInfo> { return this.transport.call('getInfo'); }
  async openapi(): Promise<object> { return (await this.transport.call('getOpenapi')) as object; }

  /** A sandbox that is made when it is first used. */
  sandbox(id: string, options?: SandboxOptions): Sandbox {
    return new Sandbox(this.transport, id, { ...this.#defaults, ...options });
  }

  /** Makes a sandbox now; without an id one is chosen. */
  async create(spec: CreateSandbox = {}): Promise<Sandbox> {
    const { id } = await this.transport.call('createSandbox', { body: spec });
    return new Sandbox(this.transport, id);
  }

  /** Those of the caller, with these labels (`key=value` or `key`). */
  async list(options: { labels?: string[] } = {}): Promise<SandboxView[]> {
    return (await this.transport.call('listSandboxes', { query: { label: options.labels ?? [] } })).sandboxes;
  }

  /** What they use; with `disk` their files are counted too. */
  async stats(options: { disk?: boolean } = {}): Promise<SandboxStats[]> {
    return (await this.transport.call('listStats', { query: options })).sandboxes;
  }

  readonly snapshots = {
    /** The oldest first. */
    list: async (): Promise<SnapshotView[]> => (await this.transport.call('listSnapshots')).snapshots,
    get: (id: string): Promise<SnapshotView> => this.transport.call('getSnapshot', { path: { id } }),
    /** Sandboxes that were made of it keep their files. */
    remove: async (id: string): Promise<void> => {
      await this.transport.call('deleteSnapshot', { path: { id } });
    },
    /** One of a directory, as a tar that is compressed with zstd. With a `recipient` of age nobody else can read it. */
    download: async (id: string, { signal, ...query }: { recipient?: string; signal?: AbortSignal } = {}): Promise<Readable> =>
      readableOf(await this.transport.open('downloadSnapshot', { path: { id }, query, signal })),
    /** Makes one of a directory of such a tar. */
    upload: (
      tar: Body, path: string, options: { name?: string; ttl_ms?: number; identity?: string; signal?: AbortSignal } = {},
    ): Promise<SnapshotView> => {
      const { identity, signal, ...query } = { path, ...options };
      return this.transport.call('uploadSnapshot', { bytes: tar, headers: sealed(identity), query, signal });
    },
  };

  /**
   * What happens to the caller's sandboxes, from now on or from behind an event. Goes on when the connection breaks and the
   * daemon comes back, behind the last one that came. `onLost` hears when the daemon does not remember what came next.
   */
  async *events(
    options: { sandboxes?: string[]; types?: string[]; after?: number; onLost?: () => void; signal?: AbortSignal } = {},
  ): AsyncGenerator<Happened> {
    const { sandboxes = [], types = [], onLost, signal } = options;
    // Known before anything has come, so that a connection that breaks until then loses nothing either.
    let after = options.after ?? (await this.transport.call('listEvents', { query: { type: [NO_TYPE] }, signal })).next;
    for (let broke = 0; ;) {
      try {
        const query = { sandbox: sandboxes, type: types, after };
        const answer = await this.transport.open('listEvents', { query, accept: 'text/event-stream', signal });
        for await (const { event, data } of eventsOf(answer, 'listEvents')) {
          broke = 0;
          if (event === 'lost') {
            onLost?.();
            continue;
          }
          after = (data as Happened).seq;
          yield data as Happened;
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof ConnectionError || isPlatformTransientError(error)) || broke >= RESUMES_MAX) throw error;
      }
      broke += 1;
      await sleep(RESUME_INTERVAL_MS, undefined, signal ? { signal } : {});
    }
  }

  /** Who asked for what, and what became of it: the last records, or those after one. */
  audit(options: { after?: number; limit?: number; sandbox?: string } = {}): Promise<AuditLines> {
    return this.transport.call('listAudit', { query: options });
  }

  /** Numbers for monitoring, in the text format of Prometheus. For root and operators. */
  async metrics(): Promise<string> {
    return textOf(await this.transport.open('getMetrics'));
  }

  /** How much the caller may have, and has. */
  quota(): Promise<QuotaView> { return this.transport.call('getQuota'); }

  readonly images = {
    list: (): Promise<ImageList> => this.transport.call('listImages'),
    get: (reference: string): Promise<Image> => this.transport.call('getImage', { path: { reference } }),
    remove: async (reference: string): Promise<void> => {
      await this.transport.call('deleteImage', { path: { reference } });
    },
    /** From a registry. `onProgress` hears of each layer. */
    pull: async (
      wanted: string | PullImage, onProgress?: (progress: Progress) => void, { signal }: { signal?: AbortSignal } = {},
    ): Promise<Image> => {
      const body = typeof wanted === 'string' ? { reference: wanted } : wanted;
      if (!onProgress) return this.transport.call('pullImage', { body, signal });
      const answer = await this.transport.open('pullImage', { body, signal, accept: 'text/event-stream' });
      for await (const { event, data } of eventsOf(answer, 'pullImage')) {
        if (event === 'image') return data as Image;
        onProgress(data as Progress);
      }
      throw new Error('the stream of the pull ended before the pull');
    },
    /** From a tar of an OCI layout or of `docker save`, or a tar of files. */
    import: (tar: Body, options: string | ImportOptions = {}): Promise<ImageList> => {
      const { identity, signal, ...query } = typeof options === 'string' ? { reference: options } as ImportOptions : options;
      return this.transport.call('importImage', { bytes: tar, contentType: 'application/x-tar', headers: sealed(identity), query, signal });
    },
    /** From an object in a bucket. */
    load: (object: BucketObject, { signal, ...how }: ImportOptions = {}): Promise<ImageList> =>
      this.transport.call('loadImage', { body: { object, ...how }, signal }),
  };

  /** Closes connections that are kept for later. */
  close(): void { this.transport.close(); }
  [Symbol.dispose](): void { this.close(); }
}

/** What stands in the place of a Durable Object's namespace: a socket, options, or a client that is there already. */
export type SandboxNamespace = string | ClientOptions | Stockade;

/** One client per socket, so that connections are kept. */
const clients = new Map<string, Stockade>();

function clientOf(namespace: SandboxNamespace | undefined): Stockade {
  if (namespace instanceof Stockade) return namespace;
  const options = typeof namespace === 'string' ? { socket: namespace } : namespace ?? {};
  const key = JSON.stringify([options.socket, options.absenceTimeoutMs, options.handlersDirectory, options.defaults]);
  const known = clients.get(key);
  if (known) return known;
  const client = new Stockade(options);
  clients.set(key, client);
  return client;
}

/** A sandbox by its id. It is made when it is first used. */
export function getSandbox(namespace: SandboxNamespace | undefined, id: string, options?: SandboxOptions): Sandbox {
  return clientOf(namespace).sandbox(id, options);
}

/** Where requests find their sandboxes: what `getSandbox` takes, or an environment that has it as `Sandbox`. */
export type SandboxEnv = SandboxNamespace | { Sandbox: SandboxNamespace };

/** Answers a request that is for a preview, or gives null. See `exposePort`. */
export function proxyToSandbox(request: Request, env?: SandboxEnv): Promise<Response | null> {
  const namespace = typeof env === 'object' && 'Sandbox' in env ? env.Sandbox : env;
  return proxyTo(clientOf(namespace).transport, request);
}

/** Lets a browser look at the terminal of a session. */
export async function proxyTerminal(
  sandbox: Sandbox, sessionId: string, request: Request, options?: PtyOptions,
): Promise<Response> {
  const session = await sandbox.getSession(sessionId);
  return session.terminal(request, options);
}
