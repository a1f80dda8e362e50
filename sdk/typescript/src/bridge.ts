/** Cloudflare's way from Workers to plain HTTP. The daemon is spoken to by plain HTTP already. */
import { posix } from 'node:path';
import { notSupported } from './errors.js';

/** Makes a Worker that answers HTTP for sandboxes: there, because a Durable Object cannot be reached otherwise. */
export function bridge(_handlers?: object, _config?: object): never {
  throw notSupported('the bridge', "the daemon's own API, /v1 on its socket: docs/api.md; createServer and containerFetch put it behind HTTP");
}

/** Keeps containers started ahead, which take seconds there. */
export class WarmPool {
  constructor(_context?: unknown, _env?: unknown) {
    throw notSupported('WarmPool', 'sandboxes start in milliseconds; Stockade.create() and Sandbox.fork() make them ahead');
  }
}

/** An argument for bash, quoted if it has to be: as words of the bridge's `argv` are. */
export function shellQuote(argument: string): string {
  if (/^[A-Za-z0-9@%+=:,./-]+$/.test(argument)) return argument;
  const escapes: Record<string, string> = { '\\': '\\\\', "'": "\\'", '\n': '\\n', '\r': '\\r', '\t': '\\t' };
  return `$'${argument.replace(/[\\'\n\r\t]/g, (character) => escapes[character]!)}'`;
}

/** A path below `/workspace`, by its words, or null. Links are not looked at: they are the sandbox's own affair. */
export function resolveWorkspacePath(path: string): string | null {
  const resolved = posix.resolve('/workspace', path);
  return resolved === '/workspace' || resolved.startsWith('/workspace/') ? resolved : null;
}

export interface BridgeConfig { bindings?: { sandbox?: string; warmPool?: string }; apiRoutePrefix?: string; healthRoute?: string }
export interface WarmPoolConfig { warmTarget?: number; refreshInterval?: number; maxInstances?: number; scaleBatchSize?: number }
