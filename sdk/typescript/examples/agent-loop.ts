/**
 * An agent that writes programs, runs them in a sandbox, and learns from what they say: the program of a language model is
 * never trusted, only read back. Any model fits; `scripted` stands in for one, and its first program is wrong.
 */
import { getSandbox, type FetchHandler, type Sandbox } from '@stockade/sandbox';
import { start, type Env } from './env.js';

/** Gives the next program, knowing what came of those before. */
export type Model = (task: string, history: readonly Attempt[]) => Promise<string>;
export interface Attempt { code: string; output: string; ok: boolean }

const ATTEMPTS_MAX = 5;
const TIMEOUT_MS = 10_000;

export async function solve(sandbox: Sandbox, model: Model, task: string): Promise<Attempt[]> {
  const history: Attempt[] = [];
  while (history.length < ATTEMPTS_MAX && !history.at(-1)?.ok) {
    const code = await model(task, history);
    await sandbox.writeFile('/workspace/attempt.py', code);
    const { success, stdout, stderr } = await sandbox.exec('python3 /workspace/attempt.py', { timeout: TIMEOUT_MS });
    history.push({ code, ok: success, output: success ? stdout : stderr });
  }
  return history;
}

const scripted: Model = async (_task, history) => {
  const last = history.at(-1);
  const numbers = last?.output.includes('NameError') ? 'range(1, 11)' : 'numbers';
  return `print(sum(n * n for n in ${numbers}))`;
};

const handler: FetchHandler<Env> = {
  async fetch(_request, env) {
    // A sandbox of one task: small, without network, and gone afterwards.
    await using sandbox = getSandbox(env.Sandbox, `agent-${Date.now()}`, { resources: { memory_bytes: 1 << 28, pids: 32 } });
    const history = await solve(sandbox, scripted, 'the sum of the squares from 1 to 10');
    return Response.json({ answer: history.at(-1)?.output.trim(), attempts: history.length });
  },
};

export default handler;
await start(import.meta.url, handler);
