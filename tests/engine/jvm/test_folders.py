"""Where native libraries go and where memory is shared, on machines whose usual folders do not do."""

import errno
import json
import mmap
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from mounts import needs_mounts, run_mounted

from sysds_resnet.batches import readers
from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm import folders, multiply
from sysds_resnet.errors import NotAsAsked, UserError
from sysds_resnet.images import open_dataset

HEAP = 512 * 2**20
MULTIPLY = """
import json, sys
import numpy as np
from sysds_resnet.engine import Engine
with Engine("single", heap=512 * 2**20) as engine:
    a = np.arange(12.0).reshape(3, 4)
    found = engine.to_numpy(engine.run("C = A %*% B", {"A": a, "B": a.T}, {"C": "matrix"})["C"])
    right = np.array_equal(found, a @ a.T)
    print(json.dumps([str(engine.multiply), str(engine._owned.folder.parent), right]))
"""


@pytest.fixture
def places(monkeypatch):
    """Two candidates in the place of this machine's, with short names wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        found = [Path(parent, "first"), Path(parent, "second")]
        for folder in found:
            folder.mkdir()
        monkeypatch.setattr(folders, "candidates", lambda: found)
        yield found


def forbid_execution(monkeypatch, *forbidden):
    """Have files in some folders fail to be mapped for execution, as where they are mounted noexec."""
    real = mmap.mmap

    def mapped(descriptor, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, **others):
        folder = Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent
        if prot & mmap.PROT_EXEC and folder in forbidden:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(descriptor, length, **others) if others else real(descriptor, length, flags, prot)

    monkeypatch.setattr(folders.mmap, "mmap", mapped)


def fill(monkeypatch, *full):
    """Have some folders be full."""
    real = os.posix_fallocate

    def allocate(descriptor, start, size):
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, start, size)

    monkeypatch.setattr(folders.os, "posix_fallocate", allocate)


# Libraries


def test_libraries_go_to_the_first_folder_that_they_load_from(places, monkeypatch):
    assert folders.find_loadable() == (places[0], "")
    forbid_execution(monkeypatch, places[0])
    assert folders.find_loadable() == (places[1], "")
    assert folders.make_private_folder().parent == places[1]


@pytest.mark.parametrize("make", ["missing", "a file", "small", "long"])
def test_a_folder_that_does_not_do_is_passed_over(places, monkeypatch, make, tmp_path):
    first = places[0]
    if make == "small":
        real = os.statvfs
        monkeypatch.setattr(
            folders.os,
            "statvfs",
            lambda f: os.statvfs_result([4096, 4096, 9, 1, 1, 0, 0, 0, 0, 255]) if f == first else real(f),
        )
    elif make == "long":
        places[0] = tmp_path / ("a" * 90)
        places[0].mkdir()
    else:
        first.rmdir()
        if make == "a file":
            first.touch()
    assert folders.find_loadable()[0] == places[1]
    assert first.exists() == (make != "missing"), "nothing is made outside of the user's cache"


def test_a_named_temporary_folder_comes_before_the_others(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = folders.candidates()
    assert found[:2] == [Path("/dev/shm"), tmp_path]
    assert Path("/var/tmp") in found and multiply.HELPER_FOLDER in found


def test_without_such_a_folder_java_multiplies_and_the_reason_is_said(places, monkeypatch):
    forbid_execution(monkeypatch, *places)
    monkeypatch.setattr(folders.os, "ST_NOEXEC", -1)
    with pytest.warns(NotAsAsked) as caught, Engine("single", heap=HEAP) as engine:
        a = np.arange(12.0).reshape(3, 4)
        product = engine.to_numpy(engine.run("C = A %*% B", {"A": a, "B": a.T}, {"C": "matrix"})["C"])
    assert np.array_equal(product, a @ a.T)
    first, second = places
    assert str(caught[0].message) == (
        "multiplies in FP64 by plain Java (found no folder that libraries can be loaded from: "
        f"{first} (mounted noexec), {second} (mounted noexec); set TMPDIR to a folder that is not mounted "
        "noexec)"
    )
    assert not any(first.iterdir()) and not any(second.iterdir())


@pytest.mark.parametrize("asked", ["double", "single", "bf16"])
def test_every_precision_says_that_libraries_cannot_be_loaded(places, monkeypatch, asked):
    forbid_execution(monkeypatch, *places)
    for blas_asked in ("auto", "openblas"):
        chosen = multiply.choose(asked, blas_asked, own_jvm=True)
        assert (chosen.precision, chosen.library, chosen.native) == ("double", None, False)
        assert "found no folder that libraries can be loaded from" in chosen.note and "TMPDIR" in chosen.note
    assert "no folder" not in multiply.choose("double", "none", own_jvm=True).note


def test_a_library_that_the_jvm_does_not_load_is_named_with_the_reason(monkeypatch, tmp_path):
    """As where it needs a newer run time than the JVM finds, though Python has one."""
    broken = tmp_path / "libdnnl.so.3"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(multiply, "choose", lambda *_, **__: multiply.Multiply("single", broken, True))
    with pytest.warns(
        NotAsAsked, match=r"multiplies in FP64 by plain Java \(the engine does not load .*libdnnl"
    ):
        engine = Engine("single", heap=HEAP)
    with engine:
        assert engine.multiply.precision == "double" and "too short" in engine.multiply.note


def test_a_precision_as_asked_is_not_warned_of():
    if multiply.helper_problem() is not None:
        pytest.skip("no native helper")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Engine("single", heap=HEAP).close()


# Shared memory


def test_what_two_processes_map_lies_in_memory(monkeypatch, tmp_path):
    path = folders.make_shared_file(2**20, [tmp_path])
    try:
        assert path.parent == folders.SHARED_MEMORY and path.stat().st_size == 2**20
    finally:
        path.unlink()


@pytest.mark.parametrize("make", ["missing", "full"])
def test_without_room_in_shared_memory_another_folder_serves(monkeypatch, tmp_path, make):
    shared, other = tmp_path / "shm", tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(folders, "SHARED_MEMORY", shared)
    if make == "full":
        shared.mkdir()
        fill(monkeypatch, shared)
    path = folders.make_shared_file(2**20, [other])
    assert path.parent == other and path.stat().st_size == 2**20
    assert make == "missing" or not any(shared.iterdir())


def test_without_room_anywhere_the_error_names_the_folders(monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(folders, "temporary_folders", lambda: [])
    fill(monkeypatch, tmp_path)
    with pytest.raises(UserError) as caught:
        folders.make_shared_file(16 * 2**20, [tmp_path])
    assert str(caught.value).startswith(
        f"shared memory: found no folder with room for 16 MB: {tmp_path}/shm (no such file or directory), "
        f"{tmp_path} (no space left on device); "
    )
    assert not any(tmp_path.iterdir())


def test_readers_are_threads_where_processes_can_share_nothing(monkeypatch, source):
    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(readers.loky, "ProcessPoolExecutor", no_room)
    dataset = open_dataset(source, "train", image_size=8)
    with (
        pytest.warns(NotAsAsked, match="threads in place of processes.*no space left on device.*--shm-size"),
        readers.Readers([dataset], 2) as pool,
    ):
        found = pool.submit(dataset, np.arange(2), 0, replace=False).result()
    assert len(found.images) == 2 and not found.errors


# On real mounts


@needs_mounts
@pytest.mark.parametrize(
    ("mounts", "place"),
    [
        pytest.param({"/dev/shm": "noexec,size=64m"}, "/tmp", marks=pytest.mark.long),  # Docker's default
        ({"/dev/shm": "noexec,size=64m", "/tmp": "noexec"}, "/var/tmp"),
        pytest.param({"/dev/shm": "size=1m"}, "/tmp", marks=pytest.mark.long),
        pytest.param({"/dev/shm": "ro"}, "/tmp", marks=pytest.mark.long),
    ],
    ids=str,
)
def test_the_precision_is_kept_in_a_container(mounts, place):
    if multiply.helper_problem() is not None:
        pytest.skip("no native helper")
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    done = run_mounted(mounts, sys.executable, "-c", MULTIPLY, env=environment)
    assert done.stderr == ""
    assert json.loads(done.stdout) == ["FP32 by oneDNN", place, True]


@pytest.mark.long
@needs_mounts
def test_the_command_line_of_systemds_loads_openblas_where_tmp_is_noexec():
    if multiply.find_openblas() is None:
        pytest.skip("no OpenBLAS")
    program = "A = matrix(2, rows=50, cols=50)\nprint(sum(A %*% A))\n"
    done = run_mounted({"/tmp": "noexec"}, "scripts/systemds", "-s", program, "-stats")
    assert "Native openblas calls (dense mult/conv/bwdF/bwdD):\t1/0/0/0" in done.stdout, done


def test_options_for_libraries_are_given_only_where_tmp_does_not_do(places, monkeypatch):
    assert folders.loading_options() == []
    monkeypatch.setattr(folders, "candidates", lambda: [folders.SHARED_MEMORY, *places])
    real = folders.loading_problem
    monkeypatch.setattr(
        folders, "loading_problem", lambda f: "mounted noexec" if f == Path("/tmp") else real(f)
    )
    assert folders.loading_options() == [f"-Djava.io.tmpdir={places[0]}"], "memory comes last"
