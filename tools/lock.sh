#!/usr/bin/env bash
# Resolves the dependencies into requirements/*.txt, with hashes. Without headers and index lines on purpose:
# a lock says what to install, not from where.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 "$@"; }
compile pyproject.toml --group dev --extra operator -o requirements/dev.txt
compile pyproject.toml -c requirements/dev.txt -o requirements/run.txt
compile pyproject.toml --extra operator -c requirements/dev.txt -o requirements/operator.txt
echo uv | compile - -o requirements/bootstrap.txt
