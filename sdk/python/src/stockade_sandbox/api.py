"""Written by sdk/generate.mjs from tests/openapi.json. Change that and run it again."""

# ruff: noqa: E501
from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from typing_extensions import NotRequired

AnswerInput = TypedDict(
    "AnswerInput",
    {
        "eof": NotRequired[bool],
        "value": NotRequired[Union[str, None]],
    },
)

StartedEvent = TypedDict(
    "StartedEvent",
    {
        "id": str,
        "pid": int,
    },
)

CommandEnd = TypedDict(
    "CommandEnd",
    {
        "duration_ms": float,
        "exit_code": int,
        "id": str,
        "oom_killed": NotRequired[bool],
        "signal": NotRequired[Union[str, None]],
        "timed_out": bool,
        "usage": NotRequired[Union["CommandUsage", None]],
    },
)

ErrorBody = TypedDict(
    "ErrorBody",
    {
        "code": "ErrorCode",
        "context": NotRequired[Union[dict[str, Any], None]],
        "hint": NotRequired[Union[str, None]],
        "message": str,
        "request_id": str,
    },
)

AttachEvent = dict[str, Any]

AwsCredential = TypedDict(
    "AwsCredential",
    {
        "access_key_id": NotRequired[Union[str, None]],
        "region": NotRequired[str],
        "secret_access_key": NotRequired[Union[str, None]],
        "service": NotRequired[str],
        "session_token": NotRequired[Union[str, None]],
    },
)

BasicCredential = TypedDict(
    "BasicCredential",
    {
        "password": NotRequired[Union[str, None]],
        "username": NotRequired[Union[str, None]],
    },
)

BuiltInImage = TypedDict(
    "BuiltInImage",
    {
        "description": str,
        "reference": str,
    },
)

CallerInfo = TypedDict(
    "CallerInfo",
    {
        "operator": bool,
        "uid": int,
    },
)

ChangeEnvironment = TypedDict(
    "ChangeEnvironment",
    {
        "set": NotRequired[dict[str, str]],
        "unset": NotRequired[list[str]],
    },
)

ChangeEvent = TypedDict(
    "ChangeEvent",
    {
        "directory": bool,
        "from": NotRequired[Union["PathText", None]],
        "path": "PathText",
    },
)

ChangeMode = TypedDict(
    "ChangeMode",
    {
        "mode": str,
        "path": "PathText",
        "user": NotRequired[Union[str, None]],
    },
)

ChangeOwner = TypedDict(
    "ChangeOwner",
    {
        "no_follow": NotRequired[bool],
        "owner": str,
        "path": "PathText",
        "user": NotRequired[Union[str, None]],
    },
)

ChangeStatus = Literal["unchanged", "changed", "resync"]

Changes = TypedDict(
    "Changes",
    {
        "cursor": str,
        "status": "ChangeStatus",
    },
)

ClearEvent = TypedDict(
    "ClearEvent",
    {
        "wait": bool,
    },
)

CloneRepository = TypedDict(
    "CloneRepository",
    {
        "branch": NotRequired[Union[str, None]],
        "depth": NotRequired[Union[int, None]],
        "password": NotRequired[Union[str, None]],
        "path": NotRequired[Union[str, None]],
        "recurse_submodules": NotRequired[bool],
        "timeout_ms": NotRequired[Union[int, None]],
        "token": NotRequired[Union[str, None]],
        "url": NotRequired[str],
        "user": NotRequired[Union[str, None]],
        "username": NotRequired[Union[str, None]],
    },
)

ClonedRepository = TypedDict(
    "ClonedRepository",
    {
        "branch": NotRequired[Union[str, None]],
        "commit": NotRequired[Union[str, None]],
        "duration_ms": float,
        "path": str,
    },
)

CodeEnd = TypedDict(
    "CodeEnd",
    {
        "duration_ms": float,
        "error": NotRequired[Union["CodeFailure", None]],
        "execution_count": NotRequired[Union[int, None]],
        "exit_code": NotRequired[Union[int, None]],
        "id": str,
        "interrupted": bool,
        "oom_killed": bool,
        "output_dropped": bool,
        "restarted": bool,
        "signal": NotRequired[Union[str, None]],
        "state_lost": bool,
        "timed_out": bool,
    },
)

CodeFailure = TypedDict(
    "CodeFailure",
    {
        "line": NotRequired[Union[int, None]],
        "message": str,
        "name": str,
        "traceback": list[str],
    },
)

CodeOutputEvent = TypedDict(
    "CodeOutputEvent",
    {
        "background": bool,
        "data": str,
        "encoding": "Encoding",
    },
)

RichOutput = TypedDict(
    "RichOutput",
    {
        "data": dict[str, Any],
        "main": NotRequired[bool],
        "metadata": dict[str, Any],
        "transient": dict[str, Any],
        "truncated": list[str],
        "update": bool,
    },
)

Encoding = Literal["utf-8", "base64"]

CodeTruncated = TypedDict(
    "CodeTruncated",
    {
        "results": bool,
        "stderr": bool,
        "stdout": bool,
    },
)

