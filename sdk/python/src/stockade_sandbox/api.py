"""Written by sdk/generate.mjs from tests/openapi.json. Change that and run it again."""

# ruff: noqa: E501
from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from typing_extensions import NotRequired

AddMount = TypedDict(
    "AddMount",
    {
        "addressing": NotRequired[Union[str, None]],
        "attribute_ttl_ms": NotRequired[Union[int, None]],
        "bucket": NotRequired[Union[str, None]],
        "cache_bytes": NotRequired[Union[int, None]],
        "conditional_writes": NotRequired[bool],
        "credentials": NotRequired[Union["MountCredentials", None]],
        "dir_mode": NotRequired[Union[str, None]],
        "endpoint": NotRequired[Union[str, None]],
        "file_mode": NotRequired[Union[str, None]],
        "gid": NotRequired[Union[int, None]],
        "path": str,
        "prefix": NotRequired[Union[str, None]],
        "read_only": NotRequired[bool],
        "region": NotRequired[Union[str, None]],
        "uid": NotRequired[Union[int, None]],
    },
)

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
        "recording": NotRequired[Union[str, None]],
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

AuditLines = TypedDict(
    "AuditLines",
    {
        "head": str,
        "last": int,
        "lines": list["Line"],
    },
)

AuditRecord = TypedDict(
    "AuditRecord",
    {
        "at": str,
        "count": NotRequired[Union[int, None]],
        "digest": NotRequired[Union[str, None]],
        "gid": int,
        "operation": str,
        "pid": int,
        "previous": str,
        "request_id": NotRequired[Union[str, None]],
        "sandbox": NotRequired[Union[str, None]],
        "seq": int,
        "uid": int,
        "verdict": str,
    },
)

