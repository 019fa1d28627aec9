# shellcheck shell=bash
# Functions for quickstart.sh and test.sh, to be sourced: a virtual environment, a C++ compiler, Java and OpenBLAS.

# Installs the first of these Debian packages that the system offers, where this user may; otherwise says in
# one line what to install.
install_first() {
  local sudo="" package names
  names=$(printf '%s or ' "$@")
  names=${names% or }
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo"; else sudo="none"; fi
  fi
  if [ "$sudo" = "none" ] || ! command -v apt-get >/dev/null; then
    echo "missing: $names; install it (Debian, Ubuntu: with apt-get as root) and run this again" >&2
    return 1
  fi
  $sudo apt-get update -qq
  for package in "$@"; do
    if apt-get install --simulate "$package" >/dev/null 2>&1; then
      echo "installing $package"
      $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
      return
    fi
  done
  echo "missing: $names, which this system does not offer; install it another way and run this again" >&2
  return 1
}

# Sets up .venv with this package. $1: what pip installs, "." or ".[extras]".
set_up() {
  local python="${PYTHON:-python3}"
  command -v "$python" >/dev/null || install_first python3-venv
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "Python: found $("$python" --version), expected 3.10 or later; set PYTHON to one" >&2
    return 1
  }
  if [ ! -x .venv/bin/pip ]; then
    "$python" -m venv .venv >/dev/null 2>&1 || { install_first python3-venv && "$python" -m venv --clear .venv; }
  fi
  if [ "$(uname -m)" = x86_64 ] && ! command -v g++ >/dev/null; then
    install_first g++ || echo "going on without a C++ compiler, and so without bf16" >&2
  fi
  .venv/bin/pip install -q --disable-pip-version-check -e "$1"
  .venv/bin/python -c 'from sysds_resnet.engine.jvm.java import find_java; find_java()' 2>/dev/null ||
    install_first openjdk-17-jre-headless openjdk-21-jre-headless  # Debian 13 has no 17
  .venv/bin/python -c 'import sys; from sysds_resnet.engine.jvm.multiply import find_openblas; sys.exit(find_openblas() is None)' ||
    { install_first libopenblas0-pthread && install_first libgomp1; } ||
    echo "going on without OpenBLAS: multiplies will be 2 to 3 times slower" >&2
}
