/** Shell and editor for the OpenAI Agents SDK, whose types these are without that package being needed. */
import { posix } from 'node:path';
import { FileNotFoundError, SandboxError } from './errors.js';
import { applyDiff } from './v4a.js';
import type { Sandbox } from './sandbox.js';

const ROOT = '/workspace';

export interface ShellAction { commands: string[]; timeoutMs?: number; maxOutputLength?: number }
export interface ShellOutputResult {
  command?: string;
  stdout: string;
  stderr: string;
  outcome: { type: 'timeout' } | { type: 'exit'; exitCode: number | null };
}
export interface ShellResult { output: ShellOutputResult[]; maxOutputLength?: number; providerData?: Record<string, unknown> }

/** A command that was run, for one's own answers. */
export interface CommandResult { command: string; stdout: string; stderr: string; exitCode: number | null; timestamp: number }

export type ApplyPatchOperation =
  | { type: 'create_file'; path: string; diff: string }
  | { type: 'update_file'; path: string; diff: string }
  | { type: 'delete_file'; path: string };
export interface ApplyPatchResult { status?: 'completed' | 'failed'; output?: string }

/** What was done to a file, for one's own answers. */
export interface FileOperationResult {
  operation: 'create' | 'update' | 'delete';
  path: string;
  status: 'completed' | 'failed';
  output: string;
  error?: string;
  timestamp: number;
}

/** Runs what the model asks for, one command after the other. A timeout is the last. */
export class Shell {
  readonly results: CommandResult[] = [];

  constructor(private readonly sandbox: Sandbox) {}

  async run(action: ShellAction): Promise<ShellResult> {
    const output: ShellOutputResult[] = [];
    for (const command of action.commands) {
      const done = await this.#one(command, action.timeoutMs);
      output.push(done);
      const exitCode = done.outcome.type === 'exit' ? done.outcome.exitCode : null;
      this.results.push({ command, stdout: done.stdout, stderr: done.stderr, exitCode, timestamp: Date.now() });
      if (done.outcome.type === 'timeout') break;
    }
    return { output, providerData: { working_directory: ROOT } };
  }

  async #one(command: string, timeoutMs: number | undefined): Promise<ShellOutputResult> {
    try {
      const options = { cwd: ROOT, ...(timeoutMs !== undefined && { timeout: timeoutMs }) };
      const { stdout, stderr, exitCode } = await this.sandbox.exec(command, options);
      return { command, stdout, stderr, outcome: { type: 'exit', exitCode } };
    } catch (error) {
      if (!(error instanceof SandboxError)) throw error;
      // An `exit` ends the session's shell, and is how the command ended all the same.
      const { stdout, stderr, exitCode } = error.context as Partial<CommandResult>;
      const timedOut = error.code === 'COMMAND_EXECUTION_ERROR' && error.message.startsWith('Command timeout');
      const outcome: ShellOutputResult['outcome'] = timedOut ? { type: 'timeout' } : { type: 'exit', exitCode: exitCode ?? 1 };
      return { command, stdout: stdout ?? '', stderr: stderr ?? error.message, outcome };
    }
  }
}

/** Applies the model's patches to files below a directory. */
export class Editor {
  readonly results: FileOperationResult[] = [];

  constructor(private readonly sandbox: Sandbox, private readonly root: string = ROOT) {}

  createFile(operation: Extract<ApplyPatchOperation, { type: 'create_file' }>): Promise<ApplyPatchResult> {
    return this.#noted('create', operation.path, async (path) => {
      const content = applyDiff('', operation.diff, 'create');
      await this.sandbox.mkdir(posix.dirname(path), { recursive: true });
      await this.sandbox.writeFile(path, content);
    });
  }

  updateFile(operation: Extract<ApplyPatchOperation, { type: 'update_file' }>): Promise<ApplyPatchResult> {
    return this.#noted('update', operation.path, async (path) => {
      const { content } = await this.sandbox.readFile(path, { encoding: 'utf-8' }).catch((error: unknown) => {
        throw error instanceof FileNotFoundError ? new Error(`Cannot update missing file: ${operation.path}`, { cause: error }) : error;
      });
      await this.sandbox.writeFile(path, applyDiff(content, operation.diff));
    });
  }

  deleteFile(operation: Extract<ApplyPatchOperation, { type: 'delete_file' }>): Promise<ApplyPatchResult> {
    return this.#noted('delete', operation.path, async (path) => { await this.sandbox.deleteFile(path); });
  }

  async #noted(operation: FileOperationResult['operation'], path: string, act: (path: string) => Promise<void>): Promise<ApplyPatchResult> {
    const [past, present] = { create: ['Created', 'create'], update: ['Updated', 'update'], delete: ['Deleted', 'delete'] }[operation] as [string, string];
    const target = this.#within(path);
    try {
      await act(target);
    } catch (error) {
      const output = `Failed to ${present} ${path}`;
      this.results.push({ operation, path, status: 'failed', output, error: (error as Error).message, timestamp: Date.now() });
      throw error;
    }
    const output = `${past} ${path}`;
    this.results.push({ operation, path, status: 'completed', output, timestamp: Date.now() });
    return { status: 'completed', output };
  }

  /** A path below the root, by its words; links are the sandbox's own affair. */
  #within(path: string): string {
    const root = posix.normalize(this.root).replace(/(.)\/+$/, '$1');
    const below = path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : path;
    const target = posix.join(root, below);
    if (target !== root && !target.startsWith(root === '/' ? '/' : `${root}/`)) throw new Error(`Operation outside workspace: ${path}`);
    return target;
  }
}
