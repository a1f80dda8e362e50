/** OpenCode's server in a sandbox, and its own client for it. The image has the program; the client is a package of its own. */
import { ProcessReadyTimeoutError, SandboxError, notSupported, type ErrorResponse } from './errors.js';
import type { ProcessHandle } from './processes.js';
import type { Sandbox } from './sandbox.js';

const PORT_DEFAULT = 4096;
const STARTUP_MS = 180_000;

export interface OpencodeOptions {
  port?: number;
  directory?: string;
  /** OpenCode's own configuration. Keys of providers become variables too, where it looks for them. */
  config?: { provider?: Record<string, { options?: Record<string, unknown>; apiKey?: unknown }>; [other: string]: unknown };
  env?: Record<string, string>;
}
export interface OpencodeServer { port: number; url: string; close(): Promise<void> }
export interface OpencodeResult<Client> { client: Client; server: OpencodeServer }

export interface OpencodeStartupContext { port: number; stderr?: string; command?: string }

/** The server did not come up. */
export class OpencodeStartupError extends SandboxError {
  constructor(message: string, context: OpencodeStartupContext, options: { cause?: unknown } = {}) {
    const response: ErrorResponse = {
      code: 'OPENCODE_STARTUP_FAILED', message, context: { ...context }, httpStatus: 503, timestamp: new Date().toISOString(),
      suggestion: 'use an image that has opencode in its PATH',
    };
    super(response, options);
  }
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

function variables({ config, env }: OpencodeOptions): Record<string, string> {
  const found: Record<string, string> = {};
  if (config) found['OPENCODE_CONFIG_CONTENT'] = JSON.stringify(config);
  for (const [provider, { options, apiKey }] of Object.entries(config?.provider ?? {})) {
    const key = options?.['apiKey'] ?? apiKey;
    if (typeof key === 'string') found[`${provider.toUpperCase().replaceAll('-', '_')}_API_KEY`] = key;
  }
  return { ...found, ...env };
}

async function ready(process: ProcessHandle, port: number): Promise<void> {
  try {
    await process.waitForPort(port, { mode: 'http', path: '/global/health', status: 200, timeout: STARTUP_MS });
  } catch (cause) {
    const { stderr } = await process.getLogs();
    // Nobody waits for it any more.
    if (cause instanceof ProcessReadyTimeoutError) await process.kill();
    const context = { port, stderr, command: process.command };
    throw new OpencodeStartupError(`OpenCode server failed to start. Stderr: ${stderr || '(empty)'}`, context, { cause });
  }
}

/** Starts the server, or finds the one that runs on the port already. */
export async function createOpencodeServer(sandbox: Sandbox, options: OpencodeOptions = {}): Promise<OpencodeServer> {
  const { port = PORT_DEFAULT, directory } = options;
  const serve = `opencode serve --port ${port} --hostname 0.0.0.0`;
  const running = async () => (await sandbox.listProcesses()).find((one) => one.status === 'running' && one.command.includes(serve));
  const process = await running()
    ?? await sandbox.startProcess(directory === undefined ? serve : `cd ${quoted(directory)} && ${serve}`, { env: variables(options) });
  await ready(process, port);
  return { port, url: `http://localhost:${port}`, close: async () => { await process.kill('SIGTERM'); } };
}

/** The same, with OpenCode's client, whose requests go into the sandbox. */
export async function createOpencode<Client = unknown>(sandbox: Sandbox, options: OpencodeOptions = {}): Promise<OpencodeResult<Client>> {
  const name: string = '@opencode-ai/sdk/v2/client';
  const sdk = await import(name).catch((): never => {
    throw notSupported('createOpencode without @opencode-ai/sdk', 'npm install @opencode-ai/sdk, or use createOpencodeServer alone');
  }) as { createOpencodeClient(options: object): Client };
  const server = await createOpencodeServer(sandbox, options);
  const fetch = (input: Request | string | URL, init?: RequestInit) => sandbox.containerFetch(new Request(input, init), server.port);
  return { client: sdk.createOpencodeClient({ baseUrl: server.url, fetch }), server };
}

/** Passes a request on to the server, as it is. */
export function proxyToOpencodeServer(request: Request, sandbox: Sandbox, server: OpencodeServer): Promise<Response> {
  return sandbox.containerFetch(request, server.port);
}

/** The same for its pages, which are told by `?url=` where their server is. */
export async function proxyToOpencode(request: Request, sandbox: Sandbox, server: OpencodeServer): Promise<Response> {
  const url = new URL(request.url);
  const page = request.method === 'GET' && (url.pathname === '/' || (request.headers.get('accept') ?? '').includes('text/html'));
  if (page && !url.searchParams.has('url')) {
    url.searchParams.set('url', url.origin);
    return Response.redirect(url.toString(), 302);
  }
  return proxyToOpencodeServer(request, sandbox, server);
}