CodeResult = TypedDict(
    "CodeResult",
    {
        "duration_ms": float,
        "error": NotRequired[Union["CodeFailure", None]],
        "execution_count": NotRequired[Union[int, None]],
        "exit_code": NotRequired[Union[int, None]],
        "id": str,
        "interrupted": bool,
        "oom_killed": bool,
        "output_dropped": bool,
        "restarted": bool,
        "signal": NotRequired[Union[str, None]],
        "state_lost": bool,
        "timed_out": bool,
        "background": str,
        "results": list["RichOutput"],
        "stderr": str,
        "stderr_bytes": int,
        "stderr_encoding": "Encoding",
        "stdout": str,
        "stdout_bytes": int,
        "stdout_encoding": "Encoding",
        "truncated": "CodeTruncated",
    },
)

CommandList = TypedDict(
    "CommandList",
    {
        "commands": list["CommandView"],
    },
)

Written = TypedDict(
    "Written",
    {
        "stderr": str,
        "stderr_encoding": "Encoding",
        "stdout": str,
        "stdout_encoding": "Encoding",
        "truncated": "Truncated",
    },
)

CommandResult = TypedDict(
    "CommandResult",
    {
        "duration_ms": float,
        "exit_code": int,
        "id": str,
        "oom_killed": NotRequired[bool],
        "signal": NotRequired[Union[str, None]],
        "timed_out": bool,
        "usage": NotRequired[Union["CommandUsage", None]],
        "stderr": str,
        "stderr_encoding": "Encoding",
        "stdout": str,
        "stdout_encoding": "Encoding",
        "truncated": "Truncated",
    },
)

CommandUsage = TypedDict(
    "CommandUsage",
    {
        "resident_max_kib": int,
        "system_us": int,
        "user_us": int,
    },
)

CommandView = TypedDict(
    "CommandView",
    {
        "argv": list[str],
        "id": str,
        "pid": int,
        "started_at": str,
    },
)

ContextList = TypedDict(
    "ContextList",
    {
        "contexts": list["ContextView"],
    },
)

ContextView = TypedDict(
    "ContextView",
    {
        "busy": bool,
        "created_at": str,
        "cwd": str,
        "env": dict[str, str],
        "execution_count": int,
        "id": str,
        "input": NotRequired[Union["Prompt", None]],
        "language": "Language",
        "last_used_at": str,
        "pid": NotRequired[Union[int, None]],
        "timeout_ms": NotRequired[Union[int, None]],
        "user": str,
        "waiting": int,
    },
)

CopyFile = TypedDict(
    "CopyFile",
    {
        "from": "PathText",
        "overwrite": NotRequired[bool],
        "to": "PathText",
        "user": NotRequired[Union[str, None]],
    },
)

Counters = TypedDict(
    "Counters",
    {
        "allowed": int,
        "bytes_received": int,
        "bytes_sent": int,
        "connections_open": int,
        "denied": int,
        "failed": int,
        "limited": int,
        "names_asked": int,
    },
)

CreateContext = TypedDict(
    "CreateContext",
    {
        "cwd": NotRequired[Union[str, None]],
        "env": NotRequired[dict[str, str]],
        "id": NotRequired[Union[str, None]],
        "language": NotRequired[Union["Language", None]],
        "timeout_ms": NotRequired[Union[int, None]],
        "user": NotRequired[Union[str, None]],
    },
)

CreateSandbox = TypedDict(
    "CreateSandbox",
    {
        "cwd": NotRequired[Union[str, None]],
        "durability": NotRequired["Durability"],
        "env": NotRequired[dict[str, str]],
        "hostname": NotRequired[Union[str, None]],
        "id": NotRequired[Union[str, None]],
        "image": NotRequired[str],
        "labels": NotRequired[dict[str, str]],
        "lifecycle": NotRequired["Lifecycle"],
        "network": NotRequired[Union["NetworkPolicy", None]],
        "profile": NotRequired["Profile"],
        "resources": NotRequired["ResourceLimits"],
        "user": NotRequired[Union[str, None]],
    },
)

CreateSession = TypedDict(
    "CreateSession",
    {
        "cwd": NotRequired[Union[str, None]],
        "env": NotRequired[dict[str, str]],
        "id": NotRequired[Union[str, None]],
        "user": NotRequired[Union[str, None]],
    },
)

DaemonInfo = TypedDict(
    "DaemonInfo",
    {
        "api": str,
        "caller": "CallerInfo",
        "host": "Host",
        "preview": NotRequired[Union["PreviewInfo", None]],
        "sandboxes": int,
        "version": str,
    },
)

Durability = Literal["volatile", "durable"]

Environment = TypedDict(
    "Environment",
    {
        "env": dict[str, str],
    },
)

