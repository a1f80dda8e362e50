/**
 * Errors: the daemon's closed list of codes, and the classes and codes of the Cloudflare Sandbox SDK that they are for
 * programs written for that. Nothing is lost on the way: `daemonCode`, `hint`, `requestId` and `context` are the daemon's.
 */
import type { ErrorBody, ErrorCode as DaemonCode } from './api.js';

/** What an error says, in the envelope of the Cloudflare SDK. */
export interface ErrorResponse<Context = Record<string, unknown>> {
  code: string;
  message: string;
  context: Context;
  httpStatus: number;
  timestamp: string;
  operation?: string;
  suggestion?: string;
  documentation?: string;
}

/** Where an error of the daemon came from. */
export interface Origin {
  /** The daemon's own code. */
  daemonCode?: DaemonCode;
  /** The request, as the daemon's log names it. */
  requestId?: string;
  cause?: unknown;
}

/** Anything that went wrong in or on the way to a sandbox. */
export class SandboxError<Context = Record<string, unknown>> extends Error {
  readonly errorResponse: ErrorResponse<Context>;
  readonly daemonCode: DaemonCode | undefined;
  readonly requestId: string | undefined;

  constructor(errorResponse: ErrorResponse<Context>, origin: Origin = {}) {
    super(errorResponse.message, origin.cause === undefined ? undefined : { cause: origin.cause });
    this.name = new.target.name;
    this.errorResponse = errorResponse;
    this.daemonCode = origin.daemonCode;
    this.requestId = origin.requestId;
  }

  get code(): string { return this.errorResponse.code; }
  get context(): Context { return this.errorResponse.context; }
  get httpStatus(): number { return this.errorResponse.httpStatus; }
  get timestamp(): string { return this.errorResponse.timestamp; }
  get operation(): string | undefined { return this.errorResponse.operation; }
  get suggestion(): string | undefined { return this.errorResponse.suggestion; }
  get documentation(): string | undefined { return this.errorResponse.documentation; }
  /** The daemon's word for `suggestion`. */
  get hint(): string | undefined { return this.errorResponse.suggestion; }

  toJSON() {
    const { name, message, code, context, httpStatus, operation, suggestion, timestamp, documentation, stack, daemonCode, requestId } = this;
    return { name, message, code, context, httpStatus, operation, suggestion, timestamp, documentation, stack, daemonCode, requestId };
  }
}

/** An error of a class that says nothing about its context. */
type AnyError = SandboxError<Record<string, unknown>>;

/** Errors with parts of their context as properties, as there. */
function withContext<T extends object>(...names: (keyof T & string)[]) {
  class WithContext extends SandboxError {}
  for (const name of names) {
    Object.defineProperty(WithContext.prototype, name, { get(this: AnyError) { return this.context[name]; } });
  }
  return WithContext as unknown as new (errorResponse: ErrorResponse, origin?: Origin) => AnyError & Readonly<T>;
}

/** The same where the daemon does not always know all of it. */
const withSome = <T extends object>(...names: (keyof T & string)[]) => withContext<Partial<T>>(...names);

interface OfCommand { command: string; exitCode: number; stdout: string; stderr: string }
interface OfProcess { processId: string; pid: number; command: string; condition: string; timeout: number; exitCode: number }
interface OfPort { port: number; portName: string; reason: string }
interface OfRepository { repository: string; branch: string; targetDir: string }

