"""The address on which the first of several processes listens, on a machine of a cluster."""

from types import SimpleNamespace

import pytest

from sysds_resnet.errors import UserError
from sysds_resnet.training.spark.executor import _address, _gpu


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
