"""Errors: what the daemon says, with its code, hint and request id, in classes that can be caught."""

from __future__ import annotations

from typing import Any, Optional


class StockadeError(Exception):
    """Anything that went wrong in or on the way to a sandbox."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: Optional[str] = None,
        context: Optional[dict[str, Any]] = None,
        request_id: Optional[str] = None,
        status: int = 0,
    ) -> None:
        super().__init__(message)
        #: One of the daemon's closed list, or `CONNECTION` or `NOT_SUPPORTED`, which are the client's.
        self.code = code
        self.message = message
        #: What to do about it.
        self.hint = hint
        #: The field, id or value it is about.
        self.context = context or {}
        #: The request, as the daemon's log names it.
        self.request_id = request_id
        #: Of HTTP; 0 when there was no answer.
        self.status = status

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.code}: {self.message}{hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes, among them those of a pool: exceptions are made again of what they print otherwise."""
        return _again, (type(self), self.args, self.__dict__.copy())


def _again(kind: type[StockadeError], args: tuple[Any, ...], state: dict[str, Any]) -> StockadeError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidRequestError(StockadeError):
    """A field, its type, size or value is wrong: `context["field"]` names it."""


class NotFoundError(StockadeError):
    """There is no such sandbox, file, process, session, terminal, port or image."""


class ConflictError(StockadeError):
    """Something is there already, or not in the state that is needed."""


class DeniedError(StockadeError):
    """The caller, or the sandbox's user, may not do this."""


class CommandNotStartedError(StockadeError):
    """The image has no such program, directory or user, or the program cannot be executed."""


class SessionEndedError(StockadeError):
    """The session's shell ended; `context` has its exit code and output. The next command starts it afresh."""


class WaitTimeoutError(StockadeError, TimeoutError):
    """What was waited for did not come in time."""


class ProcessExitedError(StockadeError):
    """The process ended first; `context` has its exit."""


class PortError(StockadeError):
    """Nobody listens on the port, or the server there does not answer as it should."""


class MountError(StockadeError):
    """The bucket's server does not answer as it should, or nothing can be mounted there."""


class UnavailableError(StockadeError):
    """The daemon or its host has no room, or is stopping."""


class ConnectionLostError(StockadeError, ConnectionError):
    """There is no daemon, or the connection broke: whether the operation was done is not known."""


class NotSupportedError(StockadeError):
    """The daemon has not what the method needs: `context["feature"]` names it, `hint` what to use instead."""


class CommandFailedError(StockadeError):
    """A command that was run with `check` ended with a code other than 0; `result` is all of it."""

    def __init__(self, result: Any) -> None:
        super().__init__("COMMAND_FAILED", f"the command ended with {result.exit_code}: {result.stderr[-500:]}")
        self.result = result


_CLASSES: dict[str, type[StockadeError]] = {
    "INVALID_REQUEST": InvalidRequestError,
    "INVALID_ID": InvalidRequestError,
    "INVALID_REFERENCE": InvalidRequestError,
    "BODY_TOO_LARGE": InvalidRequestError,
    "UNSUPPORTED_MEDIA_TYPE": InvalidRequestError,
    "PATH_INVALID": InvalidRequestError,
    "PORT_NOT_EXPOSED": NotFoundError,
    "FILE_DENIED": DeniedError,
    "PERMISSION_DENIED": DeniedError,
    "REGISTRY_DENIED": DeniedError,
    "GIT_DENIED": DeniedError,
    "BUCKET_DENIED": DeniedError,
    "DIRECTORY_DENIED": DeniedError,
    "MOUNT_POINT_INVALID": MountError,
    "BUCKET_UNREACHABLE": MountError,
    "BUCKET_WRONG_REGION": MountError,
    "BUCKET_BAD_CERTIFICATE": MountError,
    "BUCKET_NOT_S3": MountError,
    "COMMAND_NOT_IN_IMAGE": CommandNotStartedError,
    "COMMAND_NOT_EXECUTABLE": CommandNotStartedError,
    "INVALID_CWD": CommandNotStartedError,
    "USER_NOT_FOUND": CommandNotStartedError,
    "SESSION_ENDED": SessionEndedError,
    "WAIT_TIMEOUT": WaitTimeoutError,
    "PROCESS_EXITED": ProcessExitedError,
    "PORT_CLOSED": PortError,
    "SERVICE_TIMEOUT": PortError,
    "SERVICE_FAILED": PortError,
    "ROUTE_NOT_FOUND": NotSupportedError,
    "METHOD_NOT_ALLOWED": NotSupportedError,
    "CONNECTION": ConnectionLostError,
}
_BY_STATUS: dict[int, type[StockadeError]] = {404: NotFoundError, 409: ConflictError, 503: UnavailableError}


def from_body(body: dict[str, Any], status: int) -> StockadeError:
    """What the daemon answered, as an error."""
    code = str(body.get("code", "INTERNAL"))
    chosen = _CLASSES.get(code) or _BY_STATUS.get(status, StockadeError)
    return chosen(
        code,
        str(body.get("message", "")),
        hint=body.get("hint"),
        context=body.get("context"),
        request_id=body.get("request_id"),
        status=status,
    )