export class ValidationFailedError extends withSome<{ field: string }>('field') {}
export class FileNotFoundError extends withSome<{ path: string }>('path') {}
export class FileExistsError extends withSome<{ path: string }>('path') {}
export class FileSystemError extends withSome<{ path: string }>('path') {}
export class FileTooLargeError extends withSome<{ path: string }>('path') {}
export class PermissionDeniedError extends withSome<{ path: string }>('path') {}
export class CommandError extends withSome<OfCommand>('command', 'exitCode', 'stdout', 'stderr') {}
export class InvalidProcessCwdError extends CommandError {}
export class CommandNotFoundError extends withSome<OfCommand>('command') {}
export class ProcessError extends withSome<OfProcess>('processId', 'pid', 'command', 'exitCode') {}
export class ProcessNotFoundError extends withSome<OfProcess>('processId') {}
export class ProcessReadyTimeoutError extends withContext<Pick<OfProcess, 'processId' | 'command' | 'condition' | 'timeout'>>('processId', 'command', 'condition', 'timeout') {}
export class ProcessExitedBeforeReadyError extends withContext<Pick<OfProcess, 'processId' | 'command' | 'condition' | 'exitCode'>>('processId', 'command', 'condition', 'exitCode') {}
export class SessionAlreadyExistsError extends withSome<{ sessionId: string }>('sessionId') {}
export class SessionDestroyedError extends withSome<{ sessionId: string }>('sessionId') {}
export class SessionTerminatedError extends withContext<{ sessionId: string; exitCode: number | null }>('sessionId', 'exitCode') {}
export class TerminalError extends SandboxError {}
export class TerminalNotFoundError extends SandboxError {}
export class TerminalControlError extends TerminalError {}
export class StaleTerminalHandleError extends TerminalError {}
export class PortError extends withSome<OfPort>('port', 'portName') {}
export class PortAlreadyExposedError extends withSome<OfPort>('port', 'portName') {}
export class PortInUseError extends withSome<OfPort>('port') {}
export class PortNotExposedError extends withSome<OfPort>('port') {}
export class InvalidPortError extends withSome<OfPort>('port', 'reason') {}
export class ServiceNotRespondingError extends withSome<OfPort>('port', 'portName') {}
export class CustomDomainRequiredError extends SandboxError {}
export class GitError extends withSome<OfRepository>('repository', 'branch', 'targetDir') {}
export class GitRepositoryNotFoundError extends withSome<OfRepository>('repository') {}
export class GitBranchNotFoundError extends withSome<OfRepository>('repository', 'branch') {}
export class GitAuthenticationError extends withSome<OfRepository>('repository') {}
export class GitNetworkError extends withSome<OfRepository>('repository', 'branch', 'targetDir') {}
export class GitCloneError extends withSome<OfRepository>('repository', 'branch', 'targetDir') {}
export class GitCheckoutError extends withSome<OfRepository>('repository', 'branch', 'targetDir') {}
export class InvalidGitUrlError extends withSome<OfRepository>('repository') {}
export class WatchError extends withSome<{ path: string }>('path') {}
export class InterpreterNotReadyError extends SandboxError {}
export class ContextNotFoundError extends withSome<{ contextId: string }>('contextId') {}
export class CodeExecutionError extends withSome<{ contextId: string }>('contextId') {}
export class BucketMountError extends SandboxError {}
export class BucketUnmountError extends BucketMountError {}
export class S3FSMountError extends BucketMountError {}
export class MissingCredentialsError extends BucketMountError {}
export class InvalidMountConfigError extends BucketMountError {}
export class BackupNotFoundError extends withContext<{ backupId: string }>('backupId') {}
export class BackupExpiredError extends withContext<{ backupId: string; expiredAt: string | undefined }>('backupId', 'expiredAt') {}
export class BackupCreateError extends withContext<{ dir: string; backupId: string | undefined }>('dir', 'backupId') {}
export class BackupRestoreError extends withContext<{ dir: string; backupId: string }>('dir', 'backupId') {}
export class InvalidBackupConfigError extends withContext<{ reason: string }>('reason') {}
export class ImageError extends SandboxError {}
/** Why there is no sandbox to do something in, in the words of that SDK. */
export type ContainerUnavailableReason =
  | 'container_starting' | 'container_unhealthy' | 'container_replaced' | 'rpc_upgrade_failed' | 'no_container_instance_available'
  | 'max_container_instances_exceeded' | 'container_unreachable';
export interface ContainerUnavailableContext {
  reason: ContainerUnavailableReason;
  /** Whether the same may be tried again as it is. Always true there. */
  retryable: boolean;
  retryAfterMs?: number;
  originalMessage?: string;
}
/** There is no such sandbox, or there cannot be one now. */
export class ContainerUnavailableError extends withContext<
  { reason: ContainerUnavailableReason; retryAfterMs: number | undefined }
