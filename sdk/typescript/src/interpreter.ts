/** Code contexts, in the shapes of the Cloudflare SDK. */
import type { CodeEnd, CodeOutputEvent, CodeResult, CodeRunView, ContextView, Language, RichOutput } from './api.js';
import { timeOf, within } from './checks.js';
import type { Core } from './core.js';
import { defined } from './commands.js';
import { CodeExecutionError, SandboxError, failure } from './errors.js';
import { decode } from './processes.js';
import { asyncIterableToSSEStream, eventsOf } from './sse.js';
import type { Answer } from './transport.js';
import type { EnvVars } from './types.js';

export type { Language };

export interface CreateContextOptions {
  /** Stockade has `bash` too. Python when absent. */
  language?: Language;
  cwd?: string;
  envVars?: EnvVars;
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
  // Anything that JSON can carry.
  json?: any;
  chart?: ChartData;
  data?: any;
  formats(): string[];
}

/** What a chart shows, as data. */
export interface ChartData {
  /** Of the first thing that is drawn. */
  type: 'line' | 'bar' | 'scatter' | 'pie' | 'histogram' | 'heatmap' | 'unknown';
  title?: string;
  /** What is drawn, in the first system of axes. */
  data: any;
  /** Labels, scales and ticks of the first system of axes. */
  layout: Record<string, any>;
  config: Record<string, any>;
  library: 'matplotlib' | 'plotly' | 'altair' | 'seaborn' | 'unknown';
  /** The picture, in base64. */
  image?: string;
  /** Stockade: all systems of axes. */
  axes: ChartAxes[];
}

/** Stockade: what is drawn in one system of axes; docs/api.md says what else there is of it. */
export interface ChartAxes { title: string | null; elements: ChartElement[]; [field: string]: unknown }

/** Stockade: something that is drawn, with how it looks as far as the figure says it. */
export interface ChartElement {
  type: 'line' | 'scatter' | 'bar' | 'histogram' | 'pie' | 'box' | 'heatmap' | 'area' | 'rule' | 'band' | 'text' | 'segments' | 'unknown';
  label?: string | number | null;
  color?: string | null;
  /** Of each part, where they differ. */
  colors?: (string | null)[];
  /** `solid`, `dashed`, `dotted`, `dashdot`, what the library calls it, or the lengths of dashes and gaps. */
  line_style?: string | number[];
  line_width?: number;
  /** `circle`, `square`, `diamond`, `cross`, `x`, …; of each point where they differ. */
  marker?: string;
  markers?: (string | null)[];
  marker_size?: number;
  marker_color?: string | null;
  opacity?: number;
  /** Of a pie: the part of its radius that is empty. */
  hole?: number;
  /** By which colours numbers are shown: a name, or the colours. */
  colormap?: string | unknown[];
  /** The numbers at the ends of these. */
  value_range?: [number | null, number | null];
  value_scale?: string;
  [field: string]: unknown;
}

export interface ExecutionError { name: string; message: string; traceback: string[]; lineNumber?: number }

export interface RunCodeOptions {
  context?: CodeContext;
  language?: Language;
  envVars?: EnvVars;
  timeout?: number;
  signal?: AbortSignal;
  onStdout?: (output: OutputMessage) => void | Promise<void>;
  onStderr?: (output: OutputMessage) => void | Promise<void>;
  onResult?: (result: Result) => void | Promise<void>;
  onError?: (error: ExecutionError) => void | Promise<void>;
}

/** Stockade: of a cell that goes on by itself. */
export type DetachOptions = Pick<RunCodeOptions, 'context' | 'language' | 'envVars' | 'timeout'>;

export interface ExecutionResult {
  /** Stockade: what earlier cells have left running wrote meanwhile. */
  background?: string[];
  code: string;
  logs: { stdout: string[]; stderr: string[] };
  error?: ExecutionError;
  executionCount?: number;
  results: Result[];
}

/** Stockade: a cell that goes on whatever its client does. */
export interface DetachedRun {
  /** Its name, for `getCodeRun`. */
  id: string;
  /** The context that runs it. */
  context: string;
  createdAt: Date;
  ended: boolean;
  /** What came of it, once it has ended. */
  result?: Omit<ExecutionResult, 'code'>;
}

/** How long a cell may run unless it says, as there. */
const RUN_MS = 60_000;
const CREATE_MS = 30_000;

/** What comes of a cell, as it comes. */
type Happening =
  | { type: 'stdout' | 'stderr'; text: string; background: boolean }
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

const CHARTS: readonly string[] = ['line', 'bar', 'scatter', 'pie', 'histogram', 'heatmap'] satisfies ChartData['type'][];

const LIBRARIES: readonly string[] = ['matplotlib', 'plotly', 'altair', 'seaborn'] satisfies ChartData['library'][];

/** The daemon's description of a chart in the words of the Cloudflare SDK. */
function chartOf(told: unknown, image: unknown): ChartData {
  const { library = '', title, axes = [] } = told as { library?: string; title?: string | null; axes?: ChartAxes[] };
  const { elements = [], title: own, ...layout } = axes[0] ?? ({} as Partial<ChartAxes>);
  const type = elements[0]?.type ?? '';
  const named = title ?? own;
  return {
    type: CHARTS.includes(type) ? (type as ChartData['type']) : 'unknown',
    data: elements, layout, config: {}, axes,
    library: LIBRARIES.includes(library) ? (library as ChartData['library']) : 'unknown',
    ...(typeof named === 'string' && { title: named }), ...(typeof image === 'string' && { image }),
  };
}

