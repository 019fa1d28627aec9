#!/usr/bin/env bash
# A Spark cluster of separate processes on this machine, on loopback: a master and some workers.
#   bash scripts/spark_cluster.sh start [--workers 2] [--cores 1] [--memory 4g] [--folder DIR]
#   bash scripts/spark_cluster.sh stop [--folder DIR]
# start prints the master's URL, for --master, and waits until all workers are there. Logs and process numbers are in
# the folder.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }

action=${1:-}
[ $# -eq 0 ] || shift
workers=2 cores=1 memory=4g folder=${TMPDIR:-/tmp}/sysds_resnet_spark_$(id -u)
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

stop() {
  local file
  for file in "$folder"/*.pid; do
    [ -e "$file" ] || continue
    kill -KILL -- "-$(cat "$file")" 2>/dev/null || true
    rm -f "$file"
  done
}

# Starts a process group of its own. $1: name, then the class and its arguments.
launch() {
  local name=$1
  shift
  : >"$folder/$name.log"  # the process may open it only after it is read
  setsid env SPARK_LOCAL_IP=127.0.0.1 SPARK_NO_DAEMONIZE=1 "$home/bin/spark-class" "$@" \
    >"$folder/$name.log" 2>&1 </dev/null &
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
    root=$(cd "$(dirname "$0")/.." && pwd)
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=python3
    home=$("$python" -c 'import pyspark, os; print(os.path.dirname(pyspark.__file__))' 2>/dev/null) ||
      fail "pyspark: found none for $python, expected 3.5.7; run pip install 'sysds-resnet[spark]'"
    JAVA_HOME=$("$python" -c 'from sysds_resnet.engine.java import find_java
print(find_java().path.resolve().parents[1])') || fail "Java: found none that is usable; see python -m sysds_resnet.doctor"
    export JAVA_HOME
    mkdir -p "$folder"
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
  stop) stop ;;
  -h | --help) usage ;;
  *) fail "found ${action:-nothing}, expected start or stop; see the script's first lines" ;;
esac
