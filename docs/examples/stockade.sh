#!/bin/sh
# Runs a command in a sandbox of its own, and ends as it does: stockade.sh python3 -c 'print(6*7)'
set -eu

api() {
    path=$1; shift
    curl -sS --fail-with-body --unix-socket "${STOCKADE_SOCKET:-/run/stockade/stockade.sock}" \
        -H 'content-type: application/json' "http://stockade/v1$path" "$@"
}

# What it has written, byte for byte: bytes that are not text come in base64.
written() { printf %s "$result" | jq -r "if .$1_encoding == \"base64\" then .$1 else .$1 | @base64 end" | base64 -d; }

id=$(api /sandboxes -d '{}' | jq -r .id)
trap 'api "/sandboxes/$id" -X DELETE' EXIT
command=$(jq -cn '{argv: $ARGS.positional}' --args -- "$@")
result=$(api "/sandboxes/$id/commands" -d "$command") || { echo "$result" >&2; exit 125; }
written stdout
written stderr >&2
exit "$(printf %s "$result" | jq .exit_code)"
