/** Passes WebSockets on to a server in the sandbox, which is started when it is not there. */
import { getSandbox, type FetchHandler, type Sandbox } from '@stockade/sandbox';
import { start, type Env } from './env.js';

const PORT = 8080;
/** A WebSocket server of Python's own library: it repeats what it hears, in capitals. */
const SERVER = `
import asyncio, base64, hashlib
async def client(reader, writer):
    head = (await reader.readuntil(b'\\r\\n\\r\\n')).decode()
    key = next(line.split(': ')[1] for line in head.split('\\r\\n') if line.lower().startswith('sec-websocket-key'))
    accept = base64.b64encode(hashlib.sha1((key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode()
    writer.write(f'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: {accept}\\r\\n\\r\\n'.encode())
    while (frame := await reader.readexactly(2))[0] & 15 != 8:
        mask, text = await reader.readexactly(4), await reader.readexactly(frame[1] & 127)
        text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(text)).upper()
        writer.write(bytes([0x81, len(text)]) + text)
    writer.close()
async def main():
    async with await asyncio.start_server(client, '127.0.0.1', ${PORT}) as server:
        await server.serve_forever()
asyncio.run(main())
`;

async function serving(sandbox: Sandbox): Promise<void> {
  if ((await sandbox.getProcess('echo'))?.status === 'running') return;
  await sandbox.writeFile('/workspace/echo.py', SERVER);
  const server = await sandbox.startProcess('exec python3 /workspace/echo.py', { processId: 'echo' });
  await server.waitForPort(PORT, { mode: 'tcp', timeout: 60_000 });
}

const handler: FetchHandler<Env> = {
  async fetch(request, env) {
    if (request.headers.get('Upgrade')?.toLowerCase() !== 'websocket') {
      return Response.json({ message: 'WebSocket endpoint' });
    }
    const sandbox = getSandbox(env.Sandbox, 'websocket');
    await serving(sandbox);
    return sandbox.wsConnect(request, PORT);
  },
};

export default handler;
await start(import.meta.url, handler);
