#!/usr/bin/env bash
# The commands of the hosted endpoint's overview, with only the base URL and the key changed, and similar ones.
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# The overview's two commands as printed there. Their placeholders are filled in when they run.
run_line=$(cat <<'LINE'
curl -X POST https://api.runpod.ai/v2/stable-diffusion-v1/run \
    -H 'Content-Type: application/json'                             \
    -H 'Authorization: Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'    \
    -d '{"input": {"prompt": "a cute magical flying dog, fantasy art drawn by disney concept artists"}}'
LINE
)
status_line=$(cat <<'LINE'
curl https://api.runpod.ai/v2/stable-diffusion-v1/status/c80ffee4-f315-4e25-a146-0f3d98cf024b \
    -H 'Content-Type: application/json' \
    -H 'Authorization: Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'
LINE
)
v1_status_url=https://api.runpod.ai/v1/stable-diffusion-v1/status/c80ffee4-f315-4e25-a146-0f3d98cf024b

# Runs one of them with this base URL, key and job id.
hosted() {
    local line=${1//https:\/\/api.runpod.ai/$2}
    line=${line//xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/$KEY}
    bash -c "${line//c80ffee4-f315-4e25-a146-0f3d98cf024b/${3:-}} --silent --show-error --max-time 60"
}

# Any request with the key: ours METHOD BASE PATH [curl's options]. Prints the body, then the status on its own line.
ours() {
    local method=$1 url=$2/v2/stable-diffusion-v1/$3
    shift 3
    curl --silent --show-error --max-time 60 --write-out '\n%{http_code}' -X "$method" "$url" \
        -H "Authorization: $KEY" "$@"
}

field() { python3 -c 'import json, sys; print(eval("body" + sys.argv[1], {"body": json.load(sys.stdin)}))' "$1"; }

# expect NAME FOUND PATTERN: one test.
expect() {
    if [[ $2 =~ ^$3$ ]]; then
        echo "ok - $1"
    else
        echo "not ok - $1"
        echo "found $2, not $3" >&2
        failures=$((failures + 1))
    fi
}

uuid='[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'
queued=$(hosted "$run_line" "$DRAWING")
expect 'the run command works as printed' "$queued" "\{\"id\": ?\"$uuid\",\"status\": ?\"IN_QUEUE\"\}"
id=$(field '["id"]' <<<"$queued")
for _ in $(seq 240); do
    status=$(hosted "$status_line" "$DRAWING" "$id")
    [[ $(field '["status"]' <<<"$status") =~ IN_ ]] || break
    sleep 0.5
done
expect 'the status command shows the finished job with the fields of the overview' \
    "$(python3 -c 'import json, sys; print(*sorted(json.load(sys.stdin)))' <<<"$status")" \
    'delayTime executionTime gpu id input output status'
expect 'the input comes back as it was sent' "$status" \
    '.*"input":\{"prompt": "a cute magical flying dog, fantasy art drawn by disney concept artists"\}.*'
expect 'the same URL works under /v1' "$(hosted "curl $v1_status_url -H 'Authorization: $KEY'" "$DRAWING" "$id")" \
    "\{.*\"id\":\"$id\".*\"status\":\"COMPLETED\"\}"
curl --silent --output "$work/picture.png" "$(field '["output"][0]["image"]' <<<"$status")"
expect 'the picture is downloaded without a key' "$(head -c 8 "$work/picture.png" | od -An -tx1)" \
    ' 89 50 4e 47 0d 0a 1a 0a'

expect 'the stream brings the picture only once' \
    "$(ours GET "$DRAWING" "stream/$id"; ours GET "$DRAWING" "stream/$id")" \
    '\{"status":"COMPLETED","stream":\[.*\{"output":\{"image":"http.*\}\}\]\}.200\{"status":"COMPLETED","stream":\[\]\}.200'

small='{"input": {"prompt": "a dog", "num_inference_steps": 2, "width": 128, "height": 128}}'
json='Content-Type: application/json'
expect 'runsync answers the finished job' "$(ours POST "$DRAWING" runsync -H "$json" -d "$small" | tr '\n' ' ')" \
    '.*"status":"COMPLETED"\} 200'
for _ in 1 2 3; do ours POST "$WAITING" run -d "$small" >"$work/last"; done
last=$(head -1 "$work/last" | field '["id"]')
expect 'one job too many is 429' "$(ours POST "$WAITING" run -d "$small" | tr '\n' ' ')" '\{"error":"[^"]+"\} 429'
expect 'health counts the jobs' "$(ours GET "$WAITING" health | tr '\n' ' ')" '\{"jobs":\{.*"inQueue":3.* 200'
expect 'a job is cancelled without a body' "$(ours POST "$WAITING" "cancel/$last" | tr '\n' ' ')" \
    "\{\"id\":\"$last\",\"status\":\"CANCELLED\"\} 200"
expect 'the queue is purged with a body of null' "$(ours POST "$WAITING" purge-queue -H "$json" -d null | tr '\n' ' ')" \
    '\{"removed":2,"status":"completed"\} 200'
for _ in 1 2; do purged=$(ours POST "$WAITING" purge-queue | tr '\n' ' '); done
expect 'too many purges are 429' "$purged" '\{"error":"[^"]+"\} 429'
expect 'a wrong key is 401' "$(KEY=wrong ours GET "$WAITING" health | tr '\n' ' ')" '\{"error":"[^"]+"\} 401'
expect 'no key is 401' "$(curl --silent --output "$work/body" --write-out '%{http_code}' "$WAITING/v2/stable-diffusion-v1/health")" 401
exit $((failures > 0))