ErrorCode = Literal["INVALID_REQUEST", "INVALID_ID", "INVALID_REFERENCE", "BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED", "SANDBOX_NOT_FOUND", "SANDBOX_CONFLICT", "SANDBOX_BUSY", "SANDBOX_DEAD", "STOP_UNSUPPORTED", "COMMAND_NOT_FOUND", "PROCESS_NOT_FOUND", "PROCESS_CONFLICT", "PROCESS_EXITED", "STDIN_CLOSED", "WAIT_TIMEOUT", "SESSION_NOT_FOUND", "SESSION_EXISTS", "SESSION_ENDED", "SESSION_BUSY", "CONTEXT_NOT_FOUND", "CONTEXT_EXISTS", "CONTEXT_BUSY", "INPUT_NOT_WANTED", "LANGUAGE_NOT_IN_IMAGE", "TERMINAL_NOT_FOUND", "TERMINAL_EXISTS", "TERMINAL_ENDED", "COMMAND_NOT_IN_IMAGE", "COMMAND_NOT_EXECUTABLE", "INVALID_CWD", "USER_NOT_FOUND", "PROCESS_LIMIT", "FILE_NOT_FOUND", "FILE_EXISTS", "IS_DIRECTORY", "NOT_DIRECTORY", "DIRECTORY_NOT_EMPTY", "FILE_NOT_REGULAR", "FILE_DENIED", "PATH_INVALID", "PRECONDITION_FAILED", "RANGE_NOT_SATISFIABLE", "DISK_FULL", "FILE_TOO_LARGE", "FILE_BUSY", "CROSS_DEVICE", "ARCHIVE_INVALID", "FILE_TIMEOUT", "FILES_UNAVAILABLE", "WATCH_LIMIT", "PORT_CLOSED", "PORT_NOT_EXPOSED", "INVALID_TOKEN", "STALE_PREVIEW_URL", "PREVIEW_HOST_UNKNOWN", "SERVICE_TIMEOUT", "SERVICE_FAILED", "IMAGE_NOT_FOUND", "IMAGE_IN_USE", "IMAGE_INVALID", "PLATFORM_NOT_FOUND", "REGISTRY_DENIED", "REGISTRY_NOT_FOUND", "REGISTRY_UNREACHABLE", "GIT_NOT_IN_IMAGE", "GIT_REPOSITORY_NOT_FOUND", "GIT_BRANCH_NOT_FOUND", "GIT_DENIED", "GIT_UNREACHABLE", "GIT_DESTINATION_NOT_EMPTY", "GIT_TIMEOUT", "GIT_FAILED", "LIMIT_UNSUPPORTED", "HOST_UNSUPPORTED", "CAPACITY_EXHAUSTED", "PERMISSION_DENIED", "ISOLATION_MISMATCH", "SHUTTING_DOWN", "INTERNAL"]

Event = TypedDict(
    "Event",
    {
        "address": NotRequired[Union[str, None]],
        "allowed": bool,
        "count": int,
        "fix": NotRequired[Union[str, None]],
        "host": NotRequired[Union[str, None]],
        "port": NotRequired[Union[int, None]],
        "protocol": str,
        "rule": str,
        "seq": int,
        "subject": "Subject",
        "time_ms": int,
    },
)

ExposePort = TypedDict(
    "ExposePort",
    {
        "name": NotRequired[Union[str, None]],
        "port": int,
        "token": NotRequired[Union[str, None]],
        "wait_ms": NotRequired[Union[int, None]],
    },
)

PortView = TypedDict(
    "PortView",
    {
        "exposed_at": str,
        "name": NotRequired[Union[str, None]],
        "port": int,
        "token": str,
        "wait_ms": int,
    },
)

ExposedPort = TypedDict(
    "ExposedPort",
    {
        "exposed_at": str,
        "name": NotRequired[Union[str, None]],
        "port": int,
        "token": str,
        "wait_ms": int,
        "url": NotRequired[Union[str, None]],
    },
)

Extent = TypedDict(
    "Extent",
    {
        "dropped_stderr_bytes": int,
        "dropped_stdout_bytes": int,
        "end_cursor": int,
        "start_cursor": int,
    },
)

FileExists = TypedDict(
    "FileExists",
    {
        "exists": bool,
        "type": NotRequired[Union["FileType", None]],
    },
)

FileInfo = TypedDict(
    "FileInfo",
    {
        "changed_at": str,
        "etag": str,
        "gid": int,
        "links": int,
        "mime": NotRequired[Union[str, None]],
        "mode": str,
        "modified_at": str,
        "path": "PathText",
        "size": int,
        "target": NotRequired[Union["PathText", None]],
        "type": "FileType",
        "uid": int,
    },
)

FileList = TypedDict(
    "FileList",
    {
        "cursor": NotRequired[Union[str, None]],
        "entries": list["FileInfo"],
        "unreadable": int,
    },
)

FileType = Literal["file", "directory", "symlink", "fifo", "socket", "device"]

HeaderCredential = TypedDict(
    "HeaderCredential",
    {
        "name": NotRequired[str],
        "value": NotRequired[Union[str, None]],
    },
)

Health = TypedDict(
    "Health",
    {
        "status": str,
    },
)

Host = TypedDict(
    "Host",
    {
        "kernel": str,
        "landlock_abi": int,
        "limits": dict[str, str],
        "unenforced": list[str],
    },
)

Image = TypedDict(
    "Image",
    {
        "config": "ImageConfig",
        "config_digest": str,
        "created": NotRequired[Union[str, None]],
        "digest": str,
        "layers": list["Layer"],
        "platform": "Platform",
        "pulled_at": str,
        "reference": str,
        "size_bytes": int,
    },
)

ImageConfig = TypedDict(
    "ImageConfig",
    {
        "cmd": list[str],
        "entrypoint": list[str],
        "env": list[str],
        "user": str,
        "working_dir": str,
    },
)

ImageList = TypedDict(
    "ImageList",
    {
        "built_in": NotRequired[list["BuiltInImage"]],
        "images": list["Image"],
    },
)

ImageView = TypedDict(
    "ImageView",
    {
        "digest": NotRequired[Union[str, None]],
        "reference": str,
    },
)

