#!/usr/bin/env bash
# Sets up everything on a fresh Debian or Ubuntu and runs the tests; safe to run again.
#   bash scripts/test.sh [options of pytest]     the quick tests, 14 minutes on 2 slow cores
#   bash scripts/test.sh -m long                 the long ones
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
set_up ".[test]"
command -v chromedriver >/dev/null || { install_first chromium && install_first chromium-driver; } ||
  echo "going on without Chromium: the tests of pages will fail" >&2
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# a process more than cores, since many tests wait for others, and 6 GiB for each; one where markers are asked for:
# the long tests need the memory
processes=$(.venv/bin/python -c "from sysds_resnet.system.machine import cores, memory_limit
print(max(1, min(cores() + 1, memory_limit() // (6 * 2**30))))")
workers=(-n "$processes" --dist loadgroup --no-loadscope-reorder)
case " $* " in *" -m "*) workers=() ;; esac
exec .venv/bin/python -m pytest "${workers[@]}" "$@"
