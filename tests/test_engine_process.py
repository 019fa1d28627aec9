"""The engine's JVM as a process: who may talk to it, when it ends, and what is said when it ended early."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from py4j.java_gateway import GatewayParameters, JavaGateway
from py4j.protocol import Py4JError

from sysds_resnet.engine import Engine
from sysds_resnet.errors import OutOfMemory, UserError

HEAP = 512 * 2**20
PARENT = """
import json, time
from sysds_resnet.engine import Engine
engine = Engine(heap=512 * 2**20)
print(json.dumps([engine._owned.process.pid, str(engine._owned.folder)]), flush=True)
time.sleep(60)
"""


@pytest.fixture
def own_engine():
    """An engine that a test may kill."""
    with Engine(heap=HEAP) as engine:
        yield engine


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends(pid, seconds=10.0):
    """Whether a process is gone before that many seconds have passed."""
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


# Its end


def test_the_jvm_ends_when_its_python_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pid, folder = json.loads(parent.stdout.readline())
    try:
        assert is_running(pid)
        parent.kill()
        parent.communicate()
        assert ends(pid)
    finally:
        shutil.rmtree(folder)


def test_ctrl_c_in_the_terminal_does_not_reach_the_jvm(engine):
    pid = engine._owned.process.pid
    assert os.getpgid(pid) != os.getpgid(0) and os.getsid(pid) != os.getsid(0)


def test_leaving_a_with_statement_ends_the_jvm_and_removes_its_folder():
    with pytest.raises(ZeroDivisionError), Engine(heap=HEAP) as engine:
        pid, folder = engine._owned.process.pid, engine._owned.folder
        assert is_running(pid) and folder.is_dir()
        raise ZeroDivisionError
    assert not is_running(pid) and not folder.exists()
    engine.close()  # once more does no harm


def test_an_engine_that_was_not_closed_leaves_nothing():
    done = subprocess.run(
        [sys.executable, "-c", PARENT.replace("60", "0")], stdout=subprocess.PIPE, text=True
    )
    pid, folder = json.loads(done.stdout)
    assert done.returncode == 0 and ends(pid) and not os.path.exists(folder)


def test_a_jvm_killed_before_a_run_is_a_one_line_error(own_engine, capfd):
    handle = own_engine.from_numpy(np.ones((2, 2)))
    own_engine.run("Y = X", {"X": handle}, {"Y": "matrix"})
    os.kill(own_engine._owned.process.pid, signal.SIGKILL)
    own_engine._owned.process.wait()
    for use, *arguments in (
        (own_engine.run, "Y = X", {"X": handle}, {"Y": "matrix"}),
        (own_engine.run, "y = 1", {}, {"y": "int"}),
        (own_engine.from_numpy, np.ones((2, 2))),
        (own_engine.to_numpy, handle),
        (own_engine.make_list, [handle]),
    ):
        with pytest.raises(
            UserError,
            match=r"^JVM: it ended with code -9 \(SIGKILL\): the system killed it, .*; lower --heap",
        ) as caught:
            use(*arguments)
        assert "\n" not in str(caught.value)
    del handle, use, arguments  # py4j tells the JVM of handles that are let go
    own_engine.close()
    assert capfd.readouterr().err == ""


def test_a_jvm_killed_during_a_run_is_a_one_line_error(own_engine, capfd):
    threading.Timer(1.0, os.kill, [own_engine._owned.process.pid, signal.SIGKILL]).start()
    with pytest.raises(UserError, match=r"^JVM: it ended with code -9"):
        own_engine.run("y = 0\nwhile (y < 1e12) { y = y + x }", {"x": 1.0}, {"y": "double"})
    assert capfd.readouterr().err == ""


def test_a_jvm_out_of_memory_is_a_one_line_error_that_advises_more_heap(own_engine):
    program = "X = rand(rows=n, cols=n)\nY = X %*% X + t(X)\ny = sum(Y)"
    with pytest.raises(OutOfMemory, match=r"^JVM: found its heap of 0.5 GiB full, .*--heap"):
        own_engine.run(program, {"n": 7000}, {"y": "double"})


def test_a_heap_that_cannot_be_had_is_a_one_line_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sysds_resnet.engine.jvm.dml_home", lambda: tmp_path)  # where the JVM starts
    with pytest.raises(UserError, match=r"^JVM: .* did not start with a heap of 67108864m \(.+\);") as caught:
        Engine(heap=2**46)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Its door


def test_the_gateway_listens_on_loopback_only(engine):
    sockets = [s for s in psutil.Process(engine._owned.process.pid).net_connections() if s.status == "LISTEN"]
    assert sockets
    assert {s.laddr.ip.removeprefix("::ffff:") for s in sockets} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("token", [None, "guessed"])
def test_the_gateway_refuses_a_client_without_the_token(engine, token):
    port = engine._gateway.gateway_parameters.port
    stranger = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token))
    with pytest.raises(Py4JError, match=r"[Aa]uthenticat"):
        stranger.jvm.System.currentTimeMillis()
    stranger.close()
    assert engine.run("y = 1", {}, {"y": "int"})["y"] == 1


def test_only_the_owner_sees_the_shared_folder(engine):
    assert engine._owned.folder.stat().st_mode & 0o077 == 0


def test_two_engines_run_side_by_side(engine, engine_java):
    for one in (engine, engine_java, engine):
        assert one.run("y = x * 2", {"x": 21}, {"y": "int"})["y"] == 42
