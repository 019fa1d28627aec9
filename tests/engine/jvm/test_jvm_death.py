"""What is said of a JVM that has ended: the cause, and what to do, in one line."""

import os
import signal
import subprocess

import psutil
import pytest

from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm.death import LOG_HEADER, explain_death, last_words
from sysds_resnet.errors import EngineDied, OutOfMemory, UserError

HADOOP = (
    "26/01/02 10:00:00 WARN util.NativeCodeLoader: Unable to load native-hadoop library for your platform... "
    "using builtin-java classes where applicable\n"
)
USUAL = "WARNING: Using incubator modules: jdk.incubator.vector\n" + HADOOP
CRASH = """#
# A fatal error has been detected by the Java Runtime Environment:
#
#  SIGSEGV (0xb) at pc=0x00007f, pid=1, tid=2
#
# Problematic frame:
# C  [libsysds_helper.so+0x1234]  multiply+0x56
#
"""
NO_MEMORY = """#
# There is insufficient memory for the Java Runtime Environment to continue.
# Native memory allocation (mmap) failed to map 1048576 bytes. Error detail: committing reserved memory.
"""


@pytest.fixture
def explained(tmp_path):
    """A function from an exit code, what a JVM wrote, and its crash file, to the error."""

    def explain(code, log=USUAL, crash=None):
        (tmp_path / "jvm.log").write_text(log)
        path = tmp_path / "hs_err_1.log"
        if crash is not None:
            path.write_text(crash)
        error = explain_death(code, 2**30, tmp_path / "jvm.log", None if crash is None else path)
        assert "\n" not in str(error) and "hadoop" not in str(error)
        return error

    return explain


@pytest.mark.parametrize("code", [-9, 137])
def test_one_that_the_system_killed_is_not_told_to_take_more_heap(explained, code):
    error = explained(code)
    assert type(error) is EngineDied
    assert f"code {code} (SIGKILL): the system killed it, most likely because" in str(error)
    assert "lower --heap" in str(error) and "give it more" not in str(error)


@pytest.mark.parametrize("code", [-11, -6, 134, 139, -7])
def test_a_crash_names_the_frame_and_the_file(explained, code):
    error = explained(code, crash=CRASH)
    assert type(error) is EngineDied
    assert "it crashed in C [libsysds_helper.so+0x1234] multiply+0x56; see " in str(error)
    assert "hs_err_1.log" in str(error)
    assert "it crashed (it said nothing)" in str(explained(code))


@pytest.mark.parametrize("code", [1, -6])
def test_memory_that_the_system_does_not_give_is_no_bug(explained, code):
    error = explained(code, crash=NO_MEMORY)
    assert type(error) is EngineDied and "failed to map 1048576 bytes" in str(error)
    assert "lower --heap" in str(error) and "crashed" not in str(error)


def test_a_full_heap_asks_for_more(explained):
    for log in (USUAL, USUAL + "Terminating due to java.lang.OutOfMemoryError: Java heap space\n"):
        error = explained(3, log)
        assert type(error) is OutOfMemory
        assert str(error).startswith("JVM: found its heap of 1.0 GiB full") and "--heap" in str(error)


def test_what_more_heap_does_not_help_is_not_called_a_full_heap(explained):
    line = "Terminating due to java.lang.OutOfMemoryError: Metaspace"
    error = explained(3, USUAL + line + "\n")
    assert type(error) is EngineDied and line in str(error)


def test_one_that_was_ended_says_so(explained):
    for code in (143, -15):
        assert f"code {code} (SIGTERM): something ended it from outside" in str(explained(code))
    assert "code that only spark-submit knows (it said nothing)" in str(explained(None))


def test_last_words_are_of_this_jvm_and_tell_something(tmp_path):
    log = tmp_path / "jvm.log"
    log.write_text(f"{LOG_HEADER}Error: of the one before\n{LOG_HEADER}{USUAL}")
    assert last_words(log) == "it said nothing"
    trace = "Exception in thread: no room\n\tat a.B.c(B.java:1)\n\t... 12 more\n" + HADOOP
    log.write_text(LOG_HEADER + trace)
    assert last_words(log) == "Exception in thread: no room"
    assert last_words(tmp_path / "none") == "its log cannot be read"


def test_a_jvm_that_crashes_leaves_its_log_and_its_crash_file_in_the_folder_for_them(tmp_path):
    """With characters in its name that Java gives a meaning."""
    folder = tmp_path / "50%p of a run"
    folder.mkdir()
    with Engine(heap=2**29, logs=folder) as engine:
        pid = engine._owned.process.pid
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(EngineDied, match=rf"it crashed.*; see .*hs_err_{pid}\.log"):
            engine.run("y = 1", {}, {"y": "int"})
    assert sorted(path.name for path in folder.iterdir()) == [f"hs_err_{pid}.log", "jvm.log"]


def test_an_interrupted_start_leaves_no_jvm(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    started = []
    popen = subprocess.Popen
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    monkeypatch.setattr("sysds_resnet.engine.jvm.process.Jvm._read_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Engine(heap=2**29)
    assert started and not psutil.pid_exists(started[-1].pid)


def test_the_error_is_one_that_users_can_mend():
    assert issubclass(EngineDied, UserError) and not issubclass(EngineDied, OutOfMemory)
