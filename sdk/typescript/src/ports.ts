/** Ports: addresses for browsers, and requests for them that come to a server of one's own. */
import { timingSafeEqual } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import type { Duplex } from 'node:stream';
import type { ExposePort, PortView } from './api.js';
import { Core } from './core.js';
import {
  CustomDomainRequiredError, InvalidPortError, PortNotExposedError, SandboxError, ValidationFailedError, failure, fromDaemon, lost,
} from './errors.js';
import { target, Transport } from './transport.js';
import type { ExposedPort, ExposedPortInfo, ExposePortOptions } from './types.js';
import { fetchFrom, upgradeTo, wantsUpgrade } from './upgrade.js';

const PORT_MAX = 65_535;
/** Names of this host. Addresses below them are plain HTTP. */
const LOCAL = /^(.+\.)?localhost(:\d+)?$|^127\.0\.0\.1(:\d+)?$|^0\.0\.0\.0(:\d+)?$|^\[::1\](:\d+)?$/;

function checked(port: number): number {
  if (Number.isInteger(port) && port >= 1 && port <= PORT_MAX) return port;
  throw failure(InvalidPortError, 'INVALID_PORT', `${port} is not a port`, { httpStatus: 400, context: { port } });
}

/** The address of a port below a host name of one's own. */
function addressOf(id: string, port: PortView, hostname: string): string {
  const scheme = LOCAL.test(hostname) ? 'http' : 'https';
  return `${scheme}://${port.port}-${id}-${port.token}.${hostname}/`;
}

function infoOf(core: Core, port: PortView & { url?: string | null }, hostname: string | undefined): ExposedPortInfo {
  const url = hostname === undefined ? port.url : addressOf(core.id, port, hostname);
  if (!url) {
    throw failure(ValidationFailedError, 'VALIDATION_FAILED', 'this daemon serves no previews: name a hostname', {
      httpStatus: 400, suggestion: 'give `hostname`, of a server that calls proxyToSandbox, or start the daemon with --preview-listen',
    });
  }
  return { url, port: port.port, name: port.name ?? undefined };
}

export async function exposePort(core: Core, port: number, options: ExposePortOptions): Promise<ExposedPortInfo> {
  if (options.hostname?.endsWith('.workers.dev')) {
    throw failure(CustomDomainRequiredError, 'CUSTOM_DOMAIN_REQUIRED', 'names below .workers.dev have no names below them, which previews need', {
      httpStatus: 400, context: { originalError: options.hostname },
    });
  }
  const body: ExposePort = { port: checked(port) };
  if (options.name !== undefined) body.name = options.name;
  if (options.token !== undefined) body.token = options.token;
  return infoOf(core, await core.call('exposePort', { body }), options.hostname);
}

export async function unexposePort(core: Core, port: number): Promise<void> {
  try {
    await core.call('revokePort', { path: { port: checked(port) } });
  } catch (error) {
    if (!(error instanceof PortNotExposedError)) throw error;
  }
}

export async function exposedPorts(core: Core, hostname: string | undefined): Promise<ExposedPort[]> {
  const { ports } = await core.call('listPorts');
  return ports.map((port) => ({ ...infoOf(core, port, hostname), status: 'active' as const }));
}

/** Whether this is the token of the port. */
export async function validToken(core: Core, port: number, token: string): Promise<boolean> {
  try {
    const view = await core.transport.call('getPort', { path: { id: core.id, port: checked(port) } });
    const [real, given] = [Buffer.from(view.token), Buffer.from(token)];
    return real.length === given.length && timingSafeEqual(real, given);
  } catch (error) {
    if (error instanceof PortNotExposedError) return false;
    if (error instanceof SandboxError && error.daemonCode === 'SANDBOX_NOT_FOUND') return false;
    throw error;
  }
}

/** A connection to a port, for any protocol. */
export async function connectTo(core: Core, port: number, waitMs: number | undefined): Promise<Duplex> {
  await core.ensure();
  const path = target('/v1/sandboxes/{id}/ports/{port}/connect', { id: core.id, port: checked(port) }, { wait_ms: waitMs });
  const headers = { host: 'stockade', connection: 'upgrade', upgrade: 'tcp' };
  const request = httpRequest({ socketPath: core.transport.socket, path, headers, agent: false });
  return new Promise<Duplex>((resolve, reject) => {
    request.once('upgrade', (_response, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    request.once('response', (response) => {
      let text = '';
      response.on('data', (part) => { text += String(part); });
      response.on('end', () => {
        try {
          reject(fromDaemon(JSON.parse(text), response.statusCode ?? 500, 'connectToPort'));
        } catch (error) {
          reject(error as Error);
        }
      });
    });
    request.once('error', (cause) => reject(lost(cause.message, cause)));
    request.end();
  });
}

/** `8080-sandbox-token.host`: the first hyphen ends the port, the last one begins the token. */
const PREVIEW = /^(\d{1,5})-([a-z0-9-]+)-([a-z0-9_]{1,16})$/;

/**
 * Answers a request if it is for a preview: to `{port}-{sandbox}-{token}.` of any host name. Otherwise gives null, and
 * the request is yours.
 */
export async function proxyTo(transport: Transport, request: Request): Promise<Response | null> {
  const [label = ''] = new URL(request.url).hostname.split('.');
  const [, number, id, token] = PREVIEW.exec(label) ?? [];
  if (!number || !id || !token) return null;
  const port = Number(number);
  const core = new Core(transport, id, undefined);
  if (port < 1 || port > PORT_MAX || !(await validToken(core, port, token))) {
    const body = { error: 'Access denied: invalid token or unexposed port', code: 'INVALID_TOKEN' };
    return Response.json(body, { status: 404 });
  }
  if (wantsUpgrade(request)) return upgradeTo(core, request, port);
  const response = await fetchFrom(core, request, port);
  if (response.headers.get('x-stockade-error') !== 'SANDBOX_DEAD') return response;
  await response.body?.cancel();
  return Response.json({ error: 'Preview URL is stale: the sandbox behind it has ended', code: 'STALE_PREVIEW_URL' }, { status: 410 });
}
