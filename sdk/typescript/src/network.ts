/** What may leave a sandbox: the daemon's policies, and the host lists and outbound handlers of the Cloudflare SDK. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { join } from 'node:path';
import type { NetworkChange, NetworkEvents, NetworkPolicy, NetworkView } from './api.js';
import type { Core } from './core.js';
import { FileSystemError, failure, type SandboxError } from './errors.js';
import { createServer } from './upgrade.js';
import type { SandboxOptions } from './types.js';

/** Who asks a handler, and what it was registered with. */
export interface OutboundHandlerContext<Params = unknown> { containerId: string; className: string; params: Params }

/** What answers in the place of a host. Its environment is that of this program, where a Worker has its bindings. */
export type OutboundHandler<Params = unknown> = (
  request: Request, env: NodeJS.ProcessEnv, context: OutboundHandlerContext<Params>,
) => Response | Promise<Response>;

/** The policy that the options of `getSandbox` say. */
export function policyOf(options: SandboxOptions): NetworkPolicy | undefined {
  const { network, enableInternet, allowedHosts, deniedHosts } = options;
  if (!network && enableInternet === undefined && !allowedHosts && !deniedHosts) return undefined;
  const policy: NetworkPolicy = { ...network };
  if (allowedHosts) policy.allow = [...(policy.allow ?? []), ...allowedHosts];
  if (deniedHosts) policy.deny = [...(policy.deny ?? []), ...deniedHosts];
  if (enableInternet && !allowedHosts) policy.mode = 'all';
  return policy;
}

/**
 * The policy that options wish for a sandbox that has one: all that they can say is theirs to say, and hosts with handlers or
 * credentials, which are added while it runs, stay.
 */
export function enforced(wished: NetworkPolicy, { hosts, intercept, limits }: NetworkPolicy): NetworkPolicy {
  const kept = { ...(hosts && { hosts }), ...(intercept && { intercept }), ...(limits && { limits }) };
  const { mode, ...rest } = { ...kept, ...wished };
  // Handlers are reached by rules, which no policy has that says that nothing leaves.
  return mode === undefined || (mode === 'none' && rest.hosts?.length) ? rest : { mode, ...rest };
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

  /** This one may be reached as well; that one no longer. */
  allowHost(host: string): Promise<void> {
    return this.#change((policy) => ({ ...policy, mode: policy.mode === 'all' ? 'all' : 'allow', allow: withHost(policy.allow, host) }));
  }

  removeAllowedHost(host: string): Promise<void> {
    return this.#change((policy) => ({ ...policy, allow: withoutHost(policy.allow, host) }));
  }

  denyHost(host: string): Promise<void> {
    return this.#change((policy) => ({ ...policy, deny: withHost(policy.deny, host) }));
  }

  removeDeniedHost(host: string): Promise<void> {
    return this.#change((policy) => ({ ...policy, deny: withoutHost(policy.deny, host) }));
  }

  /**
   * Answers the sandbox's requests for a host, plain or TLS, in this program. The daemon hands them to a socket in its
   * directory of handlers: the client's `handlersDirectory`, unless another is named.
   */
  async setOutboundByHost<P>(host: string, handler: OutboundHandler<P>, params: P, directory?: string): Promise<void> {
    const name = `sdk-${randomBytes(8).toString('hex')}.sock`;
    const handlers = directory ?? this.#core.transport.handlers;
    const socket = join(handlers, name);
    const context = { containerId: this.#core.id, className: 'Sandbox', params };
    const fetch = (request: Request) => handler(meant(request), process.env, context);
    const server = createServer({ fetch }, undefined);
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(noSocket(handlers, error)));
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

const withoutHost = (hosts: string[] | undefined, host: string): string[] => (hosts ?? []).filter((one) => one !== host);
const withHost = (hosts: string[] | undefined, host: string): string[] => [...withoutHost(hosts, host), host];

/** There can be no socket in the directory of handlers: most likely it is another one. */
function noSocket(path: string, cause: NodeJS.ErrnoException): SandboxError {
  return failure(FileSystemError, 'FILESYSTEM_ERROR', `a handler cannot listen in ${path}: ${cause.message}`, {
    context: { path, errno: cause.code }, cause,
    suggestion: "give the client `handlersDirectory`: `handlers` in the daemon's runtime directory",
  });
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
