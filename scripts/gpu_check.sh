#!/usr/bin/env bash
# Checks the GPU backend on a machine with an NVIDIA GPU: parity with the CPU, speed and memory beside PyTorch, and a
# training run on digits.
#   bash scripts/gpu_check.sh                    sets up .venv and runs
#   WHEELS=DIR bash scripts/gpu_check.sh         the same from a folder of wheels, without a network
#   PYTHON=PATH bash scripts/gpu_check.sh        in an environment that has the package, and PyTorch if wanted
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
if [ -n "${PYTHON:-}" ] && "$PYTHON" -c 'import sysds_resnet' 2>/dev/null; then
  python="$PYTHON"
else
  [ -z "${WHEELS:-}" ] || export PIP_NO_INDEX=1 PIP_FIND_LINKS="$WHEELS"
  set_up ".[gpu,parquet,plots,samples,torch]"
  .venv/bin/pip install -q --disable-pip-version-check torchvision || echo "going on without PyTorch's figures" >&2
  python=.venv/bin/python
fi
"$python" -m sysds_resnet.doctor
"$python" benchmarks/gpu.py "$@"
run=$(mktemp -d)/digits
"$python" -m sysds_resnet.train --device gpu --out "$run"
"$python" -m sysds_resnet.evaluate --device gpu --weights "$run" --dataset digits
