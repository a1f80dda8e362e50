"""The client of Stockade: sandboxes for code that you do not trust.

    from stockade_sandbox import Sandbox

    with Sandbox.create() as sandbox:
        print(sandbox.run(["python3", "-c", "print(6*7)"]).stdout)

`AsyncSandbox` is the same for asyncio; `Stockade` and `AsyncStockade` are the daemon.
"""

from ._async.sandbox import AsyncAttachment, AsyncProcess, AsyncSandbox, AsyncSession, AsyncStockade, AsyncTerminal
from ._sync.sandbox import Attachment, Process, Sandbox, Session, Stockade, Terminal
from .errors import (
    CommandFailedError,
    CommandNotStartedError,
    ConflictError,
    ConnectionLostError,
    DeniedError,
    InvalidRequestError,
    MountError,
    NotFoundError,
    NotSupportedError,
    PortError,
    ProcessExitedError,
    SessionEndedError,
    StockadeError,
    UnavailableError,
    WaitTimeoutError,
)
from .outbound import OutboundRequest, OutboundResponse
from .results import Change, Changes, Clone, CodeError, CommandResult, Execution, ExposedPort, FileInfo, LogMatch, Output, Shown

__all__ = [
    "AsyncAttachment",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncSession",
    "AsyncStockade",
    "AsyncTerminal",
    "Attachment",
    "Change",
    "Changes",
    "Clone",
    "CodeError",
    "CommandFailedError",
    "CommandNotStartedError",
    "CommandResult",
    "ConflictError",
    "ConnectionLostError",
    "DeniedError",
    "Execution",
    "ExposedPort",
    "FileInfo",
    "InvalidRequestError",
    "MountError",
    "LogMatch",
    "NotFoundError",
    "NotSupportedError",
    "OutboundRequest",
    "OutboundResponse",
    "Output",
    "PortError",
    "Process",
    "ProcessExitedError",
    "Sandbox",
    "Session",
    "SessionEndedError",
    "Stockade",
    "Shown",
    "StockadeError",
    "Terminal",
    "UnavailableError",
    "WaitTimeoutError",
]