>('reason', 'retryAfterMs') {}

export type RPCTransportErrorKind =
  | 'peer_closed' | 'connection_failed' | 'upgrade_failed' | 'invalid_frame' | 'protocol_error' | 'session_disposed' | 'unknown';
export interface RPCTransportContext {
  kind: RPCTransportErrorKind;
  originalMessage: string;
  errorName: string;
  closeCode?: number;
  closeReason?: string;
}
/** The connection broke before the whole answer came: whether the operation was done is not known. */
export class ConnectionError extends withContext<{ kind: RPCTransportErrorKind; originalMessage: string }>('kind', 'originalMessage') {}
/** The same by the name that it has there. */
export { ConnectionError as RPCTransportError };

// Those of version 1.0, which what `exec` gives for an argument vector and `createTerminal` throw.
/** The process of a handle is not there any more: somebody removed it, or the sandbox was destroyed. */
export class StaleProcessHandleError extends ProcessError {}
export class ProcessSpawnFailedError extends ProcessError {}
/** The connection to a command of `attach`, which ends with it, was left or broke. */
export class ProcessAbortedError extends ProcessError {}
export class ProcessWaitTimeoutError extends ProcessReadyTimeoutError {}
export class ProcessExitedBeforeLogError extends ProcessExitedBeforeReadyError {}
export class InvalidProcessEnvironmentError extends ValidationFailedError {}
export class InvalidProcessCursorError extends ValidationFailedError {}
export class InvalidTerminalCwdError extends TerminalError {}
export class InvalidTerminalCursorError extends TerminalError {}

export type OperationInterruptedReason = 'runtime_replaced' | 'transport_disposed' | 'sandbox_lifetime_changed' | 'recovery_exhausted';
export interface OperationInterruptedContext {
  reason: OperationInterruptedReason;
  operation: string;
  phase: string;
  admitted: boolean | 'unknown';
  retryable: boolean;
}
/**
 * For programs that ask `instanceof`: not thrown. What was refused was not begun, what a connection that broke leaves open is a
 * `ConnectionError`, and processes outlive a daemon that is started again. Nor are `BackupExpiredError` (a backup whose time is up is
 * removed, and not found), `PortAlreadyExposedError` and `PortInUseError` (exposing again is allowed, and gives a new token when one
 * is named), `S3FSMountError` (there is no s3fs), `GitError` and `GitCheckoutError` (a clone whose checkout fails has failed), and
 * `PortError`.
 */
export class OperationInterruptedError extends withContext<{ reason: OperationInterruptedReason }>('reason') {}
/** The daemon has not what the method needs. `context.feature` names it, and `suggestion` what to use instead. */
export class NotSupportedError extends SandboxError {}

export type ErrorClass = new (errorResponse: ErrorResponse, origin?: Origin) => SandboxError;

