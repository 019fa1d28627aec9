"""Folders that one process holds: others are told who, and the lock ends with the process."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from sysds_resnet.errors import UserError
from sysds_resnet.system import folder_lock
from sysds_resnet.system.folder_lock import LOCK_FILE, FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from sysds_resnet.system.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1]), "a run", print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def held(folder, note=pytest.fail):
    return FolderLock(folder, "a run", note)


def test_a_held_folder_is_refused_and_the_holder_named(holder, tmp_path):
    with pytest.raises(UserError) as caught:
        held(tmp_path)
    assert str(caught.value).startswith(
        f"{tmp_path}: found a run at work there, process {holder.pid} on {socket.gethostname()}, expected"
    )


def test_a_killed_holder_lets_go(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()
    with held(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path):
    with held(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    held(tmp_path).release()
    child.communicate(b"\n")


def test_a_lock_is_held_by_one_object_of_a_process_at_a_time(tmp_path):
    with held(tmp_path):
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            held(tmp_path)
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):  # the refusal has let nothing go
            held(tmp_path)


def test_a_lock_file_removed_while_it_is_taken_is_taken_anew(tmp_path, monkeypatch):
    """The holder ends between another's opening of the file and its lock on it."""
    first, flock = held(tmp_path), folder_lock.fcntl.flock

    def late(file, how):
        monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
        first.release()
        return flock(file, how)

    monkeypatch.setattr(folder_lock.fcntl, "flock", late)
    with held(tmp_path), pytest.raises(UserError, match="found a run at work there"):
        held(tmp_path)


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that says what NFS says without its lock daemon."""

    def refuse(_file, _how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)


def test_a_file_system_without_locks_is_noted_and_the_file_stands_for_the_lock(tmp_path, without_locks):
    notes = []
    with held(tmp_path, notes.append):
        assert len(notes) == 1 and "has no locks (no locks available)" in notes[0]
        with pytest.raises(UserError, match=f"process {os.getpid()} on .*, or remove this file if it has"):
            held(tmp_path, notes.append)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("here", [True, False])
def test_without_locks_what_a_killed_process_left_is_taken_where_that_is_known(tmp_path, without_locks, here):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    holder = {"pid": gone.pid, "host": socket.gethostname() if here else "another-host"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(holder))
    if here:
        held(tmp_path, lambda text: None).release()
    else:
        with pytest.raises(UserError, match="on another-host writes to this folder"):
            held(tmp_path, lambda text: None)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("function", ["open", "pwrite"])
def test_a_folder_that_takes_no_files_is_an_error_of_one_line(tmp_path, monkeypatch, code, function):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folder_lock.os, function, refuse)
    with pytest.raises(
        UserError, match=f"^{tmp_path}.* cannot be written .*\\({os.strerror(code).lower()}\\)"
    ):
        held(tmp_path)
