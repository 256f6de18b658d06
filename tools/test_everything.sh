#!/usr/bin/env bash
# All lanes in a fixed order: what has to be built is built while tests that do not need it run.
set -uo pipefail
cd "$(dirname "$0")/.."
BIN=.venv/bin
WORK=$(mktemp -d)
export GATEPOST_PROOFS="$WORK/proofs"
mkdir -p "$GATEPOST_PROOFS"
started=$SECONDS
failed=()

lane() { # lane NAME COMMAND...: run it, remember a failure, go on
  local name=$1 begun=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then
    printf '== %s: ok (%ss)\n' "$name" $((SECONDS - begun))
  else
    printf '== %s: FAILED (%ss)\n' "$name" $((SECONDS - begun))
    failed+=("$name")
  fi
}

built() { # wait for a build in the background and show what it said when it failed
  local pid=$1 log=$2
  if ! wait "$pid"; then
    tail -n 40 "$log"
    return 1
  fi
}

provision() { "$BIN/python" -m testbed.provision "$@"; }

lane 'packages' provision apt:servers apt:node apt:java kafka
{ "$BIN/python" -m compiling && provision jaeger kubernetes kubernetes-clients coredns image; } \
  >"$WORK/builds.log" 2>&1 &
builds=$!
trap 'kill "$builds" 2>/dev/null; rm -rf "$WORK"' EXIT

pytest() { "$BIN/python" -m pytest -q "$@"; }

compiled() { # the same on the machine code that the images run; processes that a test starts inherit it
  [ -n "$code" ] || return 1
  GATEPOST_CODE=compiled PYTHONPATH="$code:$PYTHONPATH" pytest "$@"
}

both_parts_of_kubernetes() { # the API server's tests beside the node's: each mostly waits for the other side
  # Two nodes may not overlap, for each sets the kernel up for itself: the tests of the node's own set-up come second.
  pytest -m node --ignore=tests/node --ignore=tests/testbed >"$WORK/api.log" 2>&1 &
  local api=$! status=0
  pytest -m node tests/node tests/testbed || status=1
  wait "$api" || status=1
  cat "$WORK/api.log"
  return $status
}

lane 'lint' make --no-print-directory lint
lane 'types' make --no-print-directory types
lane 'contracts' make --no-print-directory contracts
lane 'generated files are fresh' make --no-print-directory generated
lane 'fast tests' pytest -n 4 -m 'not servers and not kill and not node and not proofs'
lane 'builds' built "$builds" "$WORK/builds.log"
code=$("$BIN/python" -m compiling) # what the builds have made
lane 'fast tests of what is compiled' compiled -n 4 -m 'not servers and not kill and not node and not proofs' \
  tests/compiling tests/core tests/edge tests/fuzz tests/services tests/telemetry
lane 'servers' compiled -n 3 --dist loadfile -m 'servers and not kill and not node'
lane 'kill -9' compiled -m kill
lane 'Kubernetes' both_parts_of_kubernetes
lane 'requirements are proven' pytest -m proofs

printf '\n%s in %s min: ' "$([ ${#failed[@]} -eq 0 ] && echo 'all lanes passed' || echo 'lanes failed')" \
  $(((SECONDS - started) / 60))
printf '%s\n' "${failed[*]:-}"
[ ${#failed[@]} -eq 0 ]
