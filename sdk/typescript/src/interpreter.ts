/** Code contexts, in the shapes of the Cloudflare SDK. */
import type { CodeEnd, CodeOutputEvent, ContextView, Language, RichOutput } from './api.js';
import type { Core } from './core.js';
import { CodeExecutionError, SandboxError, failure } from './errors.js';
import { decode } from './processes.js';
import { asyncIterableToSSEStream, eventsOf } from './sse.js';
import type { Answer } from './transport.js';

export interface CreateContextOptions {
  /** Stockade has `bash` too. Python when absent. */
  language?: Language;
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
  language?: Language;
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

  async create(options: CreateContextOptions = {}): Promise<CodeContext> {
    const { language = 'python', cwd, envVars, timeout = CREATE_MS } = options;
    const body = { language, ...(cwd && { cwd }), ...(envVars && { env: envVars }) };
    return contextOf(await this.core.call('createContext', { body, signal: AbortSignal.timeout(timeout) }));
  }

  async list(): Promise<CodeContext[]> {
    return (await this.core.call('listContexts')).contexts.map(contextOf);
  }

  async get(context: string): Promise<CodeContext> { return contextOf(await this.core.call('getContext', { path: { context } })); }
  async remove(context: string): Promise<void> { await this.core.call('deleteContext', { path: { context } }); }
  /** As Ctrl-C does. */
  async interrupt(context: string): Promise<void> { await this.core.call('interruptContext', { path: { context } }); }
  /** A new interpreter, which knows nothing. */
  async restart(context: string): Promise<CodeContext> { return contextOf(await this.core.call('restartContext', { path: { context } })); }
  /** Answers code that asks for a line; without one there are no more. */
  async answer(context: string, line?: string): Promise<void> {
    await this.core.call('answerContext', { path: { context }, body: line === undefined ? { eof: true } : { value: line } });
  }

  async #happenings(code: string, options: RunCodeOptions): Promise<AsyncGenerator<Happening>> {
    const { context, language = 'python', envVars, timeout = RUN_MS, signal } = options;
    const body = { code, timeout_ms: timeout, ...(envVars && { env: envVars }) };
    const path = { context: context?.id ?? language };
    return happenings(await this.core.open('runCode', { path, body, accept: 'text/event-stream', signal }));
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
      const output = data as CodeOutputEvent;
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
