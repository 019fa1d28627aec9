"""A Spark cluster of separate processes for tests, and what happens to its executors."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import psutil
from java_compilers import java_options

SCRIPT = Path(__file__).parents[2] / "scripts" / "spark_cluster.sh"


@contextmanager
def spark_cluster(folder, workers=2, memory="2g", **variables):
    """Start a cluster, with more environment variables, and give its URL; it is gone afterwards."""
    options = ["--workers", str(workers), "--memory", memory, "--folder", str(folder)]
    own = {"JAVA_TOOL_OPTIONS": " ".join(java_options())}  # which executors get too
    environment = os.environ | (own if java_options() else {}) | variables
    command = ["bash", SCRIPT, "start", *options]
    started = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert started.returncode == 0, started
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run(["bash", SCRIPT, "stop", "--folder", str(folder)], check=True)


def cluster_processes(folder):
    """The processes of the cluster in a folder: master, workers, executors and their Python."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SYSDS_RESNET_SPARK_CLUSTER") == os.fspath(folder):
                found.append(process)
        except psutil.Error:  # it has ended, or is another user's
            continue
    return found


def executors(folder):
    """The executors' processes of the cluster in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        is_executor = any("CoarseGrainedExecutorBackend" in word for word in command)
        if is_executor and (process.info["cwd"] or "").startswith(os.fspath(folder)):
            found.append(process)
    return found


def executors_left(folder):
    """Those that have not ended a minute after their driver."""
    return psutil.wait_procs(executors(folder), timeout=60)[1]
