/**
 * An analysis of data that somebody uploaded: numbers as JSON, and a chart as PNG. It needs nothing but Python; with code contexts
 * it would be a cell with pandas and matplotlib.
 */
import { getSandbox, type FetchHandler } from '@stockade/sandbox';
import { start, type Env } from './env.js';

const ANALYSIS = `
import csv, json, statistics, struct, zlib
rows = list(csv.DictReader(open('/workspace/sales.csv')))
totals = {}
for row in rows:
    totals[row['product']] = totals.get(row['product'], 0) + float(row['sales'])

width, height, gap = 320, 200, 12
bar = (width - gap) // len(totals) - gap
pixels = [bytearray(b'\\xff\\xff\\xff' * width) for _ in range(height)]
for number, value in enumerate(totals.values()):
    left = gap + number * (bar + gap)
    top = height - int((height - gap) * value / max(totals.values()))
    for line in pixels[top:]:
        line[left * 3:(left + bar) * 3] = bytes((40, 90, 200)) * bar

def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
with open('/workspace/chart.png', 'wb') as file:
    file.write(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)))
    file.write(chunk(b'IDAT', zlib.compress(b''.join(b'\\0' + line for line in pixels))) + chunk(b'IEND', b''))
print(json.dumps({'totals': totals, 'mean': statistics.mean(totals.values())}))
`;

const handler: FetchHandler<Env> = {
  /** POST a CSV with the columns product and sales; the chart comes as a data URL. */
  async fetch(request, env) {
    await using sandbox = getSandbox(env.Sandbox, `analysis-${Date.now()}`);
    await sandbox.writeFile('/workspace/sales.csv', await request.text());
    await sandbox.writeFile('/workspace/analysis.py', ANALYSIS);
    const { success, stdout, stderr } = await sandbox.exec('python3 analysis.py', { timeout: 30_000 });
    if (!success) return Response.json({ error: stderr }, { status: 422 });
    const chart = await sandbox.readFile('/workspace/chart.png');
    return Response.json({ ...JSON.parse(stdout), chart: `data:${chart.mimeType};base64,${chart.content}` });
  },
};

export default handler;
await start(import.meta.url, handler);
