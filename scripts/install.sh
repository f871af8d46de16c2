#!/usr/bin/env bash
# Make .venv with what `make demo` (run) or `make test` (dev) needs. Run again, it changes only what has to change.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-run}

python=""
for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
  if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python=$name
    break
  fi
done
if [ -z "$python" ]; then
  echo "Tonesmith needs Python 3.11, 3.12 or 3.13, and found none on the PATH." >&2
  echo "Install one (Debian: apt install python3 python3-venv), or name it: make demo PYTHON=/path/to/python3" >&2
  exit 1
fi

if [ ! -x .venv/bin/python ]; then
  if ! "$python" -m venv .venv; then
    rm -rf .venv
    echo "The venv module of $python does not work. On Debian or Ubuntu: apt install python3-venv" >&2
    exit 1
  fi
fi

# uv does not read pip's settings, so hand over the ones a company network needs.
: "${UV_FIND_LINKS:=${PIP_FIND_LINKS:-}}" "${UV_DEFAULT_INDEX:=${PIP_INDEX_URL:-}}" "${UV_INDEX:=${PIP_EXTRA_INDEX_URL:-}}"
: "${SSL_CERT_FILE:=${PIP_CERT:-}}"
for name in UV_FIND_LINKS UV_DEFAULT_INDEX UV_INDEX SSL_CERT_FILE; do
  if [ -n "${!name}" ]; then export "${name?}"; else unset "$name"; fi
done
echo "Installing what is missing (the first time about 2 GB on disk) …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
uv() { .venv/bin/uv "$@"; }

# A torch wheel lying on disk is taken from there; otherwise PyTorch's own index has the build for this machine.
backend=()
[ -n "${UV_FIND_LINKS:-}" ] || backend=(--torch-backend "$([ "${GPU:-}" ] && echo auto || echo cpu)")
if [ "${GPU:-}" ]; then
  extras="train,serve-gpu"
  [ "$kind" = run ] || extras="$extras,dev,argilla,postgres"
  uv pip install --quiet --python .venv/bin/python "${backend[@]}" -e ".[$extras]"
else
  # Bytecode now: vLLM's three processes would each compile theirs at the first start.
  uv pip install --quiet --compile-bytecode --python .venv/bin/python "${backend[@]}" --no-deps -r "requirements/$kind.txt"
  uv pip install --quiet --python .venv/bin/python --no-deps -e .
fi
touch ".venv/.$kind"
[ "$kind" = run ] || touch .venv/.run
