#!/usr/bin/env bash
# The whole journey on generated data: corpus, ingestion, server, queries in both directions.
# ONCE=1 stops the server at the end; PORT chooses its port.
set -euo pipefail
diptych=$(realpath "$1")
cd "$(dirname "$0")/.."
model=data/models/mini
work=.demo
mkdir -p "$work"

say() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }
run() {
  printf '$ diptych'
  for word in "$@"; do case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done
  printf '\n'
  "$diptych" "$@"
}

say "1. A corpus: synthetic chest radiographs with reports"
run phantom --cases 500 --seed 7 --out "$work/phantoms"

say "2. Ingest it (run the demo again: nothing is duplicated)"
run ingest "$work/phantoms" --data "$work/data" --model "$model"

say "3. Serve it"
"$diptych" serve --data "$work/data" --model "$model" --listen "127.0.0.1:${PORT:-7700}" \
  >"$work/serve.out" 2>"$work/serve.log" &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
until grep -q '^serving on' "$work/serve.out"; do
  kill -0 $server 2>/dev/null || { cat "$work/serve.log" >&2; exit 1; }
  sleep 0.1
done
cat "$work/serve.out"
url=$(grep -o 'http://[0-9.:]*' "$work/serve.out")

say "4. Text finds images"
run search --server "$url" --text "Large left pleural effusion." --target image --k 3
run search --server "$url" --text "Right pneumothorax." --target image --k 3

say "5. An image finds reports"
run search --server "$url" --image "$work/phantoms/images/phantom-000003.png" --target text --k 3

say "6. A case finds similar cases"
run search --server "$url" --key phantom-000003 --target image --k 3

if [ -n "${ONCE:-}" ]; then
  say "Done."
else
  say "The server goes on at $url. Try: $1 search --server $url --text 'Cardiomegaly.' --target image    (Ctrl-C stops it)"
  wait $server
fi
