/** An analysis of data that somebody uploaded, in a code context with pandas and matplotlib: numbers as JSON, and a chart as PNG. */
import { getSandbox, type FetchHandler, type Sandbox } from '@stockade/sandbox';
import { start, type Env } from './env.js';

const TOTALS = `
import pandas as pd
totals = pd.read_csv('/workspace/sales.csv').groupby('product')['sales'].sum()
print(totals.to_json())
`;
const CHART = `
import matplotlib.pyplot as plt
totals.plot.bar(color=['#2a6f97', '#e09f3e', '#9e2a2b', '#588157'], title='Sales by product', rot=0, figsize=(4.8, 3))
plt.xlabel('')
plt.tight_layout()
plt.savefig('/workspace/chart.png')
`;

/** Runs cells, which share what they define, and gives what they print. */
async function analyse(sandbox: Sandbox, csv: string): Promise<unknown> {
  await sandbox.writeFile('/workspace/sales.csv', csv);
  const context = await sandbox.createCodeContext({ language: 'python' });
  let printed = '';
  for (const cell of [TOTALS, CHART]) {
    const { logs, error } = await sandbox.runCode(cell, { context, timeout: 30_000 });
    if (error) throw new Error(`${error.name}: ${error.message}`);
    printed += logs.stdout.join('');
  }
  return JSON.parse(printed);
}

const handler: FetchHandler<Env> = {
  /** POST a CSV with the columns product and sales; the chart comes as a data URL. */
  async fetch(request, env) {
    await using sandbox = getSandbox(env.Sandbox, `analysis-${Date.now()}`);
    try {
      const totals = await analyse(sandbox, await request.text());
      const chart = await sandbox.readFile('/workspace/chart.png');
      return Response.json({ totals, chart: `data:${chart.mimeType};base64,${chart.content}` });
    } catch (error) {
      return Response.json({ error: (error as Error).message }, { status: 422 });
    }
  },
};

export default handler;
await start(import.meta.url, handler);
