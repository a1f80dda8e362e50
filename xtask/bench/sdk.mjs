// One round of the client for TypeScript: run in a project that has it. Prints what took how long, in milliseconds.
import { Agent, request } from 'node:http';
import { getSandbox } from '@stockade/sandbox';

const [socket, id, calls, bytes] = [process.argv[2], process.argv[3], Number(process.argv[4]), Number(process.argv[5])];
const sandbox = getSandbox(socket, id);
const agent = new Agent({ keepAlive: true });

/** The same request without a client. */
const bare = () => new Promise((resolve, reject) => {
  request({ socketPath: socket, agent, path: `/v1/sandboxes/${id}` }, (answer) => {
    let text = '';
    answer.setEncoding('utf8').on('data', (part) => { text += part; }).on('end', () => resolve(JSON.parse(text)));
  }).on('error', reject).end();
});

const timed = async (act) => {
  const start = performance.now();
  await act();
  return performance.now() - start;
};

const median = (samples) => samples.sort((one, other) => one - other)[samples.length >> 1];

// In turn, so that what disturbs one disturbs the other.
const [without, with_] = [[], []];
for (let call = 0; call < calls * 2; call += 1) {
  const [one, other] = [await timed(bare), await timed(() => sandbox.info())];
  if (call >= calls) [without.push(one), with_.push(other)];
}
const data = Buffer.alloc(bytes, 'x');
const upload = await timed(() => sandbox.writeFile('/workspace/sdk', data));
let read;
const download = await timed(async () => { read = await sandbox.readBytes('/workspace/sdk'); });
if (!read.equals(data)) throw new Error('what was read is not what was written');
console.log(JSON.stringify({ bare: median(without), client: median(with_), upload, download }));
process.exit(0);
