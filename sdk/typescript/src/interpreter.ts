/**
 * Code contexts, in the shapes of the Cloudflare SDK. A daemon that has none is known by its answer, and each method says so.
 */
import { PHRASES, type Core } from './core.js';
import { CodeExecutionError, SandboxError, failure } from './errors.js';
import { decode } from './processes.js';
import { asyncIterableToSSEStream, eventsOf } from './sse.js';
import { refusal, target, textOf, type Answer } from './transport.js';

export interface CreateContextOptions {
  language?: 'python' | 'javascript' | 'typescript';
  cwd?: string;
  envVars?: Record<string, string>;
  timeout?: number;
}

export interface CodeContext {
  readonly id: string;
  readonly language: string;
  readonly cwd: string;
  readonly createdAt: Date;
  readonly lastUsed: Date;
}

export interface OutputMessage { text: string; timestamp: number }

export interface Result {
  text?: string;
  html?: string;
  png?: string;
  jpeg?: string;
  svg?: string;
  latex?: string;
  markdown?: string;
  javascript?: string;
  json?: unknown;
  chart?: unknown;
  data?: unknown;
  formats(): string[];
}

export interface ExecutionError { name: string; message: string; traceback: string[]; lineNumber?: number }

export interface RunCodeOptions {
  context?: CodeContext;
  language?: 'python' | 'javascript' | 'typescript';
  envVars?: Record<string, string>;
  timeout?: number;
  signal?: AbortSignal;
  onStdout?: (output: OutputMessage) => void | Promise<void>;
  onStderr?: (output: OutputMessage) => void | Promise<void>;
  onResult?: (result: Result) => void | Promise<void>;
  onError?: (error: ExecutionError) => void | Promise<void>;
}

export interface ExecutionResult {
  code: string;
  logs: { stdout: string[]; stderr: string[] };
  error?: ExecutionError;
  executionCount?: number;
  results: Result[];
}

/** How long a cell may run unless it says, as there. */
const RUN_MS = 60_000;
const CREATE_MS = 30_000;

/** Operations that not every daemon has, by the names of the API's description. */
const ROUTES = {
  listContexts: ['GET', '/v1/sandboxes/{id}/contexts'],
  createContext: ['POST', '/v1/sandboxes/{id}/contexts'],
  getContext: ['GET', '/v1/sandboxes/{id}/contexts/{context}'],
  deleteContext: ['DELETE', '/v1/sandboxes/{id}/contexts/{context}'],
  answerContext: ['POST', '/v1/sandboxes/{id}/contexts/{context}/input'],
  interruptContext: ['POST', '/v1/sandboxes/{id}/contexts/{context}/interrupt'],
  restartContext: ['POST', '/v1/sandboxes/{id}/contexts/{context}/restart'],
  runCode: ['POST', '/v1/sandboxes/{id}/contexts/{context}/runs'],
} as const;

interface ContextView { id: string; language: string; cwd: string; created_at: string; last_used_at: string }
interface RichOutput { data: Record<string, unknown>; transient: Record<string, unknown>; update: boolean }
interface CodeEnd {
  execution_count?: number | null;
  error?: { name: string; message: string; traceback: string[]; line?: number | null } | null;
}

/** What comes of a cell, as it comes. */
type Happening =
  | { type: 'stdout' | 'stderr'; text: string }
  | { type: 'result'; result: Result; replaces?: string | undefined; id?: string | undefined }
  | { type: 'end'; end: CodeEnd };

const KEYS: Record<string, Exclude<keyof Result, 'formats'>> = {
  'text/plain': 'text',
  'text/html': 'html',
  'image/png': 'png',
  'image/jpeg': 'jpeg',
  'image/svg+xml': 'svg',
  'text/latex': 'latex',
  'text/markdown': 'markdown',
  'application/javascript': 'javascript',
  'application/json': 'json',
  'application/vnd.stockade.chart+json': 'chart',
  'application/vnd.stockade.dataframe+json': 'data',
};

function resultOf(output: RichOutput): Result {
  const pairs = Object.entries(output.data).flatMap(([type, value]) => (KEYS[type] ? [[KEYS[type], value]] : []));
  const values = Object.fromEntries(pairs) as Omit<Result, 'formats'>;
  // Not among the values, so that results can be compared and sent on.
  return Object.defineProperty(values, 'formats', { value: () => Object.keys(values) }) as Result;
}

function contextOf(view: ContextView): CodeContext {
  const { id, language, cwd } = view;
  return { id, language, cwd, createdAt: new Date(view.created_at), lastUsed: new Date(view.last_used_at) };
}

function errorOf(end: CodeEnd): ExecutionError | undefined {
  if (!end.error) return undefined;
  const { name, message, traceback, line } = end.error;
  return { name, message, traceback, ...(line != null && { lineNumber: line }) };
}

export class Interpreter {
  constructor(readonly core: Core) {}

