/**
 * Errors: the daemon's closed list of codes, and the classes and codes of the Cloudflare Sandbox SDK that they are for
 * programs written for that. Nothing is lost on the way: `daemonCode`, `hint`, `requestId` and `context` are the daemon's.
 */
import type { ErrorBody, ErrorCode as DaemonCode } from './api.js';

/** What an error says, in the envelope of the Cloudflare SDK. */
export interface ErrorResponse {
  code: string;
  message: string;
  context: Record<string, unknown>;
  httpStatus: number;
  timestamp: string;
  operation?: string;
  suggestion?: string;
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
export class SandboxError extends Error {
  readonly errorResponse: ErrorResponse;
  readonly daemonCode: DaemonCode | undefined;
  readonly requestId: string | undefined;

  constructor(errorResponse: ErrorResponse, origin: Origin = {}) {
    super(errorResponse.message, origin.cause === undefined ? undefined : { cause: origin.cause });
    this.name = new.target.name;
    this.errorResponse = errorResponse;
    this.daemonCode = origin.daemonCode;
    this.requestId = origin.requestId;
  }

  get code(): string { return this.errorResponse.code; }
  get context(): Record<string, unknown> { return this.errorResponse.context; }
  get httpStatus(): number { return this.errorResponse.httpStatus; }
  get timestamp(): string { return this.errorResponse.timestamp; }
  get operation(): string | undefined { return this.errorResponse.operation; }
  get suggestion(): string | undefined { return this.errorResponse.suggestion; }
  /** The daemon's word for `suggestion`. */
  get hint(): string | undefined { return this.errorResponse.suggestion; }

  toJSON(): Record<string, unknown> {
    const { name, message, daemonCode, requestId } = this;
    return { name, ...this.errorResponse, message, daemonCode, requestId };
  }
}

export class ValidationFailedError extends SandboxError {}
export class FileNotFoundError extends SandboxError {}
export class FileExistsError extends SandboxError {}
export class FileSystemError extends SandboxError {}
export class FileTooLargeError extends SandboxError {}
export class PermissionDeniedError extends SandboxError {}
export class CommandError extends SandboxError {}
export class CommandNotFoundError extends SandboxError {}
export class ProcessError extends SandboxError {}
export class ProcessNotFoundError extends SandboxError {}
export class ProcessReadyTimeoutError extends SandboxError {}
export class ProcessExitedBeforeReadyError extends SandboxError {}
export class SessionAlreadyExistsError extends SandboxError {}
export class SessionDestroyedError extends SandboxError {}
export class SessionTerminatedError extends SandboxError {}
export class TerminalError extends SandboxError {}
export class TerminalNotFoundError extends SandboxError {}
export class PortError extends SandboxError {}
export class PortAlreadyExposedError extends SandboxError {}
export class PortInUseError extends SandboxError {}
export class PortNotExposedError extends SandboxError {}
export class InvalidPortError extends SandboxError {}
export class ServiceNotRespondingError extends SandboxError {}
export class CustomDomainRequiredError extends SandboxError {}
export class GitError extends SandboxError {}
export class GitRepositoryNotFoundError extends SandboxError {}
export class GitBranchNotFoundError extends SandboxError {}
export class GitAuthenticationError extends SandboxError {}
export class GitNetworkError extends SandboxError {}
export class GitCloneError extends SandboxError {}
export class GitCheckoutError extends SandboxError {}
export class InvalidGitUrlError extends SandboxError {}
export class WatchError extends SandboxError {}
export class InterpreterNotReadyError extends SandboxError {}
export class ContextNotFoundError extends SandboxError {}
export class CodeExecutionError extends SandboxError {}
export class BucketMountError extends SandboxError {}
export class InvalidMountConfigError extends SandboxError {}
export class BackupNotFoundError extends SandboxError {}
export class BackupCreateError extends SandboxError {}
export class BackupRestoreError extends SandboxError {}
export class ImageError extends SandboxError {}
/** There is no such sandbox, or there cannot be one now. */
export class ContainerUnavailableError extends SandboxError {}
/** The connection broke before the whole answer came: whether the operation was done is not known. */
export class ConnectionError extends SandboxError {}
/** The daemon has not what the method needs. `context.feature` names it, and `suggestion` what to use instead. */
export class NotSupportedError extends SandboxError {}

type ErrorClass = new (errorResponse: ErrorResponse, origin?: Origin) => SandboxError;

/** The daemon's code → the code and status of the Cloudflare SDK, and the class. Others keep their code and status. */
const NAMES: Partial<Record<string, readonly [string, number, ErrorClass]>> = {
  INVALID_REQUEST: ['VALIDATION_FAILED', 400, ValidationFailedError],
  INVALID_ID: ['VALIDATION_FAILED', 400, ValidationFailedError],
  INVALID_REFERENCE: ['VALIDATION_FAILED', 400, ValidationFailedError],
  PATH_INVALID: ['VALIDATION_FAILED', 400, ValidationFailedError],
  BODY_TOO_LARGE: ['VALIDATION_FAILED', 413, ValidationFailedError],
  ROUTE_NOT_FOUND: ['NOT_SUPPORTED', 501, NotSupportedError],
  METHOD_NOT_ALLOWED: ['NOT_SUPPORTED', 501, NotSupportedError],
  SANDBOX_NOT_FOUND: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  SANDBOX_BUSY: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  SANDBOX_DEAD: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  CAPACITY_EXHAUSTED: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  HOST_UNSUPPORTED: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  SHUTTING_DOWN: ['CONTAINER_UNAVAILABLE', 503, ContainerUnavailableError],
  COMMAND_NOT_IN_IMAGE: ['COMMAND_NOT_FOUND', 404, CommandNotFoundError],
  COMMAND_NOT_FOUND: ['COMMAND_NOT_FOUND', 404, CommandNotFoundError],
  COMMAND_NOT_EXECUTABLE: ['COMMAND_PERMISSION_DENIED', 403, CommandError],
  INVALID_CWD: ['INVALID_PROCESS_CWD', 400, CommandError],
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
  TERMINAL_NOT_FOUND: ['TERMINAL_NOT_FOUND', 404, TerminalNotFoundError],
  TERMINAL_EXISTS: ['TERMINAL_CONTROL_ERROR', 409, TerminalError],
  TERMINAL_ENDED: ['STALE_TERMINAL_HANDLE', 409, TerminalError],
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

/** What the daemon answered, as an error. */
export function fromDaemon(body: ErrorBody, status: number, operation?: string): SandboxError {
  const [code, httpStatus, Class] = NAMES[body.code] ?? [body.code, status, SandboxError];
  const { message } = body;
  const response: ErrorResponse = { code, message, context: body.context ?? {}, httpStatus, timestamp: new Date().toISOString() };
  if (operation) response.operation = operation;
  if (body.hint) response.suggestion = body.hint;
  return new Class(response, { daemonCode: body.code, requestId: body.request_id });
}

/** What to throw for a method that this daemon has nothing for. */
export function notSupported(feature: string, suggestion: string): SandboxError {
  return failure(NotSupportedError, 'NOT_SUPPORTED', `this daemon does not have ${feature}`, {
    httpStatus: 501, context: { feature }, suggestion,
  });
}

/** Whether an error is a passing one of the daemon, after which the same request may be sent again: nothing was done. */
export function isPlatformTransientError(error: unknown): boolean {
  return error instanceof SandboxError && (error.daemonCode === 'SHUTTING_DOWN' || error.daemonCode === 'SANDBOX_BUSY');
}
