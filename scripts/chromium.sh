#!/usr/bin/env bash
# The page's tests drive a real Chromium. Install it where that is allowed, and otherwise say what to install.
set -euo pipefail
if command -v chromium chromium-browser >/dev/null || [ -n "${TONESMITH_CHROMIUM:-}" ]; then exit 0; fi
packages="chromium libtcmalloc-minimal4 fonts-inter fonts-noto-color-emoji"
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
  echo "Installing Chromium for the page's tests …"
  "${as_root[@]}" apt-get update -qq
  # shellcheck disable=SC2086 # several packages in one word
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq $packages >/dev/null
else
  echo "The tests need Chromium. Install it (Debian: sudo apt install $packages)," >&2
  echo "or set TONESMITH_CHROMIUM to where one is, then run 'make test' again." >&2
  exit 1
fi
