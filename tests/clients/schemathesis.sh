#!/usr/bin/env bash
# Fuzzes the server from its own description, /openapi.json. Fix either of them for each finding; exceptions are in
# schemathesis.toml, with their reasons.
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
export HYPOTHESIS_STORAGE_DIRECTORY=$work
failures=0

fuzz() {
    local name=$1 server=$2
    shift 2
    if ../../target/clients/bin/schemathesis --no-color --config-file schemathesis.toml run "$server/openapi.json" \
        --seed 1 --header "Authorization: Bearer $KEY" "$@" >"$log" 2>&1; then
        tail -3 "$log" >&2
        echo "ok - schemathesis finds nothing against $name"
    else
        cat "$log" >&2
        echo "not ok - schemathesis finds nothing against $name"
        failures=1
    fi
}

# The routes of other APIs answer when a picture is drawn. A server that runs no jobs would never answer, but one whose queue is full
# answers at once.
surfaces='^/(images|models|huggingface|sdapi|internal|controlnet)'
mcp='^/mcp$'
fuzz "the native routes of /openapi.json" "$FUZZED" --exclude-path-regex "$surfaces|$mcp"
curl --silent --output /dev/null -H "Authorization: $KEY" -d '{"input": {"prompt": "a"}}' \
    "$FULL/v2/stable-diffusion-v1/run"
fuzz "the routes of other APIs of /openapi.json" "$FULL" --include-path-regex "$surfaces"
# OpenAPI has no parameter named `Accept`, and MCP wants one.
fuzz "MCP of /openapi.json" "$FULL" --include-path-regex "$mcp" --header "Accept: application/json, text/event-stream"
exit $failures
