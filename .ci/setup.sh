#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs one set-up step. All it does itself is to get a Python for .ci/setup.py where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; }

for python in "$(command -v python3 || true)" /usr/bin/python3; do
    if [ -n "$python" ] && usable "$python"; then
        exec "$python" .ci/setup.py "$@"
    fi
done

if ! command -v apt-get >/dev/null; then
    echo "Gridcast needs Python 3.9 or newer to set itself up: install it and run this again." >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "There is no Python on this machine. An administrator should run:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends python3 python3-venv" >&2
    exit 1
fi
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends python3 python3-venv </dev/null
exec /usr/bin/python3 .ci/setup.py "$@"
