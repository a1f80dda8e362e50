/** What may leave a sandbox: the daemon's policies, and the host lists and outbound handlers of the Cloudflare SDK. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { dirname, join } from 'node:path';
import type { NetworkChange, NetworkEvents, NetworkPolicy, NetworkView } from './api.js';
import type { Core } from './core.js';
import { createServer } from './upgrade.js';
import type { SandboxOptions } from './types.js';

/** What answers in the place of a host. */
export type OutboundHandler<Params = unknown> = (
  request: Request, context: { containerId: string; params: Params },
) => Response | Promise<Response>;

/** The policy that the options of `getSandbox` say. */
export function policyOf(options: SandboxOptions): NetworkPolicy | undefined {
  const { network, enableInternet, allowedHosts, deniedHosts } = options;
  if (!network && !enableInternet && !allowedHosts && !deniedHosts) return undefined;
  const policy: NetworkPolicy = { ...network };
  if (allowedHosts) policy.allow = [...(policy.allow ?? []), ...allowedHosts];
  if (deniedHosts) policy.deny = [...(policy.deny ?? []), ...deniedHosts];
  if (enableInternet && !allowedHosts) policy.mode = 'all';
  return policy;
}

export class Network {
  #core: Core;
  #servers = new Map<string, { server: Server; socket: string }>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** The policy, and what has left. */
  get(): Promise<NetworkView> {
    return this.#core.call('getNetwork');
  }

  /** Replaces the policy; in force when this comes back. With `dryRun` it only says what would differ. */
  set(policy: NetworkPolicy, options: { dryRun?: boolean } = {}): Promise<NetworkChange> {
    return this.#core.call('setNetwork', { body: policy, query: options.dryRun ? { dry_run: true } : {} });
  }

  /** The last decisions. */
  events(options: { after?: number; limit?: number } = {}): Promise<NetworkEvents> {
    return this.#core.call('listNetworkEvents', { query: options });
  }

  async #change(change: (policy: NetworkPolicy) => NetworkPolicy): Promise<void> {
    const { policy } = await this.get();
    const { mode, ...rest } = policy;
    // Nothing may leave so far: the rules say what may.
    await this.set(change(mode === 'none' ? rest : policy));
  }

  /** Exactly these hosts (and those with handlers) may be reached. */
  setAllowedHosts(hosts: string[]): Promise<void> {
    return this.#change((policy) => ({ ...policy, mode: 'allow', allow: hosts }));
  }

  /** These may not, whatever else is said. */
  setDeniedHosts(hosts: string[]): Promise<void> {
    return this.#change((policy) => ({ ...policy, deny: hosts }));
  }

  /**
   * Answers the sandbox's requests for a host, plain or TLS, in this program. The daemon hands them to a socket in its
   * directory of handlers, `handlers` beside its own socket unless another is named.
   */
  async setOutboundByHost<P>(host: string, handler: OutboundHandler<P>, params: P, directory?: string): Promise<void> {
    const name = `sdk-${randomBytes(8).toString('hex')}.sock`;
    const socket = join(directory ?? join(dirname(this.#core.transport.socket), 'handlers'), name);
    const context = { containerId: this.#core.id, params };
    const fetch = (request: Request) => handler(meant(request), context);
    const server = createServer({ fetch }, undefined);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(socket, resolve);
    });
    try {
      await this.#change((policy) => ({
        ...policy,
        hosts: [...(policy.hosts ?? []).filter((one) => one.host !== host), { host, handler: name }],
        intercept: [...new Set([...(policy.intercept ?? []), host])],
      }));
    } catch (error) {
      await stop({ server, socket });
      throw error;
    }
    await this.#end(host);
    this.#servers.set(host, { server, socket });
  }

  async removeOutboundByHost(host: string): Promise<void> {
    await this.#change((policy) => ({
      ...policy,
      hosts: (policy.hosts ?? []).filter((one) => one.host !== host),
      intercept: (policy.intercept ?? []).filter((one) => one !== host),
    }));
    await this.#end(host);
  }

  async #end(host: string): Promise<void> {
    const running = this.#servers.get(host);
    this.#servers.delete(host);
    if (running) await stop(running);
  }

  /** Ends the handlers of this program. */
  async close(): Promise<void> {
    await Promise.all([...this.#servers.keys()].map((host) => this.#end(host)));
  }
}

async function stop({ server, socket }: { server: Server; socket: string }): Promise<void> {
  server.closeAllConnections();
  await new Promise<void>((resolve) => { server.close(() => resolve()); });
  await rm(socket, { force: true });
}

/** The request with the URL that the sandbox asked for. */
function meant(request: Request): Request {
  const url = request.headers.get('x-stockade-original-url');
  return url ? new Request(url, request) : request;
}