  async #open(
    name: keyof typeof ROUTES, context: string | undefined, body?: object, more: { accept?: string; signal?: AbortSignal | undefined } = {},
  ): Promise<Answer> {
    await this.core.ensure();
    const [method, template] = ROUTES[name];
    const path = target(template, { id: this.core.id, ...(context !== undefined && { context }) }, {});
    const headers = { host: 'stockade', 'content-type': 'application/json', ...(more.accept && { accept: more.accept }) };
    const answer = await this.core.transport.send(method, path, headers, body && JSON.stringify(body), more.signal, name);
    if (answer.status < 400) return answer;
    const error = await refusal(answer, name);
    throw error.daemonCode === 'ROUTE_NOT_FOUND' ? PHRASES.contexts() : error;
  }

  async #call<T>(name: keyof typeof ROUTES, context: string | undefined, body?: object, signal?: AbortSignal): Promise<T> {
    const text = await textOf(await this.#open(name, context, body, { signal }));
    return (text ? JSON.parse(text) : undefined) as T;
  }

  async create(options: CreateContextOptions = {}): Promise<CodeContext> {
    const { language = 'python', cwd, envVars, timeout = CREATE_MS } = options;
    const body = { language, ...(cwd && { cwd }), ...(envVars && { env: envVars }) };
    return contextOf(await this.#call('createContext', undefined, body, AbortSignal.timeout(timeout)));
  }

  async list(): Promise<CodeContext[]> {
    const { contexts } = await this.#call<{ contexts: ContextView[] }>('listContexts', undefined);
    return contexts.map(contextOf);
  }

  async get(id: string): Promise<CodeContext> { return contextOf(await this.#call('getContext', id)); }
  remove(id: string): Promise<void> { return this.#call('deleteContext', id); }
  /** As Ctrl-C does. */
  interrupt(id: string): Promise<void> { return this.#call('interruptContext', id); }
  /** A new interpreter, which knows nothing. */
  async restart(id: string): Promise<CodeContext> { return contextOf(await this.#call('restartContext', id)); }
  /** Answers code that asks for a line; without one there are no more. */
  answer(id: string, line?: string): Promise<void> {
    return this.#call('answerContext', id, line === undefined ? { eof: true } : { value: line });
  }

  async #happenings(code: string, options: RunCodeOptions): Promise<AsyncGenerator<Happening>> {
    const { context, language = 'python', envVars, timeout = RUN_MS, signal } = options;
    const body = { code, timeout_ms: timeout, ...(envVars && { env: envVars }) };
    const answer = await this.#open('runCode', context?.id ?? language, body, { accept: 'text/event-stream', signal });
    return happenings(answer);
  }

  async run(code: string, options: RunCodeOptions = {}): Promise<ExecutionResult> {
    const done: ExecutionResult = { code, logs: { stdout: [], stderr: [] }, results: [] };
    const shown = new Map<string, number>();
    for await (const happening of await this.#happenings(code, options)) {
      if (happening.type === 'result') {
        const at = happening.replaces === undefined ? undefined : shown.get(happening.replaces);
        if (happening.id !== undefined) shown.set(happening.id, at ?? done.results.length);
        done.results[at ?? done.results.length] = happening.result;
        await options.onResult?.(happening.result);
      } else if (happening.type === 'end') {
        if (happening.end.execution_count != null) done.executionCount = happening.end.execution_count;
        const error = errorOf(happening.end);
        if (error) {
          done.error = error;
          await options.onError?.(error);
        }
        return done;
      } else {
        done.logs[happening.type].push(happening.text);
        const message = { text: happening.text, timestamp: Date.now() };
        await (happening.type === 'stdout' ? options.onStdout : options.onStderr)?.(message);
      }
    }
    throw failure(CodeExecutionError, 'CODE_EXECUTION_ERROR', 'the stream of the run ended before the run');
  }

  async stream(code: string, options: RunCodeOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return asyncIterableToSSEStream(streamEvents(await this.#happenings(code, options)));
  }
}

async function* happenings(answer: Answer): AsyncGenerator<Happening> {
  for await (const { event, data } of eventsOf(answer, 'runCode')) {
    if (event === 'stdout' || event === 'stderr') {
      const output = data as { data: string; encoding: string };
      yield { type: event, text: decode(output.data, output.encoding).toString('utf8') };
    } else if (event === 'display' || event === 'result') {
      const output = data as RichOutput;
      const id = output.transient['display_id'] as string | undefined;
      yield { type: 'result', result: resultOf(output), id, replaces: output.update ? id : undefined };
    } else if (event === 'end') {
      yield { type: 'end', end: data as CodeEnd };
    }
  }
}

/** The events of `runCodeStream`. */
async function* streamEvents(source: AsyncIterable<Happening>): AsyncGenerator<object> {
  const timestamp = () => Date.now();
  try {
    for await (const happening of source) {
      if (happening.type === 'result') yield { type: 'result', timestamp: timestamp(), ...happening.result };
      else if (happening.type !== 'end') yield { type: happening.type, timestamp: timestamp(), text: happening.text };
      else {
        const error = errorOf(happening.end);
        if (error) {
          yield { type: 'error', timestamp: timestamp(), ename: error.name, evalue: error.message, traceback: error.traceback };
        }
        yield { type: 'execution_complete', timestamp: timestamp(), execution_count: happening.end.execution_count ?? 0 };
      }
    }
  } catch (error) {
    if (!(error instanceof SandboxError)) throw error;
    yield { type: 'error', timestamp: timestamp(), ename: error.code, evalue: error.message, traceback: [] };
  }
}
