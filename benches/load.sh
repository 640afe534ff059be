#!/usr/bin/env bash
# Measures requests per second and latency, with 64 connections for 10 s per figure.
#
#     benches/load.sh            (needs wrk; builds target/release/stablehand, or uses STABLEHAND_BIN)
#
# 1. with idle workers: a fixed answer, which is what HTTP itself costs here, then GET /health, GET /status and POST /run, whose
#    jobs are stored durably. Each with its ratio to the fixed answer in the same run;
# 2. the same while a worker draws on the CPU without pause: the latency on a busy server.
# wrk runs on the same machine and takes CPU time from the server, more for each answer than the server itself. So ratios say
# more than rates.
#
# CONNECTIONS and DURATION change what each figure takes; BUSY=no leaves the second part out.
set -euo pipefail
cd "$(dirname "$0")/.."
connections=${CONNECTIONS:-64} duration=${DURATION:-10s} jobs=1000

command -v wrk >/dev/null || { echo "install wrk, for example with: apt-get install wrk" >&2; exit 1; }
[ -n "${STABLEHAND_BIN:-}" ] || cargo build --release
binary=$(realpath "${STABLEHAND_BIN:-target/release/stablehand}")
work=$(mktemp -d "${TMPDIR:-/tmp}/stablehand-load.XXXXXX")
trap 'kill "${server:-0}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

# start WORKERS: starts a fresh server and sets $origin and $url.
start() {
    env STABLEHAND_LISTEN=127.0.0.1:0 STABLEHAND_DATA_DIR="$work/$1" STABLEHAND_API_KEYS=load-key \
        STABLEHAND_WORKERS="$1" STABLEHAND_DEVICE=cpu STABLEHAND_QUEUE_LIMIT=100000000 STABLEHAND_QUEUE_BYTES=1TiB \
        STABLEHAND_RATE_LIMITS=off STABLEHAND_LOG=warn "$binary" serve >"$work/out" &
    server=$!
    until origin=$(grep -o 'http://[0-9.:]*' "$work/out" | head -1) && [ -n "$origin" ]; do sleep 0.05; done
    url=$origin/v2/stable-diffusion-v1
}

stop() { kill "$server"; wait "$server" || true; }

submit() {
    curl --silent --fail -H 'Authorization: Bearer load-key' -d "$1" "$url/run" | grep -o '[0-9a-f-]\{36\}'
}

# load NAME SCRIPT [URL]: measures one figure. Any status but 200 is shown beside it.
load() {
    wrk --threads 2 --connections "$connections" --duration "$duration" --latency \
        --script "benches/load/$2.lua" "${3:-$url}" >"$work/result" -- "$work/ids"
    awk -v name="$1" -v fixed="${fixed:-0}" '
        $1 == "50%" { p50 = $2 } $1 == "99%" { p99 = $2 } $1 == "Requests/sec:" { rate = $2 }
        /Non-2xx|Socket errors/ { spoilt = "  (" $0 ")" }
        END {
            ratio = fixed > 0 ? sprintf("%4.2f", rate / fixed) : "    "
            printf "%-28s %8.0f a second  %s   p50 %9s   p99 %9s%s\n", name, rate, ratio, p50, p99, spoilt
        }' "$work/result"
}

# all WHEN: the figures of one server.
all() {
    fixed=0
    load "GET /live, $1" get "$origin/live"
    fixed=$(awk '$1 == "Requests/sec:" { print $2 }' "$work/result")
    load "GET /health, $1" get "$url/health"
    load "GET /status, $1" status
    load "POST /run, $1" run
}

start 0
for _ in $(seq "$jobs"); do submit '{"input": {"prompt": "a dog"}}'; done >"$work/ids"
all 'workers idle'
stop
[ "${BUSY:-yes}" = yes ] || exit 0

start 1
# Work for an hour, one job after the other.
for _ in $(seq 200); do submit '{"input": {"prompt": "a dog", "num_inference_steps": 500, "num_outputs": 10}}'; done >"$work/ids"
all 'a worker busy'
stop
