#!/usr/bin/env bash
# A Spark cluster of separate processes on this machine, on loopback: a master and some workers.
#   bash scripts/spark_cluster.sh start [--workers 2] [--cores 1] [--memory 4g] [--folder DIR]
#   bash scripts/spark_cluster.sh stop [--folder DIR]
# start prints the master's URL, for --master, and waits until all workers are there. Logs and process numbers are in
# the folder, which only you can enter; by default ~/.cache/sysds-resnet/spark_cluster.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }

action=${1:-}
[ $# -eq 0 ] || shift
workers=2 cores=1 memory=4g folder=""
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || fail "$1: found nothing after it, expected a value; add it"
  case $1 in
    --workers) workers=$2 ;;
    --cores) cores=$2 ;;
    --memory) memory=$2 ;;
    --folder) folder=$2 ;;
    *) fail "$1: no such option, expected --workers, --cores, --memory or --folder; see the script's first lines" ;;
  esac
  shift 2
done

check_number() {
  [[ $2 =~ ^[1-9][0-9]{0,3}$ ]] || fail "$1: found $2, expected a number from 1; correct it"
}

# Sets folder to its whole path. Nobody else may write there: what stands there says which processes are killed.
check_folder() {
  if [ -z "$folder" ]; then
    [ -n "${XDG_CACHE_HOME:-}${HOME:-}" ] || fail "folder: found no HOME, expected a folder of yours; add --folder"
    folder=${XDG_CACHE_HOME:-$HOME/.cache}/sysds-resnet/spark_cluster
  fi
  [[ $folder == /* ]] || folder=$PWD/$folder
  folder=${folder%/}
  [ ! -L "$folder" ] || fail "$folder: found a link, expected a folder; choose another --folder"
  [ ! -e "$folder" ] || [ -d "$folder" ] || fail "$folder: found a file, expected a folder; choose another --folder"
}

make_folder() {
  mkdir -p "$(dirname "$folder")" || true
  mkdir -m 700 "$folder" 2>/dev/null || [ -d "$folder" ] ||
    fail "$folder: it cannot be made, expected a folder of yours; choose another --folder"
  check_owner
}

check_owner() {
  local mode
  if [ -L "$folder" ] || [ ! -O "$folder" ]; then
    fail "$folder: found another user's, expected yours; choose another --folder"
  fi
  mode=$(stat -c %a "$folder")
  (( (8#$mode & 8#022) == 0 )) ||
    fail "$folder: found the mode $mode, expected that only you can write there; run chmod 700 $folder"
  chmod 700 "$folder"
}

# Whether a process belongs to this cluster: it was started for this folder, and is Spark's. $1: its number.
is_ours() {
  [ -O "/proc/$1" ] && grep -qzxF "SYSDS_RESNET_SPARK_CLUSTER=$folder" "/proc/$1/environ" 2>/dev/null &&
    grep -qzE '^org\.apache\.spark\.(deploy|executor|launcher)\.' "/proc/$1/cmdline" 2>/dev/null
}

# Kills a group of processes that `launch` has started, and no other that has got its number since. $1: the group.
kill_group() {
  local stat line words process
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue  # a process that has ended
    read -r -a words <<<"${line##*) }"  # what comes after its name: state, parent, group
    process=${stat%/stat}
    if [ "${words[2]:-}" = "$1" ] && is_ours "${process#/proc/}"; then
      kill -KILL -- "-$1" 2>/dev/null || true
      return
    fi
  done
}

stop() {
  local file number
  for file in "$folder"/*.pid; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    number=$(head -c 20 "$file")
    if [[ $number =~ ^[1-9][0-9]*$ ]]; then kill_group "$number"; fi
    rm -f "$file"
  done
}

# Starts a process group of its own. $1: name, then the class and its arguments.
launch() {
  local name=$1
  shift
  : >"$folder/$name.log"  # the process may open it only after it is read
  setsid env SPARK_LOCAL_IP=127.0.0.1 SPARK_NO_DAEMONIZE=1 "SYSDS_RESNET_SPARK_CLUSTER=$folder" \
    "$SPARK_HOME/bin/spark-class" "$@" >"$folder/$name.log" 2>&1 </dev/null &
  echo $! >"$folder/$name.pid"
}

# Waits for a line in a log. $1: name, $2: pattern of sed that prints what is looked for.
await() {
  local found
  for _ in $(seq 600); do
    found=$(sed -n "$2" "$folder/$1.log" | head -n 1)
    if [ -n "$found" ]; then
      echo "$found"
      return
    fi
    kill -0 "$(cat "$folder/$1.pid")" 2>/dev/null || break
    sleep 0.1
  done
  stop
  fail "$1: it did not start ($(tail -n 1 "$folder/$1.log")); see $folder/$1.log"
}

case $action in
  start)
    check_number --workers "$workers"
    check_number --cores "$cores"
    [[ $memory =~ ^[1-9][0-9]{0,8}[kmgtKMGT]$ ]] || fail "--memory: found $memory, expected a size such as 4g; correct it"
    check_folder
    root=$(cd "$(dirname "$0")/.." && pwd)
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=python3
    # other settings of Spark in the environment are those of other clusters
    unset SPARK_CONF_DIR SPARK_MASTER_HOST SPARK_MASTER_OPTS SPARK_WORKER_OPTS SPARK_DAEMON_JAVA_OPTS SPARK_PUBLIC_DNS
    SPARK_HOME=$("$python" -c 'from importlib.util import find_spec
print(find_spec("pyspark").submodule_search_locations[0])' 2>/dev/null) ||
      fail "pyspark: found none for $python, expected Spark 3.5; run $python -m pip install -e '${root}[spark]'"
    JAVA_HOME=$(PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -c 'from sysds_resnet.engine.jvm.java import find_java
print(find_java().path.resolve().parents[1])') || fail "Java: found none that is usable; see python -m sysds_resnet.doctor"
    export JAVA_HOME SPARK_HOME
    make_folder
    stop
    launch master org.apache.spark.deploy.master.Master --host 127.0.0.1 --port 0 --webui-port 0
    url=$(await master 's/.*Starting Spark master at \(spark:[^ ]*\).*/\1/p')
    for i in $(seq "$workers"); do
      launch "worker$i" org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --port 0 --webui-port 0 \
        --cores "$cores" --memory "$memory" --work-dir "$folder/work" "$url"
    done
    for i in $(seq "$workers"); do
      await "worker$i" 's/.*\(Successfully registered with master\).*/\1/p' >/dev/null
    done
    echo "$url"
    ;;
  stop)
    check_folder
    if [ -d "$folder" ]; then
      check_owner
      stop
    fi
    ;;
  -h | --help) usage ;;
  *) fail "found ${action:-nothing}, expected start or stop; see the script's first lines" ;;
esac