AwsCredential = TypedDict(
    "AwsCredential",
    {
        "access_key_id": NotRequired[Union[str, None]],
        "region": str,
        "secret_access_key": NotRequired[Union[str, None]],
        "service": str,
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

BucketObject = TypedDict(
    "BucketObject",
    {
        "addressing": NotRequired[Union[str, None]],
        "bucket": NotRequired[Union[str, None]],
        "credentials": NotRequired[Union["MountCredentials", None]],
        "endpoint": NotRequired[Union[str, None]],
        "key": str,
        "region": NotRequired[Union[str, None]],
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
        "url": str,
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
        "background": NotRequired[bool],
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
        "background": NotRequired[bool],
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

CodeRunList = TypedDict(
    "CodeRunList",
    {
        "runs": list["CodeRunView"],
    },
)

CodeRunView = TypedDict(
    "CodeRunView",
    {
        "created_at": str,
        "ended": bool,
        "id": str,
        "result": NotRequired[Union["CodeResult", None]],
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
        "recording": NotRequired[Union[str, None]],
    },
)

CommandUsage = TypedDict(
    "CommandUsage",
    {
        "involuntary_switches": int,
        "major_faults": int,
        "minor_faults": int,
        "read_bytes": int,
        "resident_max_kib": int,
        "system_us": int,
        "user_us": int,
        "voluntary_switches": int,
        "written_bytes": int,
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

CommitSandbox = TypedDict(
    "CommitSandbox",
    {
        "reference": str,
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

CpuUsage = TypedDict(
    "CpuUsage",
    {
        "limit_millis": NotRequired[Union[int, None]],
        "source": NotRequired[Union[str, None]],
        "system_us": NotRequired[Union[int, None]],
        "throttled_us": NotRequired[Union[int, None]],
        "usage_us": NotRequired[Union[int, None]],
        "user_us": NotRequired[Union[int, None]],
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
        "mounts": NotRequired[list["AddMount"]],
        "network": NotRequired[Union["NetworkPolicy", None]],
        "profile": NotRequired["Profile"],
        "resources": NotRequired["ResourceLimits"],
        "snapshot": NotRequired[Union[str, None]],
        "startup": NotRequired[list["StartupProcess"]],
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

CreateSnapshot = TypedDict(
    "CreateSnapshot",
    {
        "exclude": NotRequired[list[str]],
        "gitignore": NotRequired[bool],
        "labels": NotRequired[dict[str, str]],
        "name": NotRequired[Union[str, None]],
        "path": NotRequired[Union[str, None]],
        "ttl_ms": NotRequired[Union[int, None]],
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

DiskUsage = TypedDict(
    "DiskUsage",
    {
        "complete": bool,
        "files": int,
        "limit_bytes": NotRequired[Union[int, None]],
        "limit_files": NotRequired[Union[int, None]],
        "source": str,
        "used_bytes": int,
    },
)

Durability = Literal["volatile", "durable"]

Environment = TypedDict(
    "Environment",
    {
        "env": dict[str, str],
    },
)

ErrorCode = Literal["INVALID_REQUEST", "INVALID_ID", "INVALID_REFERENCE", "BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED", "SANDBOX_NOT_FOUND", "SANDBOX_CONFLICT", "SANDBOX_BUSY", "SANDBOX_DEAD", "STOP_UNSUPPORTED", "COMMAND_NOT_FOUND", "PROCESS_NOT_FOUND", "PROCESS_CONFLICT", "PROCESS_EXITED", "STDIN_CLOSED", "WAIT_TIMEOUT", "SESSION_NOT_FOUND", "SESSION_EXISTS", "SESSION_ENDED", "SESSION_BUSY", "CONTEXT_NOT_FOUND", "RUN_NOT_FOUND", "CONTEXT_EXISTS", "CONTEXT_BUSY", "INPUT_NOT_WANTED", "LANGUAGE_NOT_IN_IMAGE", "TERMINAL_NOT_FOUND", "TERMINAL_EXISTS", "TERMINAL_ENDED", "RECORDING_NOT_FOUND", "RECORDING_LIMIT", "COMMAND_NOT_IN_IMAGE", "COMMAND_NOT_EXECUTABLE", "INVALID_CWD", "USER_NOT_FOUND", "PROCESS_LIMIT", "FILE_NOT_FOUND", "FILE_EXISTS", "IS_DIRECTORY", "NOT_DIRECTORY", "DIRECTORY_NOT_EMPTY", "FILE_NOT_REGULAR", "FILE_DENIED", "PATH_INVALID", "PRECONDITION_FAILED", "RANGE_NOT_SATISFIABLE", "DISK_FULL", "FILE_TOO_LARGE", "FILE_BUSY", "CROSS_DEVICE", "ARCHIVE_INVALID", "FILE_TIMEOUT", "FILES_UNAVAILABLE", "WATCH_LIMIT", "PORT_CLOSED", "PORT_NOT_EXPOSED", "INVALID_TOKEN", "STALE_PREVIEW_URL", "PREVIEW_HOST_UNKNOWN", "SERVICE_TIMEOUT", "SERVICE_FAILED", "SNAPSHOT_NOT_FOUND", "SNAPSHOT_UNSUPPORTED", "SNAPSHOT_MISMATCH", "KEY_INVALID", "IMAGE_NOT_FOUND", "IMAGE_IN_USE", "IMAGE_INVALID", "PLATFORM_NOT_FOUND", "REGISTRY_DENIED", "REGISTRY_NOT_FOUND", "REGISTRY_UNREACHABLE", "GIT_NOT_IN_IMAGE", "GIT_REPOSITORY_NOT_FOUND", "GIT_BRANCH_NOT_FOUND", "GIT_DENIED", "GIT_UNREACHABLE", "GIT_DESTINATION_NOT_EMPTY", "GIT_TIMEOUT", "GIT_FAILED", "MOUNT_NOT_FOUND", "MOUNT_IN_USE", "MOUNT_POINT_INVALID", "DIRECTORY_DENIED", "BUCKET_NOT_FOUND", "BUCKET_DENIED", "BUCKET_UNREACHABLE", "BUCKET_WRONG_REGION", "BUCKET_BAD_CERTIFICATE", "BUCKET_NOT_S3", "LIMIT_UNSUPPORTED", "LIMIT_BELOW_USE", "HOST_UNSUPPORTED", "QUOTA_EXCEEDED", "CAPACITY_EXHAUSTED", "PERMISSION_DENIED", "ISOLATION_MISMATCH", "SHUTTING_DOWN", "INTERNAL"]

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

EventList = TypedDict(
    "EventList",
    {
        "events": list["Happened"],
        "lost": bool,
        "next": int,
    },
)

EventsLost = TypedDict(
    "EventsLost",
    {
        "after": int,
    },
)

ExportFormat = Literal["oci", "tar"]

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

ForkList = TypedDict(
    "ForkList",
    {
        "sandboxes": list["SandboxView"],
    },
)

ForkSandbox = TypedDict(
    "ForkSandbox",
    {
        "count": NotRequired[Union[int, None]],
        "ids": NotRequired[list[str]],
        "labels": NotRequired[Union[dict[str, str], None]],
    },
)

Happened = TypedDict(
    "Happened",
    {
        "at": str,
        "data": NotRequired[dict[str, Any]],
        "owner_uid": int,
        "sandbox": NotRequired[Union[str, None]],
        "seq": int,
        "type": "Kind",
    },
)

HeaderCredential = TypedDict(
    "HeaderCredential",
    {
        "name": str,
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
        "owner_uid": NotRequired[int],
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

IoUsage = TypedDict(
    "IoUsage",
    {
        "read_bytes": NotRequired[Union[int, None]],
        "read_operations": NotRequired[Union[int, None]],
        "source": NotRequired[Union[str, None]],
        "write_operations": NotRequired[Union[int, None]],
        "written_bytes": NotRequired[Union[int, None]],
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

Kind = Literal["sandbox.created", "sandbox.woken", "sandbox.stopped", "sandbox.paused", "sandbox.resumed", "sandbox.died", "sandbox.destroyed", "sandbox.restored", "sandbox.forked", "sandbox.exported", "command.started", "command.exited", "process.started", "process.exited", "memory.exhausted", "limits.changed", "lifecycle.changed", "network.changed", "port.exposed", "port.revoked", "mount.added", "mount.removed", "snapshot.created", "snapshot.deleted", "image.pulled", "image.imported", "image.committed", "image.removed"]

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

LimitChange = TypedDict(
    "LimitChange",
    {
        "after": NotRequired[Union[int, None]],
        "before": NotRequired[Union[int, None]],
        "limit": str,
    },
)

Line = TypedDict(
    "Line",
    {
        "hash": str,
        "record": "AuditRecord",
    },
)

LoadImage = TypedDict(
    "LoadImage",
    {
        "identity": NotRequired[Union[str, None]],
        "object": "BucketObject",
        "reference": NotRequired[Union[str, None]],
        "rootfs": NotRequired[bool],
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

MemoryUsage = TypedDict(
    "MemoryUsage",
    {
        "anonymous_bytes": NotRequired[Union[int, None]],
        "current_bytes": NotRequired[Union[int, None]],
        "file_bytes": NotRequired[Union[int, None]],
        "kernel_bytes": NotRequired[Union[int, None]],
        "limit_bytes": NotRequired[Union[int, None]],
        "oom_kills": NotRequired[Union[int, None]],
        "peak_bytes": NotRequired[Union[int, None]],
        "shared_bytes": NotRequired[Union[int, None]],
        "source": NotRequired[Union[str, None]],
        "swap_bytes": NotRequired[Union[int, None]],
    },
)

Mode = Literal["none", "allow", "all"]

MountCredentials = TypedDict(
    "MountCredentials",
    {
        "access_key_id": NotRequired[Union[str, None]],
        "anonymous": NotRequired[bool],
        "environment": NotRequired[bool],
        "profile": NotRequired[Union[str, None]],
        "secret_access_key": NotRequired[Union[str, None]],
        "session_token": NotRequired[Union[str, None]],
    },
)

MountList = TypedDict(
    "MountList",
    {
        "mounts": list["MountView"],
    },
)

MountState = Literal["mounted", "mounting", "failed", "stopped"]

MountStatus = TypedDict(
    "MountStatus",
    {
        "bytes_read": int,
        "bytes_written": int,
        "cache_bytes": int,
        "dirty_bytes": int,
        "dirty_files": int,
        "failing_uploads": int,
        "requests": int,
        "retries": int,
    },
)

MountTrouble = TypedDict(
    "MountTrouble",
    {
        "code": "ErrorCode",
        "message": str,
    },
)

MountView = TypedDict(
    "MountView",
    {
        "addressing": NotRequired[Union[str, None]],
        "bucket": NotRequired[Union[str, None]],
        "credentials": NotRequired[Union[str, None]],
        "endpoint": str,
        "error": NotRequired[Union["MountTrouble", None]],
        "gid": int,
        "id": str,
        "path": str,
        "prefix": NotRequired[Union[str, None]],
        "read_only": bool,
        "region": NotRequired[Union[str, None]],
        "state": "MountState",
        "status": NotRequired[Union["MountStatus", None]],
        "uid": int,
    },
)

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
        "host": str,
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

NetworkUsage = TypedDict(
    "NetworkUsage",
    {
        "allowed": int,
        "connections_open": int,
        "denied": int,
        "received_bytes": int,
        "sent_bytes": int,
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
        "record": NotRequired[Union["RecordSetting", None]],
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

PidsUsage = TypedDict(
    "PidsUsage",
    {
        "current": NotRequired[Union[int, None]],
        "limit": NotRequired[Union[int, None]],
        "peak": NotRequired[Union[int, None]],
        "source": NotRequired[Union[str, None]],
    },
)

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
        "reference": str,
        "token": NotRequired[Union[str, None]],
        "username": NotRequired[Union[str, None]],
    },
)

PushSandbox = TypedDict(
    "PushSandbox",
    {
        "ca_pem": NotRequired[Union[str, None]],
        "password": NotRequired[Union[str, None]],
        "plain_http": NotRequired[bool],
        "reference": str,
        "token": NotRequired[Union[str, None]],
        "username": NotRequired[Union[str, None]],
    },
)

Pushed = TypedDict(
    "Pushed",
    {
        "digest": str,
        "reference": str,
        "size_bytes": int,
    },
)

QuotaView = TypedDict(
    "QuotaView",
    {
        "cpu_millis": "Share",
        "disk_bytes": "Share",
        "image_bytes": "Share",
        "memory_bytes": "Share",
        "sandboxes": "Share",
        "snapshot_bytes": "Share",
        "snapshots": "Share",
        "uid": int,
    },
)

RawBytes = str

RecordOptions = TypedDict(
    "RecordOptions",
    {
        "input": NotRequired[bool],
    },
)

RecordSetting = Union[bool, "RecordOptions"]

RecordingList = TypedDict(
    "RecordingList",
    {
        "recordings": list["RecordingView"],
    },
)

RecordingView = TypedDict(
    "RecordingView",
    {
        "columns": int,
        "created_at": str,
        "duration_ms": float,
        "id": str,
        "input": bool,
        "left_out_bytes": int,
        "program": str,
        "recording": bool,
        "rows": int,
        "size_bytes": int,
        "terminal": NotRequired[Union[str, None]],
    },
)

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

ResourcesChange = TypedDict(
    "ResourcesChange",
    {
        "changes": list["LimitChange"],
        "dry_run": bool,
        "limits": dict[str, "Limit"],
        "warnings": list[str],
    },
)

RestoreSandbox = TypedDict(
    "RestoreSandbox",
    {
        "path": NotRequired[Union[str, None]],
        "snapshot": str,
    },
)

RollBackSandbox = TypedDict(
    "RollBackSandbox",
    {
        "snapshot": NotRequired[Union[str, None]],
    },
)

RunCode = TypedDict(
    "RunCode",
    {
        "code": str,
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
        "record": NotRequired[Union["RecordSetting", None]],
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

SandboxStats = TypedDict(
    "SandboxStats",
    {
        "at": str,
        "cpu": "CpuUsage",
        "disk": NotRequired[Union["DiskUsage", None]],
        "id": str,
        "io": "IoUsage",
        "memory": "MemoryUsage",
        "network": NotRequired[Union["NetworkUsage", None]],
        "pids": "PidsUsage",
        "state": "State",
        "unmeasured": list["Unmeasured"],
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

SaveMethod = Literal["stacked", "reflink", "copied", "archived"]

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

Share = TypedDict(
    "Share",
    {
        "allowed": NotRequired[Union[int, None]],
        "used": int,
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

SnapshotList = TypedDict(
    "SnapshotList",
    {
        "snapshots": list["SnapshotView"],
    },
)

SnapshotView = TypedDict(
    "SnapshotView",
    {
        "created_at": str,
        "entries": NotRequired[Union[int, None]],
        "expires_at": NotRequired[Union[str, None]],
        "id": str,
        "image": "ImageView",
        "labels": dict[str, str],
        "method": "SaveMethod",
        "name": NotRequired[Union[str, None]],
        "owner_uid": int,
        "path": NotRequired[Union[str, None]],
        "sandbox": NotRequired[Union[str, None]],
        "size_bytes": int,
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

StartupProcess = TypedDict(
    "StartupProcess",
    {
        "argv": NotRequired[Union[list[str], None]],
        "cwd": NotRequired[Union[str, None]],
        "env": NotRequired[dict[str, str]],
        "id": str,
        "shell": NotRequired[Union[str, None]],
        "user": NotRequired[Union[str, None]],
    },
)

State = Literal["running", "paused", "stopped", "dead"]

StatsList = TypedDict(
    "StatsList",
    {
        "sandboxes": list["SandboxStats"],
    },
)

StoreSandbox = TypedDict(
    "StoreSandbox",
    {
        "format": NotRequired["ExportFormat"],
        "object": "BucketObject",
        "recipient": NotRequired[Union[str, None]],
        "reference": NotRequired[Union[str, None]],
    },
)

StoredObject = TypedDict(
    "StoredObject",
    {
        "key": str,
        "size_bytes": int,
    },
)

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
        "recording": NotRequired[Union[str, None]],
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

Unmeasured = TypedDict(
    "Unmeasured",
    {
        "field": str,
        "why": str,
    },
)

Unmounted = TypedDict(
    "Unmounted",
    {
        "lost": list[str],
        "lost_count": int,
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
    "listAudit": ("GET", "/v1/audit"),
    "listEvents": ("GET", "/v1/events"),
    "getHealth": ("GET", "/v1/healthz"),
    "listImages": ("GET", "/v1/images"),
    "importImage": ("POST", "/v1/images/import"),
    "loadImage": ("POST", "/v1/images/load"),
    "pullImage": ("POST", "/v1/images/pull"),
    "deleteImage": ("DELETE", "/v1/images/{reference}"),
    "getImage": ("GET", "/v1/images/{reference}"),
    "getInfo": ("GET", "/v1/info"),
    "getMetrics": ("GET", "/v1/metrics"),
    "getOpenapi": ("GET", "/v1/openapi.json"),
    "getQuota": ("GET", "/v1/quota"),
    "listSandboxes": ("GET", "/v1/sandboxes"),
    "createSandbox": ("POST", "/v1/sandboxes"),
    "destroySandbox": ("DELETE", "/v1/sandboxes/{id}"),
    "getSandbox": ("GET", "/v1/sandboxes/{id}"),
    "filesChanged": ("GET", "/v1/sandboxes/{id}/changes"),
    "listCommands": ("GET", "/v1/sandboxes/{id}/commands"),
    "runCommand": ("POST", "/v1/sandboxes/{id}/commands"),
    "attachCommand": ("GET", "/v1/sandboxes/{id}/commands/attach"),
    "signalCommand": ("POST", "/v1/sandboxes/{id}/commands/{command}/signal"),
    "commitSandbox": ("POST", "/v1/sandboxes/{id}/commit"),
    "listContexts": ("GET", "/v1/sandboxes/{id}/contexts"),
    "createContext": ("POST", "/v1/sandboxes/{id}/contexts"),
    "deleteContext": ("DELETE", "/v1/sandboxes/{id}/contexts/{context}"),
    "getContext": ("GET", "/v1/sandboxes/{id}/contexts/{context}"),
    "answerContext": ("POST", "/v1/sandboxes/{id}/contexts/{context}/input"),
    "interruptContext": ("POST", "/v1/sandboxes/{id}/contexts/{context}/interrupt"),
    "restartContext": ("POST", "/v1/sandboxes/{id}/contexts/{context}/restart"),
    "listRuns": ("GET", "/v1/sandboxes/{id}/contexts/{context}/runs"),
    "runCode": ("POST", "/v1/sandboxes/{id}/contexts/{context}/runs"),
    "getRun": ("GET", "/v1/sandboxes/{id}/contexts/{context}/runs/{run}"),
    "getEnvironment": ("GET", "/v1/sandboxes/{id}/env"),
    "changeEnvironment": ("PATCH", "/v1/sandboxes/{id}/env"),
    "replaceEnvironment": ("PUT", "/v1/sandboxes/{id}/env"),
    "exportSandbox": ("GET", "/v1/sandboxes/{id}/export"),
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
    "forkSandbox": ("POST", "/v1/sandboxes/{id}/fork"),
    "cloneRepository": ("POST", "/v1/sandboxes/{id}/git/clone"),
    "setLifecycle": ("PUT", "/v1/sandboxes/{id}/lifecycle"),
    "listMounts": ("GET", "/v1/sandboxes/{id}/mounts"),
    "mount": ("POST", "/v1/sandboxes/{id}/mounts"),
    "unmount": ("DELETE", "/v1/sandboxes/{id}/mounts/{mount}"),
    "getMount": ("GET", "/v1/sandboxes/{id}/mounts/{mount}"),
    "getNetwork": ("GET", "/v1/sandboxes/{id}/network"),
    "setNetwork": ("PUT", "/v1/sandboxes/{id}/network"),
    "listNetworkEvents": ("GET", "/v1/sandboxes/{id}/network/events"),
    "pauseSandbox": ("POST", "/v1/sandboxes/{id}/pause"),
    "listPorts": ("GET", "/v1/sandboxes/{id}/ports"),
    "exposePort": ("POST", "/v1/sandboxes/{id}/ports"),
    "revokePort": ("DELETE", "/v1/sandboxes/{id}/ports/{port}"),
    "getPort": ("GET", "/v1/sandboxes/{id}/ports/{port}"),
    "connectToPort": ("GET", "/v1/sandboxes/{id}/ports/{port}/connect"),
    "proxyToPort": ("GET", "/v1/sandboxes/{id}/ports/{port}/proxy/{path}"),
    "killProcesses": ("DELETE", "/v1/sandboxes/{id}/processes"),
    "listProcesses": ("GET", "/v1/sandboxes/{id}/processes"),
    "startProcess": ("POST", "/v1/sandboxes/{id}/processes"),
    "removeProcess": ("DELETE", "/v1/sandboxes/{id}/processes/{process}"),
    "getProcess": ("GET", "/v1/sandboxes/{id}/processes/{process}"),
    "readProcessLog": ("GET", "/v1/sandboxes/{id}/processes/{process}/logs"),
    "signalProcess": ("POST", "/v1/sandboxes/{id}/processes/{process}/signal"),
    "writeProcessStdin": ("POST", "/v1/sandboxes/{id}/processes/{process}/stdin"),
    "waitForProcess": ("POST", "/v1/sandboxes/{id}/processes/{process}/wait"),
    "pushSandbox": ("POST", "/v1/sandboxes/{id}/push"),
    "listRecordings": ("GET", "/v1/sandboxes/{id}/recordings"),
    "deleteRecording": ("DELETE", "/v1/sandboxes/{id}/recordings/{recording}"),
    "getRecording": ("GET", "/v1/sandboxes/{id}/recordings/{recording}"),
    "changeResources": ("PATCH", "/v1/sandboxes/{id}/resources"),
    "restoreSandbox": ("POST", "/v1/sandboxes/{id}/restore"),
    "rollBackSandbox": ("POST", "/v1/sandboxes/{id}/rollback"),
    "listSessions": ("GET", "/v1/sandboxes/{id}/sessions"),
    "createSession": ("POST", "/v1/sandboxes/{id}/sessions"),
    "deleteSession": ("DELETE", "/v1/sandboxes/{id}/sessions/{session}"),
    "getSession": ("GET", "/v1/sandboxes/{id}/sessions/{session}"),
    "runInSession": ("POST", "/v1/sandboxes/{id}/sessions/{session}/commands"),
    "listSandboxSnapshots": ("GET", "/v1/sandboxes/{id}/snapshots"),
    "createSnapshot": ("POST", "/v1/sandboxes/{id}/snapshots"),
    "startSandbox": ("POST", "/v1/sandboxes/{id}/start"),
    "getStats": ("GET", "/v1/sandboxes/{id}/stats"),
    "stopSandbox": ("POST", "/v1/sandboxes/{id}/stop"),
    "storeSandbox": ("POST", "/v1/sandboxes/{id}/store"),
    "listTerminals": ("GET", "/v1/sandboxes/{id}/terminals"),
    "openTerminal": ("POST", "/v1/sandboxes/{id}/terminals"),
    "closeTerminal": ("DELETE", "/v1/sandboxes/{id}/terminals/{terminal}"),
    "getTerminal": ("GET", "/v1/sandboxes/{id}/terminals/{terminal}"),
    "attachTerminal": ("GET", "/v1/sandboxes/{id}/terminals/{terminal}/attach"),
    "resizeTerminal": ("POST", "/v1/sandboxes/{id}/terminals/{terminal}/resize"),
    "signalTerminal": ("POST", "/v1/sandboxes/{id}/terminals/{terminal}/signal"),
    "watchFiles": ("GET", "/v1/sandboxes/{id}/watch"),
    "listSnapshots": ("GET", "/v1/snapshots"),
    "uploadSnapshot": ("POST", "/v1/snapshots"),
    "deleteSnapshot": ("DELETE", "/v1/snapshots/{id}"),
    "getSnapshot": ("GET", "/v1/snapshots/{id}"),
    "downloadSnapshot": ("GET", "/v1/snapshots/{id}/archive"),
    "listStats": ("GET", "/v1/stats"),
}

#: The query parameters that every operation takes.
QUERIES: dict[str, frozenset[str]] = {
    "listAudit": frozenset({"after", "limit", "sandbox"}),
    "listEvents": frozenset({"sandbox", "type", "after", "limit"}),
    "getHealth": frozenset(),
    "listImages": frozenset(),
    "importImage": frozenset({"reference", "rootfs"}),
    "loadImage": frozenset(),
    "pullImage": frozenset(),
    "deleteImage": frozenset(),
    "getImage": frozenset(),
    "getInfo": frozenset(),
    "getMetrics": frozenset(),
    "getOpenapi": frozenset(),
    "getQuota": frozenset(),
    "listSandboxes": frozenset({"label"}),
    "createSandbox": frozenset(),
    "destroySandbox": frozenset(),
    "getSandbox": frozenset(),
    "filesChanged": frozenset({"path", "cursor", "recursive", "include", "exclude", "user"}),
    "listCommands": frozenset(),
    "runCommand": frozenset(),
    "attachCommand": frozenset({"destroy"}),
    "signalCommand": frozenset(),
    "commitSandbox": frozenset(),
    "listContexts": frozenset(),
    "createContext": frozenset(),
    "deleteContext": frozenset(),
    "getContext": frozenset(),
    "answerContext": frozenset(),
    "interruptContext": frozenset(),
    "restartContext": frozenset(),
    "listRuns": frozenset(),
    "runCode": frozenset(),
    "getRun": frozenset({"wait_ms"}),
    "getEnvironment": frozenset(),
    "changeEnvironment": frozenset(),
    "replaceEnvironment": frozenset(),
    "exportSandbox": frozenset({"format", "reference", "recipient"}),
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
    "forkSandbox": frozenset(),
    "cloneRepository": frozenset(),
    "setLifecycle": frozenset(),
    "listMounts": frozenset(),
    "mount": frozenset(),
    "unmount": frozenset({"timeout_ms"}),
    "getMount": frozenset(),
    "getNetwork": frozenset(),
    "setNetwork": frozenset({"dry_run"}),
    "listNetworkEvents": frozenset({"after", "limit"}),
    "pauseSandbox": frozenset(),
    "listPorts": frozenset(),
    "exposePort": frozenset(),
    "revokePort": frozenset(),
    "getPort": frozenset(),
    "connectToPort": frozenset({"wait_ms"}),
    "proxyToPort": frozenset(),
    "killProcesses": frozenset({"remove"}),
    "listProcesses": frozenset(),
    "startProcess": frozenset(),
    "removeProcess": frozenset(),
    "getProcess": frozenset(),
    "readProcessLog": frozenset({"stream", "cursor", "limit_bytes"}),
    "signalProcess": frozenset(),
    "writeProcessStdin": frozenset({"close"}),
    "waitForProcess": frozenset(),
    "pushSandbox": frozenset(),
    "listRecordings": frozenset(),
    "deleteRecording": frozenset(),
    "getRecording": frozenset(),
    "changeResources": frozenset({"dry_run"}),
    "restoreSandbox": frozenset(),
    "rollBackSandbox": frozenset(),
    "listSessions": frozenset(),
    "createSession": frozenset(),
    "deleteSession": frozenset(),
    "getSession": frozenset(),
    "runInSession": frozenset(),
    "listSandboxSnapshots": frozenset(),
    "createSnapshot": frozenset(),
    "startSandbox": frozenset(),
    "getStats": frozenset({"disk", "interval_ms"}),
    "stopSandbox": frozenset(),
    "storeSandbox": frozenset(),
    "listTerminals": frozenset(),
    "openTerminal": frozenset(),
    "closeTerminal": frozenset(),
    "getTerminal": frozenset(),
    "attachTerminal": frozenset({"cursor"}),
    "resizeTerminal": frozenset(),
    "signalTerminal": frozenset(),
    "watchFiles": frozenset({"path", "recursive", "include", "exclude", "user"}),
    "listSnapshots": frozenset(),
    "uploadSnapshot": frozenset({"path", "name", "ttl_ms"}),
    "deleteSnapshot": frozenset(),
    "getSnapshot": frozenset(),
    "downloadSnapshot": frozenset({"format", "reference", "recipient"}),
    "listStats": frozenset({"disk", "interval_ms"}),
}

Operation = Literal["listAudit", "listEvents", "getHealth", "listImages", "importImage", "loadImage", "pullImage", "deleteImage", "getImage", "getInfo", "getMetrics", "getOpenapi", "getQuota", "listSandboxes", "createSandbox", "destroySandbox", "getSandbox", "filesChanged", "listCommands", "runCommand", "attachCommand", "signalCommand", "commitSandbox", "listContexts", "createContext", "deleteContext", "getContext", "answerContext", "interruptContext", "restartContext", "listRuns", "runCode", "getRun", "getEnvironment", "changeEnvironment", "replaceEnvironment", "exportSandbox", "downloadArchive", "uploadArchive", "changeMode", "changeOwner", "readFile", "writeFile", "copyFile", "fileExists", "listFiles", "makeDirectory", "removeFile", "renameFile", "searchFiles", "statFile", "makeSymlink", "forkSandbox", "cloneRepository", "setLifecycle", "listMounts", "mount", "unmount", "getMount", "getNetwork", "setNetwork", "listNetworkEvents", "pauseSandbox", "listPorts", "exposePort", "revokePort", "getPort", "connectToPort", "proxyToPort", "killProcesses", "listProcesses", "startProcess", "removeProcess", "getProcess", "readProcessLog", "signalProcess", "writeProcessStdin", "waitForProcess", "pushSandbox", "listRecordings", "deleteRecording", "getRecording", "changeResources", "restoreSandbox", "rollBackSandbox", "listSessions", "createSession", "deleteSession", "getSession", "runInSession", "listSandboxSnapshots", "createSnapshot", "startSandbox", "getStats", "stopSandbox", "storeSandbox", "listTerminals", "openTerminal", "closeTerminal", "getTerminal", "attachTerminal", "resizeTerminal", "signalTerminal", "watchFiles", "listSnapshots", "uploadSnapshot", "deleteSnapshot", "getSnapshot", "downloadSnapshot", "listStats"]
