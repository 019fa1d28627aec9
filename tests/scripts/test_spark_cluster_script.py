"""scripts/spark_cluster.sh keeps to a folder of its user's, and kills only what it has started."""

import os
import signal
import subprocess
import sys

import pytest
from command_line import Outcome, assert_one_line_error
from spark_cluster import SCRIPT


def cluster_script(*options, **environment):
    environment = {**os.environ, **environment}
    done = subprocess.run(
        ["bash", SCRIPT, *map(str, options)], capture_output=True, text=True, timeout=60, env=environment
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a cluster"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def sleeper():
    """Starts processes that sleep, each in a group of its own."""
    started = []

    def start(*words, **environment):
        command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(100)", *words]
        process = subprocess.Popen(
            command, start_new_session=True, env={**os.environ, **environment}, stdout=subprocess.PIPE
        )
        started.append(process)
        process.stdout.readline()  # it runs, with its own command line
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_belongs_to_the_cluster_is_killed(folder, sleeper):
    worker = sleeper("org.apache.spark.deploy.worker.Worker", SYSDS_RESNET_SPARK_CLUSTER=str(folder))
    (folder / "worker1.pid").write_text(f"{worker.pid}\n")
    assert cluster_script("stop", "--folder", folder) == Outcome(0, "", "")
    assert worker.wait(timeout=10) == -signal.SIGKILL
    assert not list(folder.glob("*.pid"))


@pytest.mark.parametrize("kind", ["another command", "another cluster", "no number", "a link"])
def test_nothing_else_is_killed(folder, sleeper, tmp_path, kind):
    words = [] if kind == "another command" else ["org.apache.spark.deploy.worker.Worker"]
    known = tmp_path / "elsewhere" if kind == "another cluster" else folder
    process = sleeper(*words, SYSDS_RESNET_SPARK_CLUSTER=str(known))
    file = folder / "worker1.pid"
    if kind == "a link":
        (tmp_path / "number").write_text(str(process.pid))
        file.symlink_to(tmp_path / "number")
    else:
        file.write_text(f"-1 {process.pid}" if kind == "no number" else str(process.pid))
    assert cluster_script("stop", "--folder", folder).code == 0
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)


def test_folders_that_others_could_have_made_are_refused(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert_one_line_error(cluster_script("stop", "--folder", tmp_path / "link"), "found a link")
    (tmp_path / "file").touch()
    assert_one_line_error(cluster_script("stop", "--folder", tmp_path / "file"), "found a file")
    folder.chmod(0o777)
    assert_one_line_error(cluster_script("stop", "--folder", folder), "found the mode 777", "chmod 700")
    folder.chmod(0o700)
    if os.getuid() == 0:
        os.chown(folder, 12345, -1)
        assert_one_line_error(cluster_script("stop", "--folder", folder), "found another user's")


@pytest.mark.parametrize("environment", [{"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "cache"}])
def test_the_folder_is_the_users_own(tmp_path, sleeper, environment):
    places = {name: str(tmp_path / text) if text else "" for name, text in environment.items()}
    folder = (tmp_path / "cache" if places["XDG_CACHE_HOME"] else tmp_path / ".cache") / "sysds-resnet"
    (folder / "spark_cluster").mkdir(parents=True, mode=0o700)
    known = str(folder / "spark_cluster")
    master = sleeper("org.apache.spark.deploy.master.Master", SYSDS_RESNET_SPARK_CLUSTER=known)
    (folder / "spark_cluster" / "master.pid").write_text(str(master.pid))
    assert cluster_script("stop", HOME=str(tmp_path), **places).code == 0
    assert master.wait(timeout=10) == -signal.SIGKILL
    assert_one_line_error(cluster_script("stop", HOME="", XDG_CACHE_HOME=""), "found no HOME", "--folder")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--workers", "0"], "--workers: found 0"),
        (["--cores", "many"], "--cores: found many"),
        (["--memory", "4"], "--memory: found 4, expected a size"),
        (["--memory"], "--memory: found nothing after it"),
    ],
)
def test_options_that_do_not_fit(options, found):
    assert_one_line_error(cluster_script("start", *options), found)