Isolation = TypedDict(
    "Isolation",
    {
        "durability": "Durability",
        "host_id_count": int,
        "host_id_first": int,
        "landlock_abi": int,
        "limits": dict[str, "Limit"],
        "namespaces": dict[str, int],
        "no_new_privs": bool,
        "profile": "Profile",
        "relaxations": list[str],
        "root_capabilities": list[str],
        "seccomp_mode": int,
        "storage": str,
    },
)

Language = Literal["python", "javascript", "typescript", "bash"]

Layer = TypedDict(
    "Layer",
    {
        "diff_id": str,
        "digest": str,
        "size_bytes": int,
    },
)

Lifecycle = TypedDict(
    "Lifecycle",
    {
        "idle_timeout_ms": NotRequired[Union[int, None]],
        "keep_alive": NotRequired[bool],
        "processes_hold": NotRequired[bool],
        "ttl_ms": NotRequired[Union[int, None]],
    },
)

Limit = TypedDict(
    "Limit",
    {
        "enforced_by": str,
        "value": NotRequired[Union[int, None]],
    },
)

LogDropped = TypedDict(
    "LogDropped",
    {
        "bytes": int,
    },
)

LogEntry = TypedDict(
    "LogEntry",
    {
        "cursor": int,
        "data": str,
        "encoding": "Encoding",
        "stream": "Stream",
    },
)

LogMatch = TypedDict(
    "LogMatch",
    {
        "cursor": int,
        "groups": NotRequired[list[Union[str, None]]],
        "line": str,
        "stream": "Stream",
    },
)

LogPart = TypedDict(
    "LogPart",
    {
        "dropped_bytes": int,
        "entries": list["LogEntry"],
        "more": bool,
        "next_cursor": int,
        "running": bool,
    },
)

MakeDirectory = TypedDict(
    "MakeDirectory",
    {
        "mode": NotRequired[Union[str, None]],
        "parents": NotRequired[bool],
        "path": "PathText",
        "user": NotRequired[Union[str, None]],
    },
)

MakeSymlink = TypedDict(
    "MakeSymlink",
    {
        "path": "PathText",
        "target": "PathText",
        "user": NotRequired[Union[str, None]],
    },
)

Mode = Literal["none", "allow", "all"]

NetworkChange = TypedDict(
    "NetworkChange",
    {
        "added": list[str],
        "affected": list["NetworkEffect"],
        "dry_run": bool,
        "policy": "NetworkPolicy",
        "removed": list[str],
        "warnings": NotRequired[list[str]],
    },
)

NetworkEffect = TypedDict(
    "NetworkEffect",
    {
        "allowed": bool,
        "rule": str,
        "subject": "Subject",
        "target": str,
    },
)

NetworkEvents = TypedDict(
    "NetworkEvents",
    {
        "events": list["Event"],
        "next": int,
    },
)

NetworkHost = TypedDict(
    "NetworkHost",
    {
        "aws": NotRequired[Union["AwsCredential", None]],
        "basic": NotRequired[Union["BasicCredential", None]],
        "handler": NotRequired[Union[str, None]],
        "header": NotRequired[Union["HeaderCredential", None]],
        "host": NotRequired[str],
        "upgrade": NotRequired[bool],
    },
)

NetworkLimits = TypedDict(
    "NetworkLimits",
    {
        "bytes_per_second": NotRequired[Union[int, None]],
        "connections": NotRequired[Union[int, None]],
        "connections_per_second": NotRequired[Union[int, None]],
    },
)

NetworkPolicy = TypedDict(
    "NetworkPolicy",
    {
        "allow": NotRequired[list[str]],
        "deny": NotRequired[list[str]],
        "hosts": NotRequired[list["NetworkHost"]],
        "intercept": NotRequired[list[str]],
        "limits": NotRequired["NetworkLimits"],
        "mode": NotRequired[Union["Mode", None]],
    },
)

NetworkView = TypedDict(
    "NetworkView",
    {
        "counters": "Counters",
        "policy": "NetworkPolicy",
    },
)

OnExit = Literal["keep", "remove"]

OpenTerminal = TypedDict(
    "OpenTerminal",
    {
        "argv": NotRequired[Union[list[str], None]],
        "columns": NotRequired[int],
        "cwd": NotRequired[Union[str, None]],
        "env": NotRequired[dict[str, str]],
        "id": NotRequired[Union[str, None]],
        "rows": NotRequired[int],
        "session": NotRequired[Union[str, None]],
        "user": NotRequired[Union[str, None]],
    },
)

OutputEvent = TypedDict(
    "OutputEvent",
    {
        "data": str,
        "encoding": "Encoding",
    },
)

PathText = Union[str, dict[str, Any]]

Platform = TypedDict(
    "Platform",
    {
        "architecture": str,
        "os": str,
        "variant": NotRequired[Union[str, None]],
    },
)

PortList = TypedDict(
    "PortList",
    {
        "ports": list["ExposedPort"],
    },
)

PortMatch = TypedDict(
    "PortMatch",
    {
        "port": int,
        "status": NotRequired[Union[int, None]],
    },
)

PreviewInfo = TypedDict(
    "PreviewInfo",
    {
        "url": str,
    },
)

