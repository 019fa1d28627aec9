"""What the tasks of a cluster are to each other: numbers, addresses and GPUs of their processes."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from sysds_resnet.errors import EngineDied, UserError
from sysds_resnet.training.spark.executor import _address, _gpu, _machines, _rank, _silent


def context(partition, hosts, assigned=None):
    infos = [SimpleNamespace(address=f"{host}:7077") for host in hosts]
    found = {} if assigned is None else {"gpu": SimpleNamespace(addresses=[assigned])}
    return SimpleNamespace(partitionId=lambda: partition, getTaskInfos=lambda: infos, resources=lambda: found)


def test_it_is_in_the_network_that_is_asked_for():
    assert _address(context(0, ["203.0.113.1"]), "127.0.0.0/8") == "127.0.0.1"
    with pytest.raises(UserError, match=r"sum_network: found no address in 203\.0\.113\.0/24 on"):
        _address(context(0, ["127.0.0.1"]), "203.0.113.0/24")


def test_or_else_it_is_the_one_that_spark_knows():
    assert _address(context(1, ["203.0.113.1", "localhost"]), None) == "127.0.0.1"


def test_tasks_of_a_machine_have_different_gpus():
    hosts = ["one", "other", "one", "other", "one"]
    assert [_gpu(context(i, hosts)) for i in range(5)] == [0, 0, 1, 1, 2]
    assert _gpu(context(1, hosts, assigned="3")) == 3


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("aaa", [0, 1, 2]),
        ("baba", [0, 2, 1, 3]),
        ("cabacb", [0, 2, 4, 3, 1, 5]),
    ],
)
def test_processes_of_a_machine_are_neighbours(hosts, expected):
    ranks = [_rank(context(task, hosts)) for task in range(len(hosts))]
    assert ranks == expected
    by_rank = _machines(context(0, hosts))
    assert [by_rank[rank] for rank in ranks] == list(hosts)
    assert sum(one != other for one, other in pairwise(by_rank)) == len(set(hosts)) - 1


def test_those_that_do_not_wait_are_named_with_their_machines(tmp_path):
    child = SimpleNamespace(rank=1, told={"waited": 300.0}, grace=0)
    folder, machines = tmp_path / "waiting", ["a", "a", "b", "b"]
    text = "^process 0 on a, 2 on b, 3 on b: found no answer for 300 s, in which the others waited for it"
    with pytest.raises(EngineDied, match=text):
        raise _silent(child, folder, machines)
    (folder / "3").touch()
    (folder / "0").touch()
    with pytest.raises(EngineDied, match=r"^process 2 on b: found"):
        raise _silent(child, folder, machines)
    (folder / "2").touch()
    assert _silent(child, folder, machines) is None
    with pytest.raises(EngineDied, match=r"process 0 on a, .* 8 on a and 92 more: found"):
        raise _silent(child, tmp_path / "other", 101 * ["a"])
