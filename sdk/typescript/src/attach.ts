/** Commands with live input and output, over the daemon's WebSocket. */
import type { WebSocket } from 'ws';
import type { AttachEvent, CommandEnd, RunCommand, SendSignal } from './api.js';
import type { Core } from './core.js';
import { ProcessAbortedError, failure, fromDaemon } from './errors.js';
import { framesOf, socketOf } from './sockets.js';
import { target } from './transport.js';

const [STDIN, STDOUT] = [0, 1];

type Frames = ReturnType<typeof framesOf>;

/** A command that runs as long as this side stays: leaving its output kills it. */
export class RunningCommand {
  readonly id: string;
  readonly pid: number;
  /** How it ended. Comes when the output has been read to its end. */
  readonly exit: Promise<CommandEnd>;
  #socket: WebSocket;
  #frames: Frames;
  #ended!: (end: CommandEnd) => void;
  #failed!: (error: Error) => void;

  private constructor(socket: WebSocket, frames: Frames, id: string, pid: number) {
    this.#socket = socket;
    this.#frames = frames;
    this.id = id;
    this.pid = pid;
    this.exit = new Promise((resolve, reject) => {
      this.#ended = resolve;
      this.#failed = reject;
    });
    // Whoever reads the output hears of a failure there.
    this.exit.catch(() => undefined);
  }

  static async start(core: Core, command: RunCommand): Promise<RunningCommand> {
    await core.ensure();
    const socket = await socketOf(core, target('/v1/sandboxes/{id}/commands/attach', { id: core.id }, {}));
    socket.send(JSON.stringify(command));
    const frames = framesOf(socket);
    const first = await frames.next();
    const event = first.done ? undefined : (JSON.parse(first.value.data.toString()) as AttachEvent);
    if (event?.event === 'started') return new RunningCommand(socket, frames, event.id, event.pid);
    socket.terminate();
    if (event?.event === 'error') throw fromDaemon(event, 500, 'attachCommand');
    throw aborted();
  }

  /** Gives the command something to read. */
  write(data: string | Uint8Array): Promise<void> {
    return this.#send(Buffer.concat([Buffer.of(STDIN), Buffer.from(data as Uint8Array)]));
  }

  /** Ends its input. */
  end(): Promise<void> {
    return this.#send(Buffer.of(STDIN));
  }

  signal(signal: SendSignal['signal']): Promise<void> {
    return this.#send(JSON.stringify({ signal }));
  }

  /** Kills it, by leaving. */
  close(): void {
    this.#socket.terminate();
    this.#failed(aborted());
  }

  #send(frame: Buffer | string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.send(frame, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Its output, as it comes. */
  async *[Symbol.asyncIterator](): AsyncGenerator<{ stream: 'stdout' | 'stderr'; bytes: Buffer }, void, undefined> {
    try {
      for await (const { data, binary } of this.#frames) {
        if (binary) {
          yield { stream: data[0] === STDOUT ? 'stdout' : 'stderr', bytes: data.subarray(1) };
          continue;
        }
        const event = JSON.parse(data.toString()) as AttachEvent;
        if (event.event === 'error') throw fromDaemon(event, 500, 'attachCommand');
        if (event.event === 'exit') {
          this.#ended(event);
          return;
        }
      }
      throw aborted();
    } catch (error) {
      this.#failed(error as Error);
      throw error;
    } finally {
      this.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

const aborted = () => failure(ProcessAbortedError, 'PROCESS_ABORTED', 'the attachment ended before the command did');