ProcessView = TypedDict(
    "ProcessView",
    {
        "argv": list[str],
        "cwd": str,
        "duration_ms": int,
        "ended_at": NotRequired[Union[str, None]],
        "exit_code": NotRequired[Union[int, None]],
        "failure": NotRequired[Union["ErrorCode", None]],
        "id": str,
        "log": "Extent",
        "log_bytes_max": int,
        "on_exit": "OnExit",
        "pid": int,
        "started_at": str,
        "state": "ProcessState",
        "stdin_open": bool,
        "timed_out": bool,
        "timeout_ms": NotRequired[Union[int, None]],
        "usage": NotRequired[Union["CommandUsage", None]],
        "user": str,
    },
)

Process = TypedDict(
    "Process",
    {
        "argv": list[str],
        "cwd": str,
        "duration_ms": int,
        "ended_at": NotRequired[Union[str, None]],
        "exit_code": NotRequired[Union[int, None]],
        "failure": NotRequired[Union["ErrorCode", None]],
        "id": str,
        "log": "Extent",
        "log_bytes_max": int,
        "on_exit": "OnExit",
        "pid": int,
        "started_at": str,
        "state": "ProcessState",
        "stdin_open": bool,
        "timed_out": bool,
        "timeout_ms": NotRequired[Union[int, None]],
        "usage": NotRequired[Union["CommandUsage", None]],
        "user": str,
        "signal": NotRequired[Union[str, None]],
    },
)

ProcessList = TypedDict(
    "ProcessList",
    {
        "processes": list["Process"],
    },
)

ProcessState = Literal["running", "exited", "failed", "lost"]

ProcessesKilled = TypedDict(
    "ProcessesKilled",
    {
        "killed": int,
    },
)

Profile = Literal["default", "hardened", "compat"]

Prompt = TypedDict(
    "Prompt",
    {
        "password": bool,
        "prompt": str,
    },
)

PullImage = TypedDict(
    "PullImage",
    {
        "ca_pem": NotRequired[Union[str, None]],
        "password": NotRequired[Union[str, None]],
        "plain_http": NotRequired[bool],
        "platform": NotRequired[Union[str, None]],
        "reference": NotRequired[str],
        "token": NotRequired[Union[str, None]],
        "username": NotRequired[Union[str, None]],
    },
)

RawBytes = str

RemoveFile = TypedDict(
    "RemoveFile",
    {
        "missing_ok": NotRequired[bool],
        "path": "PathText",
        "recursive": NotRequired[bool],
        "user": NotRequired[Union[str, None]],
    },
)

RenameFile = TypedDict(
    "RenameFile",
    {
        "from": "PathText",
        "overwrite": NotRequired[bool],
        "to": "PathText",
        "user": NotRequired[Union[str, None]],
    },
)

ResourceLimits = TypedDict(
    "ResourceLimits",
    {
        "cpu_weight": NotRequired[Union[int, None]],
        "cpus": NotRequired[Union[float, None]],
        "disk_bytes": NotRequired[Union[int, None]],
        "disk_files": NotRequired[Union[int, None]],
        "io_read_bytes_per_second": NotRequired[Union[int, None]],
        "io_read_operations_per_second": NotRequired[Union[int, None]],
        "io_write_bytes_per_second": NotRequired[Union[int, None]],
        "io_write_operations_per_second": NotRequired[Union[int, None]],
        "memory_bytes": NotRequired[Union[int, None]],
        "pids": NotRequired[Union[int, None]],
        "swap_bytes": NotRequired[Union[int, None]],
        "tmpfs_bytes": NotRequired[Union[int, None]],
    },
)

RunCode = TypedDict(
    "RunCode",
    {
        "code": NotRequired[str],
        "cwd": NotRequired[Union[str, None]],
        "detach": NotRequired[bool],
        "env": NotRequired[dict[str, str]],
        "output_bytes_max": NotRequired[Union[int, None]],
        "stdin": NotRequired[bool],
        "timeout_ms": NotRequired[Union[int, None]],
    },
)

RunCommand = TypedDict(
    "RunCommand",
    {
        "argv": NotRequired[Union[list[str], None]],
        "cwd": NotRequired[Union[str, None]],
        "env": NotRequired[dict[str, str]],
        "output_bytes_max": NotRequired[Union[int, None]],
        "shell": NotRequired[Union[str, None]],
        "stdin": NotRequired[Union[str, None]],
        "stdin_base64": NotRequired[Union[str, None]],
        "timeout_ms": NotRequired[Union[int, None]],
        "user": NotRequired[Union[str, None]],
    },
)

RunStartedEvent = TypedDict(
    "RunStartedEvent",
    {
        "id": str,
    },
)

SandboxList = TypedDict(
    "SandboxList",
    {
        "sandboxes": list["SandboxView"],
    },
)

SandboxView = TypedDict(
    "SandboxView",
    {
        "created_at": str,
        "cwd": str,
        "durability": "Durability",
        "env": dict[str, str],
        "hostname": str,
        "id": str,
        "image": "ImageView",
        "isolation": NotRequired[Union["Isolation", None]],
        "labels": dict[str, str],
        "lifecycle": "Lifecycle",
        "owner_uid": int,
        "pid": NotRequired[Union[int, None]],
        "profile": "Profile",
        "state": "State",
        "user": str,
    },
)

SearchFiles = TypedDict(
    "SearchFiles",
    {
        "glob": NotRequired[Union[str, None]],
        "hidden": NotRequired[bool],
        "ignore_case": NotRequired[bool],
        "limit": NotRequired[Union[int, None]],
        "path": "PathText",
        "regex": NotRequired[Union[str, None]],
        "text": NotRequired[Union[str, None]],
        "user": NotRequired[Union[str, None]],
    },
)

