/** What is refused before anything is sent. */
import { ValidationFailedError, failure, type SandboxError } from './errors.js';

export function invalid(field: string, message: string): SandboxError {
  return failure(ValidationFailedError, 'VALIDATION_FAILED', message, { httpStatus: 400, context: { field } });
}

/** A time in milliseconds. There is one rule for all of them: absent is the default, and nothing else stands for none. */
export function timeOf(field: string, milliseconds: number | null | undefined): number | undefined {
  if (milliseconds === undefined || milliseconds === null) return undefined;
  if (typeof milliseconds === 'number' && milliseconds > 0 && Number.isFinite(milliseconds)) return Math.ceil(milliseconds);
  throw invalid(field, `${field} is ${milliseconds}: give milliseconds above 0, or leave it out`);
}

/** Node's timers take no more, and take what is more for 1. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** Aborted when the time is up. */
export const within = (milliseconds: number): AbortSignal => AbortSignal.timeout(Math.min(milliseconds, TIMER_MAX_MS));

/** An id that somebody gave. An empty one would be taken for none. */
export function idOf(field: string, id: string | undefined): string | undefined {
  if (id === '') throw invalid(field, `${field} is empty`);
  return id;
}

/** Names of variables, as shells have them. */
export function checkNames(env: object): void {
  const wrong = Object.keys(env).find((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name));
  if (wrong !== undefined) throw invalid('env', `${JSON.stringify(wrong)} is no name of a variable`);
}

/** Text, bytes, or a stream of them. */
export function checkBody(content: unknown): void {
  if (typeof content === 'string' || content instanceof Uint8Array) return;
  if (typeof content === 'object' && content !== null && Symbol.asyncIterator in content) return;
  throw invalid('content', `content is ${content === null ? 'null' : typeof content}: give text, bytes, or a stream of bytes`);
}
