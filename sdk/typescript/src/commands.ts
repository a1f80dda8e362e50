/** Commands: one answer, or a stream, in a session or outside of any. */
import type { CommandEnd, CommandResult, OutputEvent, RunCommand, StartedEvent } from './api.js';
import { timeOf } from './checks.js';
import type { Core } from './core.js';
import { CommandError, CommandNotFoundError, SandboxError, failure } from './errors.js';
import { decode } from './processes.js';
import { eventsOf, type DaemonEvent } from './sse.js';
import type { BaseExecOptions, EnvVars, ExecEvent, ExecOptions, ExecResult } from './types.js';

/** As much of each stream as the daemon keeps for one answer. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
/** What `timeout(1)` and the Cloudflare SDK say of a command whose time was up. */
const TIMED_OUT = 124;

/** Variables that have a value. */
export function defined(env: EnvVars | undefined): Record<string, string> {
  const pairs = Object.entries(env ?? {}).filter((pair): pair is [string, string] => typeof pair[1] === 'string');
  return Object.fromEntries(pairs);
}

/** A command line for the API. */
export function commandOf(command: string, options: BaseExecOptions & Pick<ExecOptions, 'stdin' | 'record'>): RunCommand {
  const run: RunCommand = { shell: command, env: defined(options.env) };
  if (options.cwd !== undefined) run.cwd = options.cwd;
  const timeout = timeOf('timeout', options.timeout);
  if (timeout !== undefined) run.timeout_ms = timeout;
  if (options.record !== undefined) run.record = options.record;
  if (typeof options.stdin === 'string') run.stdin = options.stdin;
  else if (options.stdin) run.stdin_base64 = Buffer.from(options.stdin).toString('base64');
  return run;
}

/**
 * Does something with a command line for bash, or for `sh` where the image has no bash. Whether it has is learnt once.
 */
export async function inBash<T>(
  core: Core, script: string, act: (line: { argv: string[] } | { shell: string }) => Promise<T>,
): Promise<T> {
  if (core.hasBash !== false) {
    try {
      const done = await act({ argv: ['bash', '-c', script] });
      core.hasBash = true;
      return done;
    } catch (error) {
      if (core.hasBash || !(error instanceof CommandNotFoundError)) throw error;
      core.hasBash = false;
    }
  }
  return act({ shell: script });
}

/** Where a command runs. */
export interface Place {
  core: Core;
  /** The session, or none. */
  session: string | undefined;
}

/** The operation that runs a command there. */
function open(place: Place, run: RunCommand, options: BaseExecOptions) {
  const { core, session } = place;
  const given = { body: run, accept: 'text/event-stream', signal: options.signal };
  return session === undefined
    ? core.open('runCommand', given)
    : core.open('runInSession', { ...given, path: { session } });
}

/** Runs a command there, and gives what it wrote when it has ended. */
async function answer(place: Place, run: RunCommand, options: BaseExecOptions): Promise<CommandResult> {
  const { core, session } = place;
  const given = { body: { ...run, output_bytes_max: OUTPUT_BYTES_MAX }, signal: options.signal };
  return session === undefined
    ? core.call('runCommand', given)
    : core.call('runInSession', { ...given, path: { session } });
}

/** A command outside of sessions is for bash. */
function ready<T>(place: Place, run: RunCommand, act: (run: RunCommand) => Promise<T>): Promise<T> {
  if (place.session !== undefined) return act(run);
  const { shell, ...rest } = run;
  return inBash(place.core, shell ?? '', (line) => act({ ...rest, ...line }));
}

/** A command whose time was up: an error in a session, a result outside, as there. */
function timedOut(place: Place, options: BaseExecOptions, result: ExecResult): ExecResult {
  if (place.session !== undefined) {
    throw failure(CommandError, 'COMMAND_EXECUTION_ERROR', `Command timeout after ${options.timeout}ms`, {
      context: { command: result.command, stdout: result.stdout, stderr: result.stderr },
    });
  }
  const stderr = `${result.stderr}Command timed out after ${options.timeout}ms`;
  return { ...result, success: false, exitCode: TIMED_OUT, stderr };
}