SearchMatch = TypedDict(
    "SearchMatch",
    {
        "column": int,
        "cut": bool,
        "encoding": "Encoding",
        "line": int,
        "path": "PathText",
        "text": str,
    },
)

SearchResult = TypedDict(
    "SearchResult",
    {
        "binary": int,
        "files": int,
        "long_lines": int,
        "matches": list["SearchMatch"],
        "truncated": bool,
        "unreadable": int,
    },
)

SendSignal = TypedDict(
    "SendSignal",
    {
        "signal": "SignalName",
    },
)

SessionList = TypedDict(
    "SessionList",
    {
        "sessions": list["SessionView"],
    },
)

SessionView = TypedDict(
    "SessionView",
    {
        "commands": int,
        "created_at": str,
        "cwd": str,
        "env": dict[str, str],
        "id": str,
        "pid": NotRequired[Union[int, None]],
        "user": str,
    },
)

SignalName = Union[int, str]

SignalProcess = TypedDict(
    "SignalProcess",
    {
        "signal": "SignalName",
        "tree": NotRequired[bool],
    },
)

SignalTerminal = TypedDict(
    "SignalTerminal",
    {
        "signal": "SignalName",
        "tree": NotRequired[bool],
    },
)

StartProcess = TypedDict(
    "StartProcess",
    {
        "argv": NotRequired[Union[list[str], None]],
        "cwd": NotRequired[Union[str, None]],
        "env": NotRequired[dict[str, str]],
        "id": NotRequired[Union[str, None]],
        "log_bytes_max": NotRequired[Union[int, None]],
        "on_exit": NotRequired["OnExit"],
        "shell": NotRequired[Union[str, None]],
        "stdin": NotRequired[bool],
        "timeout_ms": NotRequired[Union[int, None]],
        "user": NotRequired[Union[str, None]],
    },
)

State = Literal["running", "paused", "stopped", "dead"]

Stream = Literal["stdout", "stderr"]

Subject = Literal["name", "connection", "request"]

TerminalControl = TypedDict(
    "TerminalControl",
    {
        "resize": NotRequired[Union["TerminalSize", None]],
        "signal": NotRequired[Union["SignalName", None]],
    },
)

TerminalEvent = dict[str, Any]

TerminalList = TypedDict(
    "TerminalList",
    {
        "terminals": list["TerminalView"],
    },
)

TerminalSize = TypedDict(
    "TerminalSize",
    {
        "columns": int,
        "rows": int,
    },
)

TerminalView = TypedDict(
    "TerminalView",
    {
        "argv": list[str],
        "columns": int,
        "created_at": str,
        "cursor_first": int,
        "cursor_next": int,
        "exit_code": NotRequired[Union[int, None]],
        "id": str,
        "pid": int,
        "rows": int,
        "running": bool,
        "session": NotRequired[Union[str, None]],
        "viewers": int,
    },
)

Truncated = TypedDict(
    "Truncated",
    {
        "stderr": bool,
        "stdout": bool,
    },
)

WaitForExit = dict[str, Any]

WaitForLog = TypedDict(
    "WaitForLog",
    {
        "cursor": NotRequired[Union[int, None]],
        "regex": NotRequired[Union[str, None]],
        "stream": NotRequired[Union["Stream", None]],
        "text": NotRequired[Union[str, None]],
    },
)

WaitForPort = TypedDict(
    "WaitForPort",
    {
        "http": NotRequired[Union["WaitForHttp", None]],
        "port": int,
    },
)

WaitFor = dict[str, Any]

WaitForHttp = TypedDict(
    "WaitForHttp",
    {
        "path": NotRequired[str],
        "status_max": NotRequired[int],
        "status_min": NotRequired[int],
    },
)

WaitForProcess = TypedDict(
    "WaitForProcess",
    {
        "for": NotRequired[Union["WaitFor", None]],
        "timeout_ms": NotRequired[Union[int, None]],
    },
)

Waited = TypedDict(
    "Waited",
    {
        "log": NotRequired[Union["LogMatch", None]],
        "port": NotRequired[Union["PortMatch", None]],
        "process": "Process",
        "waited_ms": float,
    },
)

