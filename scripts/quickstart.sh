#!/usr/bin/env bash
# Sets up everything on a fresh Debian or Ubuntu and trains; safe to run again.
#   bash scripts/quickstart.sh [options of python -m sysds_resnet.train]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
set_up ".[parquet,plots,samples]"
exec .venv/bin/python -m sysds_resnet.train "$@"
