/** One sandbox of one daemon: made when it is first needed, and again when it is gone. */
import type { OutgoingHttpHeaders } from 'node:http';
import type { CreateSandbox, Lifecycle, SandboxView } from './api.js';
import { within } from './checks.js';
import { SandboxError, conflict, notSupported } from './errors.js';
import { enforced } from './network.js';
import { Transport, contentOf, type Answer, type Arguments, type Operation } from './transport.js';
import type { Operations } from './api.js';

/** Operations that are about a sandbox. */
type Inside = { [O in Operation]: Operations[O]['path'] extends { id: string } ? O : never }[Operation];
type PathBeside<O extends Inside> = Omit<Operations[O]['path'], 'id'>;
export type Asked<O extends Inside> = Omit<Arguments<O>, 'path'> & { path?: PathBeside<O> };

/** A process of a session. Its id may be another's later. */
export interface Started { id: string; startTime: Date }

/** The processes that a program has started in its sessions, by sandbox and session: the daemon knows of no session behind them. */
const startedIn = new WeakMap<Transport, Map<string, Started[]>>();

/** Codes after which nothing was done because there is no sandbox. */
const GONE = 'SANDBOX_NOT_FOUND';

/** What is decided when a sandbox is made, and by nothing later. */
const FIXED = ['cwd', 'user', 'hostname', 'profile', 'durability'] as const;

/**
 * What options were put in force in which sandbox. Programs ask for their sandboxes again with every request; what they have
 * changed since by `setAllowedHosts` or `setEnvVars` is not changed back by the same options.
 */
const inForce = new WeakMap<Transport, Map<string, string>>();
const IN_FORCE_MAX = 10_000;
/** How many processes of a session are noted; the daemon has fewer at once. */
const STARTED_MAX = 1000;

function remembered(transport: Transport): Map<string, string> {
  let known = inForce.get(transport);
  if (!known) inForce.set(transport, known = new Map());
  return known;
}

export class Core {
  #made: Promise<void> | undefined;
  /** Whether the image has bash; known after the first command outside of a session. */
  hasBash: boolean | undefined;

  /** Without a specification the sandbox is not made when it is not there. */
  constructor(
    readonly transport: Transport, readonly id: string, public spec: CreateSandbox | undefined,
    readonly wished: CreateSandbox = {}, public creationMs?: number,
  ) {}