/** The daemon's code → the code and status of the Cloudflare SDK, and the class. Others keep their code and status. */
const NAMES: Partial<Record<string, readonly [string, number, ErrorClass]>> = {
  INVALID_REQUEST: ['VALIDATION_FAILED', 400, ValidationFailedError],
  INVALID_ID: ['VALIDATION_FAILED', 400, ValidationFailedError],
  INVALID_REFERENCE: ['VALIDATION_FAILED', 400, ValidationFailedError],
  UNSUPPORTED_MEDIA_TYPE: ['VALIDATION_FAILED', 415, ValidationFailedError],
  PATH_INVALID: ['VALIDATION_FAILED', 400, ValidationFailedError],
  BODY_TOO_LARGE: ['VALIDATION_FAILED', 413, ValidationFailedError],
  ROUTE_NOT_FOUND: ['NOT_SUPPORTED', 501, NotSupportedError],
  METHOD_NOT_ALLOWED: ['NOT_SUPPORTED', 501, NotSupportedError],
  SANDBOX_NOT_FOUND: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  SANDBOX_BUSY: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  SANDBOX_DEAD: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  CAPACITY_EXHAUSTED: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  HOST_UNSUPPORTED: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  QUOTA_EXCEEDED: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  SHUTTING_DOWN: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  COMMAND_NOT_IN_IMAGE: ['COMMAND_NOT_FOUND', 404, CommandNotFoundError],
  COMMAND_NOT_FOUND: ['COMMAND_NOT_FOUND', 404, CommandNotFoundError],
  COMMAND_NOT_EXECUTABLE: ['COMMAND_PERMISSION_DENIED', 403, CommandError],
  INVALID_CWD: ['INVALID_PROCESS_CWD', 400, InvalidProcessCwdError],
  USER_NOT_FOUND: ['INVALID_COMMAND', 400, CommandError],
  PROCESS_LIMIT: ['COMMAND_EXECUTION_ERROR', 500, CommandError],
  PROCESS_NOT_FOUND: ['PROCESS_NOT_FOUND', 404, ProcessNotFoundError],
  PROCESS_CONFLICT: ['PROCESS_ERROR', 500, ProcessError],
  PROCESS_EXITED: ['PROCESS_ERROR', 500, ProcessError],
  STDIN_CLOSED: ['PROCESS_ERROR', 500, ProcessError],
  WAIT_TIMEOUT: ['PROCESS_READY_TIMEOUT', 408, ProcessReadyTimeoutError],
  SESSION_EXISTS: ['SESSION_ALREADY_EXISTS', 409, SessionAlreadyExistsError],
  SESSION_NOT_FOUND: ['SESSION_DESTROYED', 410, SessionDestroyedError],
  SESSION_ENDED: ['SESSION_TERMINATED', 410, SessionTerminatedError],
  SESSION_BUSY: ['RESOURCE_BUSY', 409, CommandError],
  TERMINAL_NOT_FOUND: ['TERMINAL_NOT_FOUND', 404, TerminalNotFoundError],
  TERMINAL_EXISTS: ['TERMINAL_CONTROL_ERROR', 409, TerminalControlError],
  TERMINAL_ENDED: ['STALE_TERMINAL_HANDLE', 409, StaleTerminalHandleError],
  FILE_NOT_FOUND: ['FILE_NOT_FOUND', 404, FileNotFoundError],
  FILE_EXISTS: ['FILE_EXISTS', 409, FileExistsError],
  IS_DIRECTORY: ['IS_DIRECTORY', 400, FileSystemError],
  NOT_DIRECTORY: ['NOT_DIRECTORY', 400, FileSystemError],
  DISK_FULL: ['NO_SPACE', 500, FileSystemError],
  FILE_BUSY: ['RESOURCE_BUSY', 409, FileSystemError],
  FILES_UNAVAILABLE: ['RESOURCE_BUSY', 503, FileSystemError],
  FILE_TOO_LARGE: ['FILE_TOO_LARGE', 413, FileTooLargeError],
  FILE_DENIED: ['PERMISSION_DENIED', 403, PermissionDeniedError],
  PERMISSION_DENIED: ['PERMISSION_DENIED', 403, PermissionDeniedError],
  DIRECTORY_NOT_EMPTY: ['FILESYSTEM_ERROR', 500, FileSystemError],
  FILE_NOT_REGULAR: ['FILESYSTEM_ERROR', 500, FileSystemError],
  CROSS_DEVICE: ['FILESYSTEM_ERROR', 500, FileSystemError],
  ARCHIVE_INVALID: ['FILESYSTEM_ERROR', 500, FileSystemError],
  FILE_TIMEOUT: ['FILESYSTEM_ERROR', 500, FileSystemError],
  PRECONDITION_FAILED: ['PRECONDITION_FAILED', 412, FileSystemError],
  RANGE_NOT_SATISFIABLE: ['RANGE_NOT_SATISFIABLE', 416, FileSystemError],
  WATCH_LIMIT: ['WATCH_START_ERROR', 500, WatchError],
  PORT_NOT_EXPOSED: ['PORT_NOT_EXPOSED', 404, PortNotExposedError],
  PORT_CLOSED: ['SERVICE_NOT_RESPONDING', 502, ServiceNotRespondingError],
  SERVICE_TIMEOUT: ['SERVICE_NOT_RESPONDING', 502, ServiceNotRespondingError],
  SERVICE_FAILED: ['SERVICE_NOT_RESPONDING', 502, ServiceNotRespondingError],
  GIT_REPOSITORY_NOT_FOUND: ['GIT_REPOSITORY_NOT_FOUND', 404, GitRepositoryNotFoundError],
  GIT_BRANCH_NOT_FOUND: ['GIT_BRANCH_NOT_FOUND', 404, GitBranchNotFoundError],
  GIT_DENIED: ['GIT_AUTH_FAILED', 401, GitAuthenticationError],
  GIT_UNREACHABLE: ['GIT_NETWORK_ERROR', 502, GitNetworkError],
  GIT_TIMEOUT: ['GIT_NETWORK_ERROR', 502, GitNetworkError],
  GIT_NOT_IN_IMAGE: ['GIT_CLONE_FAILED', 500, GitCloneError],
  GIT_DESTINATION_NOT_EMPTY: ['GIT_CLONE_FAILED', 500, GitCloneError],
  GIT_FAILED: ['GIT_CLONE_FAILED', 500, GitCloneError],
  SNAPSHOT_NOT_FOUND: ['BACKUP_NOT_FOUND', 404, BackupNotFoundError],
  SNAPSHOT_UNSUPPORTED: ['BACKUP_CREATE_FAILED', 422, BackupCreateError],
  SNAPSHOT_MISMATCH: ['BACKUP_RESTORE_FAILED', 409, BackupRestoreError],
  IMAGE_NOT_FOUND: ['IMAGE_NOT_FOUND', 404, ImageError],
  IMAGE_IN_USE: ['IMAGE_IN_USE', 409, ImageError],
  IMAGE_INVALID: ['IMAGE_INVALID', 422, ImageError],
  PLATFORM_NOT_FOUND: ['PLATFORM_NOT_FOUND', 404, ImageError],
  REGISTRY_DENIED: ['REGISTRY_DENIED', 422, ImageError],
  REGISTRY_NOT_FOUND: ['REGISTRY_NOT_FOUND', 404, ImageError],
  REGISTRY_UNREACHABLE: ['REGISTRY_UNREACHABLE', 502, ImageError],
  CONTEXT_NOT_FOUND: ['CONTEXT_NOT_FOUND', 404, ContextNotFoundError],
  CONTEXT_BUSY: ['INTERPRETER_NOT_READY', 503, InterpreterNotReadyError],
  CONTEXT_EXISTS: ['VALIDATION_FAILED', 409, ValidationFailedError],
  INPUT_NOT_WANTED: ['CODE_EXECUTION_ERROR', 409, CodeExecutionError],
  LANGUAGE_NOT_IN_IMAGE: ['PYTHON_NOT_AVAILABLE', 501, CodeExecutionError],
  MOUNT_NOT_FOUND: ['BUCKET_UNMOUNT_ERROR', 500, BucketUnmountError],
  MOUNT_IN_USE: ['INVALID_MOUNT_CONFIG', 400, InvalidMountConfigError],
  MOUNT_POINT_INVALID: ['INVALID_MOUNT_CONFIG', 400, InvalidMountConfigError],
  DIRECTORY_DENIED: ['INVALID_MOUNT_CONFIG', 400, InvalidMountConfigError],
  BUCKET_NOT_FOUND: ['BUCKET_MOUNT_ERROR', 500, BucketMountError],
  BUCKET_DENIED: ['BUCKET_MOUNT_ERROR', 500, BucketMountError],
  BUCKET_UNREACHABLE: ['BUCKET_MOUNT_ERROR', 500, BucketMountError],
  BUCKET_WRONG_REGION: ['BUCKET_MOUNT_ERROR', 500, BucketMountError],
  BUCKET_BAD_CERTIFICATE: ['BUCKET_MOUNT_ERROR', 500, BucketMountError],
  BUCKET_NOT_S3: ['BUCKET_MOUNT_ERROR', 500, BucketMountError],
  INTERNAL: ['INTERNAL_ERROR', 500, SandboxError],
};

