"""How much of a machine a process may use, as control groups and limits say."""

import os
import re
import resource
import subprocess
import sys

import psutil
import pytest

from sysds_resnet.batches import readers
from sysds_resnet.engine.jvm import memory
from sysds_resnet.engine.spark import cluster
from sysds_resnet.system import machine

GROUPS_V1 = "4:memory:/jobs/job 7\n3:cpu,cpuacct:/jobs/job 7\n1:name=systemd:/\n0::/\n"
MOUNTS_V1 = (
    "31 23 0:28 / {0}/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "35 31 0:32 {1} {0}/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
    "32 31 0:29 {1} {0}/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
)
GROUPS_V2 = "0::/user.slice/job 7\n"
MOUNTS_V2 = "35 31 0:32 {1} {0}/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """Lays out control groups as the kernel shows them; gives a function that writes limits into them."""

    def lay_out(groups, mounts, root="/", **limits):
        (tmp_path / "cgroup").write_text(groups)
        (tmp_path / "mountinfo").write_text(mounts.format(tmp_path / "fs", root.replace(" ", "\\040")))
        monkeypatch.setattr(machine, "PROC", tmp_path)
        for name, text in limits.items():
            path = tmp_path / "fs" / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return lay_out


GB = 10**9


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory.max": "max"}, None),
        ({"user.slice/job 7/memory.max": GB}, GB),
        ({"user.slice/memory.max": GB, "user.slice/job 7/memory.max": "max"}, GB),
        ({"user.slice/memory.max": 2 * GB, "user.slice/job 7/memory.max": GB}, GB),
        ({"user.slice/memory.max": GB, "user.slice/job 7/memory.max": 2 * GB}, GB),
        ({"user.slice/job 7/memory.high": GB, "user.slice/job 7/memory.max": 2 * GB}, GB),
        ({"user.slice/job 8/memory.max": GB}, None),
    ],
)
def test_memory_is_that_of_the_least_control_group_around_this_process(control_groups, limits, expected):
    control_groups(GROUPS_V2, MOUNTS_V2, **limits)
    assert machine.memory_limit() == (expected or psutil.virtual_memory().total)
    if expected:
        assert memory.default_heap() == max(expected // 2, memory.MIN_HEAP)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory/memory.limit_in_bytes": 2**63 - 4096}, None),
        ({"memory/jobs/job 7/memory.limit_in_bytes": GB, "memory/memory.limit_in_bytes": 2**62}, GB),
        ({"memory/jobs/memory.limit_in_bytes": GB, "memory/jobs/job 7/memory.limit_in_bytes": 2**62}, GB),
    ],
)
def test_older_control_groups_are_read_too(control_groups, limits, expected):
    control_groups(GROUPS_V1, MOUNTS_V1, **limits)
    assert machine.memory_limit() == (expected or psutil.virtual_memory().total)


@pytest.mark.parametrize("root", ["/jobs/job 7", "/jobs", "/elsewhere", "/../.."])
def test_in_a_container_what_is_mounted_is_its_own_part(control_groups, root):
    inside = "memory/job 7" if root == "/jobs" else "memory"
    control_groups(GROUPS_V1, MOUNTS_V1, root, **{f"{inside}/memory.limit_in_bytes": GB})
    assert machine.memory_limit() == GB


@pytest.mark.parametrize(
    ("groups", "mounts", "limits", "expected"),
    [
        (GROUPS_V2, MOUNTS_V2, {"user.slice/job 7/cpu.max": "100000 100000"}, 1),
        (GROUPS_V2, MOUNTS_V2, {"user.slice/cpu.max": "50000 100000"}, 1),
        (GROUPS_V2, MOUNTS_V2, {"user.slice/job 7/cpu.max": "150000 100000"}, 2),
        (GROUPS_V2, MOUNTS_V2, {"user.slice/job 7/cpu.max": "max 100000"}, 8),
        (GROUPS_V1, MOUNTS_V1, {"cpu,cpuacct/jobs/job 7/cpu.cfs_quota_us": 250000}, 3),
        (GROUPS_V1, MOUNTS_V1, {"cpu,cpuacct/jobs/job 7/cpu.cfs_quota_us": -1}, 8),
    ],
)
def test_cores_are_those_that_control_groups_leave(
    control_groups, monkeypatch, groups, mounts, limits, expected
):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
    limits = {**limits, "cpu,cpuacct/jobs/job 7/cpu.cfs_period_us": 100000}
    control_groups(groups, mounts, **limits)
    assert machine.cores() == expected
    assert readers.default_workers() == expected and cluster.local_workers("local[*]") == expected


def test_without_control_groups_there_are_no_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert machine.memory_limit() == psutil.virtual_memory().total
    assert machine.cores() == len(os.sched_getaffinity(0))


def with_addresses(limit, program):
    """What a program in Python prints that may use so many bytes of addresses."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    return done.stdout


def test_a_limit_of_addresses_bounds_the_heap():
    limit = 6 * 2**30
    program = "from sysds_resnet.engine.jvm.memory import default_heap; print(default_heap())"
    heap = with_addresses(limit, program)
    assert memory.MIN_HEAP <= int(heap) <= limit // 2


def test_a_jvm_that_a_limit_of_addresses_stops_says_so():
    program = (
        "from sysds_resnet.engine import Engine\n"
        "from sysds_resnet.errors import UserError\n"
        "try:\n    Engine(heap=3 * 2**30)\nexcept UserError as error:\n    print(error)"
    )
    said = with_addresses(7 * 2**29, program)
    assert re.match(
        r"JVM: .* did not start with a heap of 3072m \(.+; ulimit -v allows it 3584m in all\)", said
    )
