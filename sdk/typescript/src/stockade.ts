/** The daemon itself: its sandboxes and images. */
import type { CreateSandbox, DaemonInfo, Health, Image, ImageList, PullImage, SandboxView } from './api.js';
import { Sandbox } from './sandbox.js';
import { eventsOf } from './sse.js';
import { Transport, type Body, type StockadeOptions } from './transport.js';
import type { SandboxOptions } from './types.js';
import { proxyTo } from './ports.js';
import type { PtyOptions } from './types.js';

/** What happens to a layer of an image on its way. */
export type Progress = Record<string, unknown>;

export class Stockade implements Disposable {
  readonly transport: Transport;

  constructor(socketOrOptions: string | StockadeOptions = {}) {
    this.transport = new Transport(typeof socketOrOptions === 'string' ? { socket: socketOrOptions } : socketOrOptions);
  }

  health(): Promise<Health> { return this.transport.call('getHealth'); }
  info(): Promise<DaemonInfo> { return this.transport.call('getInfo'); }
  async openapi(): Promise<object> { return (await this.transport.call('getOpenapi')) as object; }

  /** A sandbox that is made when it is first used. */
  sandbox(id: string, options?: SandboxOptions): Sandbox {
    return new Sandbox(this.transport, id, options);
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

  readonly images = {
    list: (): Promise<ImageList> => this.transport.call('listImages'),
    get: (reference: string): Promise<Image> => this.transport.call('getImage', { path: { reference } }),
    remove: async (reference: string): Promise<void> => {
      await this.transport.call('deleteImage', { path: { reference } });
    },
    /** From a registry. `onProgress` hears of each layer. */
    pull: async (wanted: string | PullImage, onProgress?: (progress: Progress) => void): Promise<Image> => {
      const body = typeof wanted === 'string' ? { reference: wanted } : wanted;
      if (!onProgress) return this.transport.call('pullImage', { body });
      const answer = await this.transport.open('pullImage', { body, accept: 'text/event-stream' });
      for await (const { event, data } of eventsOf(answer, 'pullImage')) {
        if (event === 'image') return data as Image;
        onProgress(data as Progress);
      }
      throw new Error('the stream of the pull ended before the pull');
    },
    /** From a tar of an OCI layout or of `docker save`. */
    import: (tar: Body, reference?: string): Promise<ImageList> => this.transport.call('importImage', {
      bytes: tar, contentType: 'application/x-tar', query: reference === undefined ? {} : { reference },
    }),
  };

  /** Closes connections that are kept for later. */
  close(): void { this.transport.close(); }
  [Symbol.dispose](): void { this.close(); }
}

/** What stands in the place of a Durable Object's namespace: a socket, options, or a client that is there already. */
export type SandboxNamespace = string | StockadeOptions | Stockade;

/** One client per socket, so that connections are kept. */
const clients = new Map<string, Stockade>();

function clientOf(namespace: SandboxNamespace | undefined): Stockade {
  if (namespace instanceof Stockade) return namespace;
  const options = typeof namespace === 'string' ? { socket: namespace } : namespace ?? {};
  const key = JSON.stringify([options.socket, options.absenceTimeoutMs]);
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
