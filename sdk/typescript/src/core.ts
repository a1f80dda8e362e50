/** One sandbox of one daemon: made when it is first needed, and again when it is gone. */
import type { CreateSandbox, Lifecycle } from './api.js';
import { SandboxError, notSupported } from './errors.js';
import { Transport, type Answer, type Arguments, type Operation } from './transport.js';
import type { Operations } from './api.js';

/** Operations that are about a sandbox. */
type Inside = { [O in Operation]: Operations[O]['path'] extends { id: string } ? O : never }[Operation];
type PathBeside<O extends Inside> = Omit<Operations[O]['path'], 'id'>;
export type Asked<O extends Inside> = Omit<Arguments<O>, 'path'> & { path?: PathBeside<O> };

/** Codes after which nothing was done because there is no sandbox. */
const GONE = 'SANDBOX_NOT_FOUND';

export class Core {
  #made: Promise<void> | undefined;
  /** Whether the image has bash; known after the first command outside of a session. */
  hasBash: boolean | undefined;

  /** Without a specification the sandbox is not made when it is not there. */
  constructor(
    readonly transport: Transport, readonly id: string, public spec: CreateSandbox | undefined, public creationMs?: number,
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
    if (await this.adjust(spec.lifecycle)) return;
    const signal = this.creationMs === undefined ? undefined : AbortSignal.timeout(this.creationMs);
    try {
      await this.transport.call('createSandbox', { body: { ...spec, id: this.id }, signal });
    } catch (error) {
      // Somebody else made it meanwhile, with other words.
      if (!(error instanceof SandboxError) || error.daemonCode !== 'SANDBOX_CONFLICT') throw error;
      await this.adjust(spec.lifecycle);
    }
  }

  /** Changes what is wished of its lifecycle, if that is not so already, and says whether there is a sandbox at all. */
  async adjust(wished: Lifecycle = {}): Promise<boolean> {
    const path = { id: this.id };
    try {
      const { lifecycle } = await this.transport.call('getSandbox', { path });
      const body = { ...lifecycle, ...wished };
      const same = Object.entries(wished).every(([name, value]) => lifecycle[name as keyof Lifecycle] === value);
      if (!same) await this.transport.call('setLifecycle', { path, body });
      return true;
    } catch (error) {
      if (!(error instanceof SandboxError) || error.daemonCode !== GONE) throw error;
      return false;
    }
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

  /** An operation's answer as it begins. A body that can be sent only once is sent only once. */
  open<O extends Inside>(name: O, asked: Asked<O> = {}): Promise<Answer> {
    const once = asked.bytes !== undefined && typeof asked.bytes !== 'string' && !(asked.bytes instanceof Uint8Array);
    const act = () => this.transport.open(name, this.#given(asked));
    return once ? this.ensure().then(act) : this.#again(act);
  }
}

export const PHRASES = {
  buckets: () => notSupported('bucket mounts', 'copy with writeFile, uploadArchive and downloadArchive'),
  r2: () => notSupported('R2 bindings', 'copy with writeFile, uploadArchive and downloadArchive'),
  backups: () => notSupported('snapshots and backups', 'keep a tar of a directory: downloadArchive(dir) and uploadArchive(dir, tar)'),
  tunnels: () => notSupported("Cloudflare's tunnels", 'exposePort(port) gives an address for browsers'),
};
