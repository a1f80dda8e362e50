/** Runs a notebook cell; the value of its last line comes back by itself. */
import { getSandbox, type FetchHandler } from '@stockade/sandbox';
import { start, type Env } from './env.js';

const CELL = `
import pandas as pd
df = pd.DataFrame({'product': ['A', 'B', 'C'], 'sales': [100, 200, 150]})
df['sales'].sum()
`;

const handler: FetchHandler<Env> = {
  async fetch(_request, env) {
    const sandbox = getSandbox(env.Sandbox, 'code-interpreter');
    const context = await sandbox.createCodeContext({ language: 'python' });
    const { results, logs, error } = await sandbox.runCode(CELL, { context });
    return Response.json({ result: results[0]?.text, logs, error });
  },
};

export default handler;
await start(import.meta.url, handler);
