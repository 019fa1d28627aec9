"""How a run is divided among the processes of a machine, and what each is told."""

import os

import pytest

from sysds_resnet.engine.jvm.memory import default_heap
from sysds_resnet.errors import UserError
from sysds_resnet.settings.command_line import build
from sysds_resnet.system import machine
from sysds_resnet.training.processes import launcher
from sysds_resnet.training.processes.job import Job
from sysds_resnet.training.settings import TrainSettings


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8, 16)))
    monkeypatch.setattr(machine, "_groups", lambda _: iter(()))


def jobs(tmp_path, gpus=(), **values):
    return launcher.jobs(build(TrainSettings, values), tmp_path, gpus, [{"step": 1}])


def test_processes_share_the_cores_and_the_memory(eight_cores, tmp_path):
    found = jobs(tmp_path, processes=3)
    assert [job.rank for job in found] == [0, 1, 2] and {job.size for job in found} == {3}
    assert [core for job in found for core in job.cores] == list(range(8, 16))
    assert {len(job.cores) for job in found} == {2, 3}
    assert {job.threads for job in found} == {2}
    assert {job.heap for job in found} == {default_heap() // 3}
    assert [job.changes for job in found] == [[{"step": 1}], [], []]


def test_a_heap_that_is_asked_for_is_that_of_each(tmp_path):
    assert {job.heap for job in jobs(tmp_path, processes=2, heap="1g")} == {2**30}


def test_more_processes_than_cores_have_a_core_each(eight_cores, tmp_path):
    found = jobs(tmp_path, processes=20)
    assert {len(job.cores) for job in found} == {1} and {job.threads for job in found} == {1}
    assert {core for job in found for core in job.cores} == set(range(8, 16))


def test_each_gpu_has_a_process(tmp_path):
    assert [list(job.gpus) for job in jobs(tmp_path, gpus=(2, 5))] == [[2], [5]]
    with pytest.raises(UserError, match="processes: found 3 for 2 GPU, expected a GPU for each"):
        jobs(tmp_path, gpus=(0, 1), processes=3)


def test_a_job_is_a_line_of_text(tmp_path):
    first, second = jobs(tmp_path, processes=2, dataset="synthetic", image_size=64, workers=3)
    for job in (first, second):
        line = job.to_line()
        assert "\n" not in line and Job.from_line(line).to_line() == line
        settings = Job.from_line(line).settings()
        assert (settings.dataset, settings.image_size, settings.workers) == ("synthetic", 64, 3)
    [default, _] = jobs(tmp_path, processes=2)
    assert default.settings().workers == default.threads