/** An error of the client's own. */
export function failure(
  Class: ErrorClass, code: string, message: string,
  more: Partial<ErrorResponse> & { cause?: unknown } = {},
): SandboxError {
  const { cause, ...rest } = more;
  const response: ErrorResponse = { code, message, context: {}, httpStatus: 500, timestamp: new Date().toISOString(), ...rest };
  return new Class(response, { cause });
}

/** The same error by another name: that of another generation of the SDK, or of what was asked. */
export function retold(error: SandboxError, Class: ErrorClass, code: string, httpStatus = error.httpStatus): SandboxError {
  const { errorResponse, daemonCode, requestId } = error;
  const origin: Origin = { cause: error, ...(daemonCode && { daemonCode }), ...(requestId && { requestId }) };
  return new Class({ ...errorResponse, code, httpStatus }, origin);
}

const NOT_THERE = new Set(['ENOENT', 'ECONNREFUSED', 'EACCES', 'ENOTSOCK']);

/** There is no connection, or there is none any more. */
export function lost(message: string, cause?: unknown, suggestion?: string): SandboxError {
  const { code, name = 'Error', message: originalMessage = message } = (cause ?? {}) as NodeJS.ErrnoException;
  const kind: RPCTransportErrorKind = code !== undefined && NOT_THERE.has(code) ? 'connection_failed' : 'peer_closed';
  const context = { kind, originalMessage, errorName: name, errno: code };
  return failure(ConnectionError, 'RPC_TRANSPORT_ERROR', message, { httpStatus: 503, context, cause, ...(suggestion && { suggestion }) });
}

