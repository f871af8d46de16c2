#!/usr/bin/env bash
# Resolve the dependencies into requirements/run.txt and requirements/dev.txt, without download addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$PIP_FIND_LINKS"
resolve() {
  local target=$1
  shift
  .venv/bin/uv pip compile pyproject.toml --quiet --python-version 3.11 --overrides requirements/overrides.txt \
    --no-header --no-annotate --upgrade "$@" -o "$target"
}
resolve requirements/run.txt --extra train --extra serve-cpu
resolve requirements/dev.txt --extra train --extra serve-cpu --extra argilla --extra postgres --extra dev
