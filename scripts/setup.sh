# Functions for quickstart.sh and test.sh, to be sourced: a virtual environment, Java 17 and OpenBLAS.

# Installs Debian packages where this user may; otherwise says in one line what to install.
install_packages() {
  local sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo"; else sudo="none"; fi
  fi
  if [ "$sudo" = "none" ] || ! command -v apt-get >/dev/null; then
    echo "missing: $*; install them (Debian, Ubuntu: sudo apt-get install -y $*) and run this again" >&2
    return 1
  fi
  echo "installing $*"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Sets up .venv with this package. $1: what pip installs, "." or ".[extras]".
set_up() {
  local python="${PYTHON:-python3}"
  command -v "$python" >/dev/null || install_packages python3 python3-venv
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "Python: found $("$python" --version), expected 3.10 or later; set PYTHON to one" >&2
    return 1
  }
  if [ ! -x .venv/bin/pip ]; then
    "$python" -m venv .venv 2>/dev/null || { install_packages python3-venv && "$python" -m venv --clear .venv; }
  fi
  .venv/bin/pip install -q --disable-pip-version-check -e "$1"
  .venv/bin/python -c 'from sysds_resnet.engine.java import find_java; find_java()' 2>/dev/null ||
    install_packages openjdk-17-jre-headless
  .venv/bin/python -c 'import sys; from sysds_resnet.engine.blas import find_openblas; sys.exit(find_openblas() is None)' ||
    install_packages libopenblas0-pthread ||
    echo "going on without OpenBLAS: multiplies will be 2 to 3 times slower" >&2
}