/** What an operation was called with, as far as errors say what they are about. */
export interface Asked {
  path?: object | undefined;
  query?: object | undefined;
  body?: unknown;
}

/** The words of the API → those of the Cloudflare SDK. */
const ABOUT: Record<string, string> = {
  path: 'path', from: 'path', process: 'processId', session: 'sessionId', context: 'contextId', port: 'port', url: 'repository',
  branch: 'branch', shell: 'command', argv: 'command', language: 'language', snapshot: 'backupId',
};

/** Operations of the API → what that SDK calls them. Others keep their names. */
const OPERATIONS: Partial<Record<string, string>> = {
  readFile: 'file.read', writeFile: 'file.write', removeFile: 'file.delete', renameFile: 'file.rename', statFile: 'file.stat',
  makeDirectory: 'directory.create', listFiles: 'directory.list', runCommand: 'command.execute', runInSession: 'command.execute',
  startProcess: 'process.start', signalProcess: 'process.kill', listProcesses: 'process.list', getProcess: 'process.get',
  readProcessLog: 'process.logs', cloneRepository: 'git.clone', createSnapshot: 'backup.create', restoreSandbox: 'backup.restore',
  runCode: 'code.execute', createContext: 'code.context.create', deleteContext: 'code.context.delete',
};

/** Why there is no sandbox, and whether the same may be tried again. */
const UNAVAILABLE: Partial<Record<string, readonly [ContainerUnavailableReason, boolean]>> = {
  SANDBOX_NOT_FOUND: ['container_replaced', false],
  SANDBOX_BUSY: ['container_starting', true],
  SANDBOX_DEAD: ['container_unhealthy', false],
  CAPACITY_EXHAUSTED: ['no_container_instance_available', true],
  QUOTA_EXCEEDED: ['max_container_instances_exceeded', false],
  HOST_UNSUPPORTED: ['container_unreachable', false],
  SHUTTING_DOWN: ['container_replaced', true],
};

/** What an error is about: a path, a process, a command … Of a repository's URL not the credentials. */
function about({ path, query, body }: Asked): Record<string, unknown> {
  const given = { ...(typeof body === 'object' ? body : {}), ...query, ...path };
  const told: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    const word = ABOUT[name];
    if (word === undefined || value == null) continue;
    if (word === 'command') told[word] = Array.isArray(value) ? lineOf(value as string[]) : value;
    else told[word] = word === 'repository' ? String(value).replace(/\/\/[^/@]*@/, '//') : value;
  }
  return told;
}

