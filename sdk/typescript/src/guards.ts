/** Whether values are results of this client: the guards that the Cloudflare SDK exports. */
import type { ExecResult, Process, ProcessStatus } from './types.js';

const STATUSES: readonly string[] = ['starting', 'running', 'completed', 'failed', 'killed', 'error'] satisfies ProcessStatus[];

const has = (value: unknown, fields: Record<string, string>): boolean => typeof value === 'object' && value !== null
  && Object.entries(fields).every(([name, type]) => typeof (value as Record<string, unknown>)[name] === type);

export function isExecResult(value: unknown): value is ExecResult {
  return has(value, { success: 'boolean', exitCode: 'number', stdout: 'string', stderr: 'string' });
}

export function isProcessStatus(value: unknown): value is ProcessStatus {
  return typeof value === 'string' && STATUSES.includes(value);
}

export function isProcess(value: unknown): value is Process {
  return has(value, { id: 'string', command: 'string', kill: 'function' }) && isProcessStatus((value as Process).status);
}

/** Never: nothing here is reset when its code is updated. */
export function isDurableObjectCodeUpdateReset(_error: unknown): boolean {
  return false;
}
