"""The engine's JVM as a process: who may talk to it, when it ends, and what is said when it ended early."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm.process import SOCKET
from sysds_resnet.errors import EngineDied, OutOfMemory, UserError

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
    cause = r"JVM: it ended with code -9 \(SIGKILL\): the system killed it, .*; lower --heap"
    with pytest.raises(EngineDied, match=f"^{cause}"):
        own_engine.run("Y = X", {"X": handle}, {"Y": "matrix"})
    for use, *arguments in (
        (own_engine.run, "Y = X", {"X": handle}, {"Y": "matrix"}),
        (own_engine.run, "y = 1", {}, {"y": "int"}),
        (own_engine.from_numpy, np.ones((2, 2))),
        (own_engine.to_numpy, handle),
        (own_engine.make_list, [handle]),
    ):
        with pytest.raises(
            EngineDied, match=rf"^engine: found one whose JVM has ended, .*; open another one, .*{cause}"
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
    monkeypatch.setattr("sysds_resnet.engine.jvm.process.dml_home", lambda: tmp_path)  # where the JVM starts
    with pytest.raises(UserError, match=r"^JVM: .* did not start with a heap of 67108864m \(.+\);") as caught:
        Engine(heap=2**46)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Its door


def test_the_jvm_listens_at_no_port(engine):
    sockets = psutil.Process(engine._owned.process.pid).net_connections(kind="inet")
    assert [s for s in sockets if s.status == "LISTEN"] == []


@pytest.mark.parametrize("token", [b"", b"c\no\nhashCode\ne\n" + bytes(16), bytes(32), bytes(64)])
def test_the_gateway_refuses_a_client_without_the_token(engine, token):
    with stranger(engine) as connection:
        connection.sendall(token)
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection) == b""
    assert engine.run("y = 1", {}, {"y": "int"})["y"] == 1


def test_a_connection_without_the_token_takes_no_memory(own_engine):
    """py4j's own gateway would keep all of it, as the beginning of a line, until the heap is full."""
    part = bytes(2**20)
    with stranger(own_engine) as connection, pytest.raises(OSError):
        for _ in range(HEAP // len(part) + 1):
            connection.sendall(part)
    assert own_engine.run("y = 1", {}, {"y": "int"})["y"] == 1


def test_a_connection_that_says_nothing_is_closed_and_others_are_served_meanwhile(engine):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(stranger(engine)) for _ in range(50)]
        assert engine.run("y = 1", {}, {"y": "int"})["y"] == 1
        assert {answer(connection) for connection in silent} == {b""}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect_to_the_gateway(engine):
    program = "import os, socket, sys; os.setuid(65534); socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    path = engine._owned.folder / SOCKET
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "PermissionError" in done.stderr


def test_a_folder_whose_name_is_too_long_for_a_socket_is_a_one_line_error(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr("sysds_resnet.engine.jvm.folders.candidates", lambda: [folder])
    with pytest.raises(UserError, match=r"^TMPDIR: found .*, expected a name of at most \d+ bytes"):
        Engine(heap=HEAP)
    assert list(folder.iterdir()) == []


def stranger(engine):
    """A connection to the gateway of somebody who does not know the token."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(engine._owned.folder / SOCKET))
    return connection


def answer(connection):
    """What comes before the end of a connection."""
    try:
        return connection.recv(100)
    except ConnectionResetError:  # with something that was not read
        return b""


def test_only_the_owner_sees_the_shared_folder(engine):
    assert engine._owned.folder.stat().st_mode & 0o077 == 0


def test_two_engines_run_side_by_side(engine, wide_engine):
    for one in (engine, wide_engine, engine):
        assert one.run("y = x * 2", {"x": 21}, {"y": "int"})["y"] == 42


# What is said afterwards


def test_a_closed_engine_says_so_whatever_is_called():
    engine = Engine(heap=HEAP, blas="none", fused=False)
    model = ResNet(18, num_classes=3, engine=engine)
    matrix = engine.from_numpy(np.ones((2, 2)))
    images = np.zeros((2, 32, 32, 3), np.uint8)
    model.logits(images)
    engine.close()
    engine.close()
    for use, *arguments in (
        (engine.run, "y = 1", {}, {"y": "int"}),
        (engine.from_numpy, np.ones((2, 2))),
        (engine.send, np.ones((2, 2))),
        (engine.to_numpy, matrix),
        (engine.make_list, [matrix]),
        (engine.list_items, model.weights),
        (engine.compact, model.weights),
        (engine.free, [model.weights], []),
        (engine.heap_used,),
        (engine.collection_seconds,),
        (engine.matrices.write, Path("/nowhere"), np.ones((2, 2))),
        (engine.record().__enter__,),
        (engine.alone().__enter__,),
        (model.logits, images),
        (model.predict, images),
        (model.predict_proba, images),
        (model.evaluate, images, [0, 1]),
        (partial(model.fit, epochs=1, batch_size=2), images, [0, 1]),
        (model.send, images),
        (model.state_dict,),
        (model.save, "/nowhere/w.safetensors"),
        (model.load_state_dict, {}),
        (ResNet, 18, 3, 3, 42, False, engine),
    ):
        with pytest.raises(UserError) as caught:
            use(*arguments)
        assert "\n" not in str(caught.value)
        if use != model.load_state_dict:  # which looks at the weights first
            assert str(caught.value) == "engine: found it closed, expected it open; open another one", use


def test_what_another_thread_runs_ends_with_the_engine(own_engine):
    threading.Timer(1.0, own_engine.close).start()
    with pytest.raises(UserError, match=r"^engine: found it closed"):
        own_engine.run("y = 0\nwhile (y < 1e12) { y = y + x }", {"x": 1.0}, {"y": "double"})
