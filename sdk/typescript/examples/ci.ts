/** A build job: clones, then builds and tests side by side, with the logs of all of them as one stream. */
import { asyncIterableToSSEStream, getSandbox, type FetchHandler, type ProcessHandle, type Sandbox } from '@stockade/sandbox';
import { start, type Env } from './env.js';

export interface Line { step: string; text?: string; exitCode?: number }

/** The lines of a step, and its exit code last. */
async function* lines(step: string, process: ProcessHandle): AsyncGenerator<Line> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const { bytes } of process.output()) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    for (const text of parts) yield { step, text };
  }
  if (rest) yield { step, text: rest };
  yield { step, exitCode: process.exitCode ?? -1 };
}

/** What several give, in the order in which it comes. */
async function* merged<T>(sources: AsyncGenerator<T>[]): AsyncGenerator<T> {
  const next = (source: AsyncGenerator<T>) => source.next().then((result) => ({ source, result }));
  const waiting = new Map(sources.map((source) => [source, next(source)]));
  while (waiting.size > 0) {
    const { source, result } = await Promise.race(waiting.values());
    if (result.done) {
      waiting.delete(source);
      continue;
    }
    waiting.set(source, next(source));
    yield result.value;
  }
}

/** Clones, and runs the steps. `prepare` may put something into the sandbox before. */
export async function* job(
  env: Env, repository: string, steps: Record<string, string>, prepare?: (sandbox: Sandbox) => Promise<unknown>,
): AsyncGenerator<Line> {
  await using sandbox = getSandbox(env.Sandbox, `ci-${Date.now()}`, { network: { mode: 'all' } });
  await prepare?.(sandbox);
  const clone = await sandbox.gitCheckout(repository, { targetDir: '/workspace/src', depth: 1 });
  yield { step: 'clone', text: `${clone.branch} ${clone.commit}` };
  const processes = await Promise.all(Object.entries(steps).map(async ([step, command]) => {
    return lines(step, await sandbox.startProcess(command, { cwd: '/workspace/src' }));
  }));
  yield* merged(processes);
}

const handler: FetchHandler<Env> = {
  async fetch(request, env) {
    const { repository, steps } = (await request.json()) as { repository: string; steps: Record<string, string> };
    const stream = asyncIterableToSSEStream(job(env, repository, steps));
    return new Response(stream, { headers: { 'content-type': 'text/event-stream' } });
  },
};

export default handler;
await start(import.meta.url, handler);
