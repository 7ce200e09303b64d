#!/usr/bin/env bash
# Serve a bundle, ask for a decision on a picture in three ways, and stop the server gracefully.
# Usage: serve_and_ask.sh BUNDLE PICTURE [PORT]
set -euo pipefail
bundle=$1 picture=$2 port=${3:-8000}
url=http://127.0.0.1:$port

workzone serve "$bundle" --port "$port" --drain-seconds 0 &
server=$!
trap 'kill -TERM $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do
  curl --silent --fail --output /dev/null "$url/readyz" && break
  kill -0 $server || exit 1
  sleep 0.2
done

echo "the picture as it is:"
curl --silent --fail-with-body -H 'Content-Type: application/octet-stream' --data-binary "@$picture" "$url/v1/predict"
echo; echo "in a form, with the views:"
curl --silent --fail-with-body -F "file=@$picture" "$url/v1/predict?views=1"
echo; echo "as base64 in JSON:"
printf '{"image": "%s"}' "$(base64 -w0 "$picture")" |
  curl --silent --fail-with-body -H 'Content-Type: application/json' --data-binary @- "$url/v1/predict"
echo; echo "with the Open Inference Protocol:"
name=$(curl --silent "$url/v1/model" | python3 -c 'import json, sys; print(json.load(sys.stdin)["bundle"]["name"])')
printf '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["%s"]}]}' "$(base64 -w0 "$picture")" |
  curl --silent --fail-with-body -H 'Content-Type: application/json' --data-binary @- "$url/v2/models/$name/infer"
echo

kill -TERM $server
wait $server
trap - EXIT