function resultOf(output: RichOutput): Result {
  const pairs = Object.entries(output.data).flatMap(([type, value]) => (KEYS[type] ? [[KEYS[type], value]] : []));
  const values = Object.fromEntries(pairs) as Omit<Result, 'formats'>;
  if (values.chart) values.chart = chartOf(values.chart, values.png);
  // Not among the values, so that results can be compared and sent on.
  return Object.defineProperty(values, 'formats', { value: () => Object.keys(values) }) as Result;
}

function contextOf(view: ContextView): CodeContext {
  const { id, language, cwd } = view;
  return { id, language, cwd, createdAt: new Date(view.created_at), lastUsed: new Date(view.last_used_at) };
}

function runOf(context: string, view: CodeRunView): DetachedRun {
  const { id, created_at, ended, result } = view;
  return { id, context, createdAt: new Date(created_at), ended, ...(result && { result: executionOf(result) }) };
}

function executionOf(result: CodeResult): Omit<ExecutionResult, 'code'> {
  const written = (text: string, encoding: CodeResult['stdout_encoding']) => (text ? [decode(text, encoding).toString('utf8')] : []);
  const error = errorOf(result);
  return {
    logs: { stdout: written(result.stdout, result.stdout_encoding), stderr: written(result.stderr, result.stderr_encoding) },
    results: result.results.map(resultOf), ...(result.background && { background: [result.background] }),
    ...(error && { error }), ...(result.execution_count != null && { executionCount: result.execution_count }),
  };
}

function errorOf(end: CodeEnd): ExecutionError | undefined {
  if (!end.error) return undefined;
  const { name, message, traceback, line } = end.error;
  return { name, message, traceback, ...(line != null && { lineNumber: line }) };
}

export class Interpreter {
  constructor(readonly core: Core) {}

  async create(options: CreateContextOptions = {}): Promise<CodeContext> {
    const { language = 'python', cwd, envVars } = options;
    const timeout = timeOf('timeout', options.timeout) ?? CREATE_MS;
    const body = { language, ...(cwd && { cwd }), ...(envVars && { env: defined(envVars) }) };
    return contextOf(await this.core.call('createContext', { body, signal: within(timeout) }));
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
    const { context, language = 'python', envVars, signal } = options;
    const timeout = timeOf('timeout', options.timeout) ?? RUN_MS;
    const body = { code, timeout_ms: timeout, ...(envVars && { env: defined(envVars) }) };
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
      } else if (happening.background) {
        (done.background ??= []).push(happening.text);
      } else {
        done.logs[happening.type].push(happening.text);
        const message = { text: happening.text, timestamp: Date.now() };
        await (happening.type === 'stdout' ? options.onStdout : options.onStderr)?.(message);
      }
    }
    throw failure(CodeExecutionError, 'CODE_EXECUTION_ERROR', 'the stream of the run ended before the run');
  }

  /** Starts a cell that goes on whatever its client does. The timeout is the context's, unless one is given. */
  async detach(code: string, options: DetachOptions = {}): Promise<DetachedRun> {
    const { context, language = 'python', envVars } = options;
    const timeout = timeOf('timeout', options.timeout);
    const body = { code, detach: true, ...(timeout !== undefined && { timeout_ms: timeout }), ...(envVars && { env: defined(envVars) }) };
    const name = context?.id ?? language;
    return runOf(name, await this.core.call('runCode', { path: { context: name }, body }) as CodeRunView);
  }

  async kept(context: string, run: string, wait?: number): Promise<DetachedRun> {
    const query = wait === undefined ? {} : { wait_ms: wait };
    return runOf(context, await this.core.call('getRun', { path: { context, run }, query }));
  }

  async allKept(context: string): Promise<DetachedRun[]> {
    return (await this.core.call('listRuns', { path: { context } })).runs.map((view) => runOf(context, view));
  }

  async stream(code: string, options: RunCodeOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return asyncIterableToSSEStream(streamEvents(await this.#happenings(code, options)));
  }
}

async function* happenings(answer: Answer): AsyncGenerator<Happening> {
  for await (const { event, data } of eventsOf(answer, 'runCode')) {
    if (event === 'stdout' || event === 'stderr') {
      const output = data as CodeOutputEvent;
      yield { type: event, text: decode(output.data, output.encoding).toString('utf8'), background: output.background };
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

/** The methods of a sandbox that are about code, by themselves. */
export class CodeInterpreter {
  readonly #sandbox: CodeRunner;

  constructor(sandbox: CodeRunner) {
    this.#sandbox = sandbox;
  }

  createCodeContext(options?: CreateContextOptions): Promise<CodeContext> { return this.#sandbox.createCodeContext(options); }
  runCode(code: string, options?: RunCodeOptions): Promise<ExecutionResult> { return this.#sandbox.runCode(code, options); }
  runCodeStream(code: string, options?: RunCodeOptions): Promise<ReadableStream<Uint8Array>> {
    return this.#sandbox.runCodeStream(code, options);
  }
  listCodeContexts(): Promise<CodeContext[]> { return this.#sandbox.listCodeContexts(); }
  deleteCodeContext(id: string): Promise<void> { return this.#sandbox.deleteCodeContext(id); }
}

/** A sandbox or a session, as far as code goes. */
interface CodeRunner {
  createCodeContext(options?: CreateContextOptions): Promise<CodeContext>;
  runCode(code: string, options?: RunCodeOptions): Promise<ExecutionResult>;
  runCodeStream(code: string, options?: RunCodeOptions): Promise<ReadableStream<Uint8Array>>;
  listCodeContexts(): Promise<CodeContext[]>;
  deleteCodeContext(id: string): Promise<void>;
}