function resultOf(place: Place, command: string, end: CommandEnd, written: Pick<ExecResult, 'stdout' | 'stderr'>): ExecResult {
  const result: ExecResult = {
    success: end.exit_code === 0,
    exitCode: end.exit_code,
    ...written,
    command,
    duration: end.duration_ms,
    timestamp: new Date().toISOString(),
  };
  if (place.session !== undefined) result.sessionId = place.session;
  return result;
}

const textIn = (data: string, encoding: string, wanted: string | undefined): string => {
  if (wanted === 'base64') return decode(data, encoding).toString('base64');
  return encoding === 'utf-8' ? data : decode(data, encoding).toString('utf8');
};

/** `exec` of a command line. */
export async function exec(place: Place, command: string, options: ExecOptions): Promise<ExecResult> {
  try {
    const result = options.stream || options.onOutput
      ? await streamed(place, command, options)
      : await whole(place, command, options);
    options.onComplete?.(result);
    return result;
  } catch (error) {
    options.onError?.(error as Error);
    throw error;
  }
}

async function whole(place: Place, command: string, options: ExecOptions): Promise<ExecResult> {
  const end = await ready(place, commandOf(command, options), (run) => answer(place, run, options));
  const result = resultOf(place, command, end, {
    stdout: textIn(end.stdout, end.stdout_encoding, options.encoding),
    stderr: textIn(end.stderr, end.stderr_encoding, options.encoding),
  });
  if (end.recording) result.recording = end.recording;
  if (end.truncated.stdout || end.truncated.stderr) result.truncated = end.truncated;
  return end.timed_out ? timedOut(place, options, result) : result;
}

async function streamed(place: Place, command: string, options: ExecOptions): Promise<ExecResult> {
  const written = { stdout: '', stderr: '' };
  let recording: string | null | undefined;
  for await (const { event, data } of events(place, command, options)) {
    if (event === 'stdout' || event === 'stderr') {
      const output = data as OutputEvent;
      const text = textIn(output.data, output.encoding, options.encoding);
      written[event] += text;
      options.onOutput?.(event, text);
    } else if (event === 'started') {
      recording = (data as StartedEvent).recording;
    } else if (event === 'exit') {
      const end = data as CommandEnd;
      const result = resultOf(place, command, end, written);
      if (recording) result.recording = recording;
      return end.timed_out ? timedOut(place, options, result) : result;
    }
  }
  throw failure(CommandError, 'COMMAND_EXECUTION_ERROR', 'the stream of the command ended before the command');
}

async function* events(place: Place, command: string, options: BaseExecOptions): AsyncGenerator<DaemonEvent> {
  yield* await begin(place, command, options);
}

/** The events of a command that has been started: a program that is not there is known with the first one. */
async function begin(place: Place, command: string, options: BaseExecOptions): Promise<AsyncGenerator<DaemonEvent>> {
  return ready(place, commandOf(command, options), async (run) => {
    const stream = eventsOf(await open(place, run, options), 'runCommand');
    // A missing bash shows itself as the second event; only then it is worth to wait for that.
    if (place.core.hasBash !== undefined || place.session !== undefined) return stream;
    const first = [await stream.next(), await stream.next()];
    return (async function* () {
      for (const one of first) if (!one.done) yield one.value;
      yield* stream;
    })();
  });
}

/** The events of `execStream`. */
export async function* execEvents(place: Place, command: string, options: BaseExecOptions): AsyncGenerator<ExecEvent> {
  const stamp = () => ({
    timestamp: new Date().toISOString(),
    ...(place.session === undefined ? {} : { sessionId: place.session }),
  });
  try {
    for await (const { event, data } of events(place, command, options)) {
      if (event === 'started') {
        yield { type: 'start', ...stamp(), command, pid: (data as StartedEvent).pid };
      } else if (event === 'stdout' || event === 'stderr') {
        const output = data as OutputEvent;
        yield { type: event, ...stamp(), data: textIn(output.data, output.encoding, options.encoding) };
      } else if (event === 'exit') {
        const end = data as CommandEnd;
        const result = resultOf(place, command, end, { stdout: '', stderr: '' });
        const told = end.timed_out ? timedOut(place, options, result) : result;
        if (told.stderr) yield { type: 'stderr', ...stamp(), data: told.stderr };
        yield { type: 'complete', ...stamp(), exitCode: told.exitCode, result: told };
      }
    }
  } catch (error) {
    if (!(error instanceof SandboxError)) throw error;
    yield { type: 'error', ...stamp(), error: error.message };
  }
}