#: Method and path of every operation.
OPERATIONS: dict[str, tuple[str, str]] = {
    "getHealth": ("GET", "/v1/healthz"),
    "listImages": ("GET", "/v1/images"),
    "importImage": ("POST", "/v1/images/import"),
    "pullImage": ("POST", "/v1/images/pull"),
    "getImage": ("GET", "/v1/images/{reference}"),
    "deleteImage": ("DELETE", "/v1/images/{reference}"),
    "getInfo": ("GET", "/v1/info"),
    "getOpenapi": ("GET", "/v1/openapi.json"),
    "listSandboxes": ("GET", "/v1/sandboxes"),
    "createSandbox": ("POST", "/v1/sandboxes"),
    "getSandbox": ("GET", "/v1/sandboxes/{id}"),
    "destroySandbox": ("DELETE", "/v1/sandboxes/{id}"),
    "filesChanged": ("GET", "/v1/sandboxes/{id}/changes"),
    "listCommands": ("GET", "/v1/sandboxes/{id}/commands"),
    "runCommand": ("POST", "/v1/sandboxes/{id}/commands"),
    "attachCommand": ("GET", "/v1/sandboxes/{id}/commands/attach"),
    "signalCommand": ("POST", "/v1/sandboxes/{id}/commands/{command}/signal"),
    "listContexts": ("GET", "/v1/sandboxes/{id}/contexts"),
    "createContext": ("POST", "/v1/sandboxes/{id}/contexts"),
    "getContext": ("GET", "/v1/sandboxes/{id}/contexts/{context}"),
    "deleteContext": ("DELETE", "/v1/sandboxes/{id}/contexts/{context}"),
    "answerContext": ("POST", "/v1/sandboxes/{id}/contexts/{context}/input"),
    "interruptContext": ("POST", "/v1/sandboxes/{id}/contexts/{context}/interrupt"),
    "restartContext": ("POST", "/v1/sandboxes/{id}/contexts/{context}/restart"),
    "runCode": ("POST", "/v1/sandboxes/{id}/contexts/{context}/runs"),
    "getEnvironment": ("GET", "/v1/sandboxes/{id}/env"),
    "replaceEnvironment": ("PUT", "/v1/sandboxes/{id}/env"),
    "changeEnvironment": ("PATCH", "/v1/sandboxes/{id}/env"),
    "downloadArchive": ("GET", "/v1/sandboxes/{id}/files/archive"),
    "uploadArchive": ("PUT", "/v1/sandboxes/{id}/files/archive"),
    "changeMode": ("POST", "/v1/sandboxes/{id}/files/chmod"),
    "changeOwner": ("POST", "/v1/sandboxes/{id}/files/chown"),
    "readFile": ("GET", "/v1/sandboxes/{id}/files/content"),
    "writeFile": ("PUT", "/v1/sandboxes/{id}/files/content"),
    "copyFile": ("POST", "/v1/sandboxes/{id}/files/copy"),
    "fileExists": ("GET", "/v1/sandboxes/{id}/files/exists"),
    "listFiles": ("GET", "/v1/sandboxes/{id}/files/list"),
    "makeDirectory": ("POST", "/v1/sandboxes/{id}/files/mkdir"),
    "removeFile": ("POST", "/v1/sandboxes/{id}/files/remove"),
    "renameFile": ("POST", "/v1/sandboxes/{id}/files/rename"),
    "searchFiles": ("POST", "/v1/sandboxes/{id}/files/search"),
    "statFile": ("GET", "/v1/sandboxes/{id}/files/stat"),
    "makeSymlink": ("POST", "/v1/sandboxes/{id}/files/symlink"),
    "cloneRepository": ("POST", "/v1/sandboxes/{id}/git/clone"),
    "setLifecycle": ("PUT", "/v1/sandboxes/{id}/lifecycle"),
    "getNetwork": ("GET", "/v1/sandboxes/{id}/network"),
    "setNetwork": ("PUT", "/v1/sandboxes/{id}/network"),
    "listNetworkEvents": ("GET", "/v1/sandboxes/{id}/network/events"),
    "pauseSandbox": ("POST", "/v1/sandboxes/{id}/pause"),
    "listPorts": ("GET", "/v1/sandboxes/{id}/ports"),
    "exposePort": ("POST", "/v1/sandboxes/{id}/ports"),
    "getPort": ("GET", "/v1/sandboxes/{id}/ports/{port}"),
    "revokePort": ("DELETE", "/v1/sandboxes/{id}/ports/{port}"),
    "connectToPort": ("GET", "/v1/sandboxes/{id}/ports/{port}/connect"),
    "proxyToPort": ("GET", "/v1/sandboxes/{id}/ports/{port}/proxy/{path}"),
    "listProcesses": ("GET", "/v1/sandboxes/{id}/processes"),
    "startProcess": ("POST", "/v1/sandboxes/{id}/processes"),
    "killProcesses": ("DELETE", "/v1/sandboxes/{id}/processes"),
    "getProcess": ("GET", "/v1/sandboxes/{id}/processes/{process}"),
    "removeProcess": ("DELETE", "/v1/sandboxes/{id}/processes/{process}"),
    "readProcessLog": ("GET", "/v1/sandboxes/{id}/processes/{process}/logs"),
    "signalProcess": ("POST", "/v1/sandboxes/{id}/processes/{process}/signal"),
    "writeProcessStdin": ("POST", "/v1/sandboxes/{id}/processes/{process}/stdin"),
    "waitForProcess": ("POST", "/v1/sandboxes/{id}/processes/{process}/wait"),
    "listSessions": ("GET", "/v1/sandboxes/{id}/sessions"),
    "createSession": ("POST", "/v1/sandboxes/{id}/sessions"),
    "getSession": ("GET", "/v1/sandboxes/{id}/sessions/{session}"),
    "deleteSession": ("DELETE", "/v1/sandboxes/{id}/sessions/{session}"),
    "runInSession": ("POST", "/v1/sandboxes/{id}/sessions/{session}/commands"),
    "startSandbox": ("POST", "/v1/sandboxes/{id}/start"),
    "stopSandbox": ("POST", "/v1/sandboxes/{id}/stop"),
    "listTerminals": ("GET", "/v1/sandboxes/{id}/terminals"),
    "openTerminal": ("POST", "/v1/sandboxes/{id}/terminals"),
    "getTerminal": ("GET", "/v1/sandboxes/{id}/terminals/{terminal}"),
    "closeTerminal": ("DELETE", "/v1/sandboxes/{id}/terminals/{terminal}"),
    "attachTerminal": ("GET", "/v1/sandboxes/{id}/terminals/{terminal}/attach"),
    "resizeTerminal": ("POST", "/v1/sandboxes/{id}/terminals/{terminal}/resize"),
    "signalTerminal": ("POST", "/v1/sandboxes/{id}/terminals/{terminal}/signal"),
    "watchFiles": ("GET", "/v1/sandboxes/{id}/watch"),
}