/** A command line as it was given to `exec`. */
const lineOf = (argv: string[]): string => (argv.length === 3 && argv[1] === '-c' ? argv[2]! : argv.join(' '));

/** What is told otherwise in some operations: refusals of a field, and codes. */
const PARTICULAR: Partial<Record<string, readonly [string, number, ErrorClass]>> = {
  'cloneRepository url': ['INVALID_GIT_URL', 400, InvalidGitUrlError],
  'exposePort port': ['INVALID_PORT_NUMBER', 400, InvalidPortError],
  'openTerminal INVALID_CWD': ['INVALID_TERMINAL_CWD', 400, InvalidTerminalCwdError],
  'createSnapshot path': ['INVALID_BACKUP_CONFIG', 400, InvalidBackupConfigError],
  'restoreSandbox path': ['INVALID_BACKUP_CONFIG', 400, InvalidBackupConfigError],
  'restoreSandbox snapshot': ['INVALID_BACKUP_CONFIG', 400, InvalidBackupConfigError],
};

/** What is known about an error: what was asked, what the daemon says, and what programs for that SDK look for. */
function contextOf(body: ErrorBody, operation: string | undefined, asked: Asked): Record<string, unknown> {
  const context: Record<string, unknown> = { ...about(asked), ...body.context };
  if ('exit_code' in context) context['exitCode'] = context['exit_code'];
  const unavailable = UNAVAILABLE[body.code];
  if (unavailable) [context['reason'], context['retryable']] = unavailable;
  if (operation === 'createSnapshot' || operation === 'restoreSandbox') {
    context['dir'] = context['path'];
    context['reason'] ??= body.message;
  }
  return context;
}

/** What the daemon answered, as an error. */
export function fromDaemon(body: ErrorBody, status: number, operation?: string, asked: Asked = {}): SandboxError {
  const known = PARTICULAR[`${operation} ${body.code === 'INVALID_REQUEST' ? String(body.context?.['field']) : body.code}`];
  const context = contextOf(body, operation, asked);
  let [code, httpStatus, Class] = known ?? NAMES[body.code] ?? [body.code, status, SandboxError];
  if (code === 'PYTHON_NOT_AVAILABLE' && /script/.test(String(context['language'] ?? context['contextId']))) code = 'JAVASCRIPT_NOT_AVAILABLE';
  const { message } = body;
  const response: ErrorResponse = { code, message, context, httpStatus, timestamp: new Date().toISOString() };
  if (operation) response.operation = OPERATIONS[operation] ?? operation;
  if (body.hint) response.suggestion = body.hint;
  return new Class(response, { daemonCode: body.code, requestId: body.request_id });
}

/** What to throw for a method that this daemon has nothing for. */
export function notSupported(feature: string, suggestion: string): SandboxError {
  return failure(NotSupportedError, 'NOT_SUPPORTED', `this daemon does not have ${feature}`, {
    httpStatus: 501, context: { feature }, suggestion,
  });
}

/** What the daemon says too of an id that is taken by a sandbox with another specification. */
export function conflict(id: string, fields: string[]): SandboxError {
  const message = `the sandbox ${id} is there, with another ${fields.join(', ')}: that is decided when it is made`;
  const response: ErrorResponse = {
    code: 'SANDBOX_CONFLICT', message, context: { sandbox: id, fields }, httpStatus: 409, timestamp: new Date().toISOString(),
    suggestion: 'use another id, or destroy() that sandbox first',
  };
  return new SandboxError(response, { daemonCode: 'SANDBOX_CONFLICT' });
}

/** Whether an error is a passing one of the daemon, after which the same request may be sent again: nothing was done. */
export function isPlatformTransientError(error: unknown): boolean {
  return error instanceof SandboxError && (error.daemonCode === 'SHUTTING_DOWN' || error.daemonCode === 'SANDBOX_BUSY');
}
