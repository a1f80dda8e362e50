/** Code contexts, in the shapes of the Cloudflare SDK. The daemon has none yet, and each method says so. */
import { PHRASES, type Core } from './core.js';

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

export class Interpreter {
  constructor(readonly core: Core) {}

  async create(_options?: CreateContextOptions): Promise<CodeContext> { throw PHRASES.contexts(); }
  async run(_code: string, _options?: RunCodeOptions): Promise<ExecutionResult> { throw PHRASES.contexts(); }
  async stream(_code: string, _options?: RunCodeOptions): Promise<ReadableStream<Uint8Array>> { throw PHRASES.contexts(); }
  async list(): Promise<CodeContext[]> { throw PHRASES.contexts(); }
  async remove(_id: string): Promise<void> { throw PHRASES.contexts(); }
}
