#!/bin/sh
# Runs a command in a sandbox of its own, with its output as it comes, and ends with its exit code.
#   stockade.sh python3 -c 'print(6*7)'
set -eu
socket=${STOCKADE_SOCKET:-/run/stockade/stockade.sock}
api() { curl -sN --unix-socket "$socket" -H 'content-type: application/json' "$@"; }
argv=$(python3 -c 'import json, sys; print(json.dumps({"argv": sys.argv[1:]}))' "$@")

id=$(api http://stockade/v1/sandboxes -d '{}' | sed 's/^{"id":"\([^"]*\)".*/\1/')
trap 'api -X DELETE "http://stockade/v1/sandboxes/$id"' EXIT
api "http://stockade/v1/sandboxes/$id/commands" -H 'accept: text/event-stream' -d "$argv" | python3 -c '
import base64, json, sys
name = None
for line in sys.stdin:
    field, _, value = line.rstrip("\n").partition(": ")
    if field == "event": name = value
    if field != "data": continue
    data = json.loads(value)
    if name == "exit": sys.exit(data["exit_code"])
    if name == "error": sys.exit(data["message"])
    if name in ("stdout", "stderr"):
        raw = base64.b64decode(data["data"]) if data["encoding"] == "base64" else data["data"].encode()
        stream = getattr(sys, name).buffer
        stream.write(raw), stream.flush()
'