#: The query parameters that every operation takes.
QUERIES: dict[str, frozenset[str]] = {
    "getHealth": frozenset(),
    "listImages": frozenset(),
    "importImage": frozenset({"reference"}),
    "pullImage": frozenset(),
    "getImage": frozenset(),
    "deleteImage": frozenset(),
    "getInfo": frozenset(),
    "getOpenapi": frozenset(),
    "listSandboxes": frozenset({"label"}),
    "createSandbox": frozenset(),
    "getSandbox": frozenset(),
    "destroySandbox": frozenset(),
    "filesChanged": frozenset({"path", "cursor", "recursive", "include", "exclude", "user"}),
    "listCommands": frozenset(),
    "runCommand": frozenset(),
    "attachCommand": frozenset({"destroy"}),
    "signalCommand": frozenset(),
    "listContexts": frozenset(),
    "createContext": frozenset(),
    "getContext": frozenset(),
    "deleteContext": frozenset(),
    "answerContext": frozenset(),
    "interruptContext": frozenset(),
    "restartContext": frozenset(),
    "runCode": frozenset(),
    "getEnvironment": frozenset(),
    "replaceEnvironment": frozenset(),
    "changeEnvironment": frozenset(),
    "downloadArchive": frozenset({"path", "user"}),
    "uploadArchive": frozenset({"path", "owners", "user"}),
    "changeMode": frozenset(),
    "changeOwner": frozenset(),
    "readFile": frozenset({"path", "user"}),
    "writeFile": frozenset({"path", "mode", "owner", "parents", "user"}),
    "copyFile": frozenset(),
    "fileExists": frozenset({"path", "user"}),
    "listFiles": frozenset({"path", "recursive", "hidden", "glob", "limit", "cursor", "user"}),
    "makeDirectory": frozenset(),
    "removeFile": frozenset(),
    "renameFile": frozenset(),
    "searchFiles": frozenset(),
    "statFile": frozenset({"path", "no_follow", "user"}),
    "makeSymlink": frozenset(),
    "cloneRepository": frozenset(),
    "setLifecycle": frozenset(),
    "getNetwork": frozenset(),
    "setNetwork": frozenset({"dry_run"}),
    "listNetworkEvents": frozenset({"after", "limit"}),
    "pauseSandbox": frozenset(),
    "listPorts": frozenset(),
    "exposePort": frozenset(),
    "getPort": frozenset(),
    "revokePort": frozenset(),
    "connectToPort": frozenset({"wait_ms"}),
    "proxyToPort": frozenset(),
    "listProcesses": frozenset(),
    "startProcess": frozenset(),
    "killProcesses": frozenset({"remove"}),
    "getProcess": frozenset(),
    "removeProcess": frozenset(),
    "readProcessLog": frozenset({"stream", "cursor", "limit_bytes"}),
    "signalProcess": frozenset(),
    "writeProcessStdin": frozenset({"close"}),
    "waitForProcess": frozenset(),
    "listSessions": frozenset(),
    "createSession": frozenset(),
    "getSession": frozenset(),
    "deleteSession": frozenset(),
    "runInSession": frozenset(),
    "startSandbox": frozenset(),
    "stopSandbox": frozenset(),
    "listTerminals": frozenset(),
    "openTerminal": frozenset(),
    "getTerminal": frozenset(),
    "closeTerminal": frozenset(),
    "attachTerminal": frozenset({"cursor"}),
    "resizeTerminal": frozenset(),
    "signalTerminal": frozenset(),
    "watchFiles": frozenset({"path", "recursive", "include", "exclude", "user"}),
}

Operation = Literal["getHealth", "listImages", "importImage", "pullImage", "getImage", "deleteImage", "getInfo", "getOpenapi", "listSandboxes", "createSandbox", "getSandbox", "destroySandbox", "filesChanged", "listCommands", "runCommand", "attachCommand", "signalCommand", "listContexts", "createContext", "getContext", "deleteContext", "answerContext", "interruptContext", "restartContext", "runCode", "getEnvironment", "replaceEnvironment", "changeEnvironment", "downloadArchive", "uploadArchive", "changeMode", "changeOwner", "readFile", "writeFile", "copyFile", "fileExists", "listFiles", "makeDirectory", "removeFile", "renameFile", "searchFiles", "statFile", "makeSymlink", "cloneRepository", "setLifecycle", "getNetwork", "setNetwork", "listNetworkEvents", "pauseSandbox", "listPorts", "exposePort", "getPort", "revokePort", "connectToPort", "proxyToPort", "listProcesses", "startProcess", "killProcesses", "getProcess", "removeProcess", "readProcessLog", "signalProcess", "writeProcessStdin", "waitForProcess", "listSessions", "createSession", "getSession", "deleteSession", "runInSession", "startSandbox", "stopSandbox", "listTerminals", "openTerminal", "getTerminal", "closeTerminal", "attachTerminal", "resizeTerminal", "signalTerminal", "watchFiles"]