  /** Sees to it that the sandbox is there. */
  ensure(): Promise<void> {
    this.#made ??= this.#make().catch((error: unknown) => {
      this.#made = undefined;
      throw error;
    });
    return this.#made;
  }

  async #make(): Promise<void> {
    const { spec } = this;
    if (!spec) return;
    const there = await this.adjust(spec.lifecycle);
    if (there) return this.#enforce(there);
    const signal = this.creationMs === undefined ? undefined : within(this.creationMs);
    try {
      this.#remember(await this.transport.call('createSandbox', { body: { ...spec, id: this.id }, signal }));
    } catch (error) {
      // Somebody else made it meanwhile, with other words.
      if (!(error instanceof SandboxError) || error.daemonCode !== 'SANDBOX_CONFLICT') throw error;
      const other = await this.adjust(spec.lifecycle);
      if (other) await this.#enforce(other);
    }
  }

  #key(view: SandboxView): string { return `${view.created_at} ${JSON.stringify(this.wished)}`; }

  #remember(view: SandboxView): void {
    const known = remembered(this.transport);
    known.delete(this.id);
    known.set(this.id, this.#key(view));
    const oldest = known.keys().next();
    if (known.size > IN_FORCE_MAX && !oldest.done) known.delete(oldest.value);
  }

  /** Puts in force what options say of a sandbox that is there already. What cannot be changed is refused. */
  async #enforce(view: SandboxView): Promise<void> {
    if (remembered(this.transport).get(this.id) === this.#key(view)) return;
    const { network, resources, env = {} } = this.wished;
    const path = { id: this.id };
    const different: string[] = FIXED.filter((name) => this.wished[name] != null && this.wished[name] !== view[name]);
    if (!(await this.#isOf(view.image))) different.unshift('image');
    if (different.length > 0) throw conflict(this.id, different);
    // It has to be started first; `start` comes back to this.
    if (view.state === 'dead') return;
    if (network) {
      const { policy } = await this.transport.call('getNetwork', { path });
      await this.transport.call('setNetwork', { path, body: enforced(network, policy) });
    }
    if (resources) await this.transport.call('changeResources', { path, body: resources });
    const set = Object.fromEntries(Object.entries(env).filter(([name, value]) => view.env[name] !== value));
    if (Object.keys(set).length > 0) await this.transport.call('changeEnvironment', { path, body: { set, unset: [] } });
    this.#remember(view);
  }

  /** Whether the image that is wished is the sandbox's, by this name or another. */
  async #isOf(image: SandboxView['image']): Promise<boolean> {
    const { image: reference } = this.wished;
    if (!reference || reference === image.reference || reference === image.digest) return true;
    if (reference === 'host' || !image.digest) return false;
    try {
      return (await this.transport.call('getImage', { path: { reference } })).digest === image.digest;
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== 'IMAGE_NOT_FOUND') throw error;
      return false;
    }
  }

  /** Changes what is wished of its lifecycle, if that is not so already, and gives the sandbox, if there is one. */
  async adjust(wished: Lifecycle = {}): Promise<SandboxView | undefined> {
    const path = { id: this.id };
    try {
      const view = await this.transport.call('getSandbox', { path });
      const { lifecycle } = view;
      const body = { ...lifecycle, ...wished };
      const same = Object.entries(wished).every(([name, value]) => lifecycle[name as keyof Lifecycle] === value);
      return same ? view : await this.transport.call('setLifecycle', { path, body });
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== GONE) throw error;
      return undefined;
    }
  }

  /** Notes a process that was started in a session. */
  started(session: string, { id, startTime }: Started): void {
    const known = startedIn.get(this.transport) ?? new Map<string, Started[]>();
    startedIn.set(this.transport, known);
    const name = JSON.stringify([this.id, session]);
    known.set(name, [...(known.get(name) ?? []).slice(1 - STARTED_MAX), { id, startTime }]);
  }

  /** Those that were noted, once. */
  ended(session: string): Started[] {
    const name = JSON.stringify([this.id, session]);
    const known = startedIn.get(this.transport);
    const processes = known?.get(name) ?? [];
    known?.delete(name);
    return processes;
  }

  /** Forgets that it was made. */
  forget(): void {
    this.#made = undefined;
  }

  async #again<T>(act: () => Promise<T>): Promise<T> {
    await this.ensure();
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== GONE || !this.spec) throw error;
      this.forget();
      await this.ensure();
      return act();
    }
  }

  #given<O extends Inside>(asked: Asked<O>): Arguments<O> {
    return { ...asked, path: { ...asked.path, id: this.id } } as unknown as Arguments<O>;
  }

  /** An operation's answer as JSON. */
  call<O extends Inside>(name: O, asked: Asked<O> = {}): Promise<Operations[O]['answer']> {
    return this.#again(() => this.transport.call(name, this.#given(asked)));
  }

  /** A file, or the part of it that the headers name, whole. */
  async content(
    query: Operations['readFile']['query'], headers: OutgoingHttpHeaders = {}, signal?: AbortSignal,
  ): Promise<{ bytes: Buffer; type: string | undefined }> {
    const given = this.#given<'readFile'>({ query, headers, signal });
    const answer = await this.open('readFile', { query, headers, signal });
    return { bytes: await contentOf(this.transport, 'readFile', given, answer), type: answer.headers['content-type'] };
  }

  /** An operation's answer as it begins. A body that can be sent only once is sent only once. */
  open<O extends Inside>(name: O, asked: Asked<O> = {}): Promise<Answer> {
    const once = asked.bytes !== undefined && typeof asked.bytes !== 'string' && !(asked.bytes instanceof Uint8Array);
    const act = () => this.transport.open(name, this.#given(asked));
    return once ? this.ensure().then(act) : this.#again(act);
  }
}

export const PHRASES = {
  r2: () => notSupported('R2 bindings', 'give the `endpoint` and credentials of the bucket; they stay outside of the sandbox'),
  localBucket: () => notSupported("wrangler's local buckets", 'give `endpoint: "file:///…"`, a directory of the host that its operator has opened'),
  s3fs: () => notSupported('options of s3fs', 'leave `s3fsOptions` out: the file system is another one'),
  everyHost: () => notSupported('outbound handlers for all hosts', 'setOutboundByHost(host, handler) for each, and allowedHosts for the rest'),
  tunnels: () => notSupported("Cloudflare's tunnels", 'exposePort(port) gives an address for browsers'),
};
