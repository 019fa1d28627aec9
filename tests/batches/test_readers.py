"""The workers that read samples: what they survive, and what survives them."""

import time
from itertools import product

import numpy as np
import psutil
import pytest
from command_line import reading_processes, start_python
from deadly_images import Deadly, KilledAtStart
from PIL import Image

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset, open_images


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 images, whose number i is filled with 10*i."""
    for i in range(12):
        path = tmp_path / "train" / "abc"[i // 4] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (10 * i,) * 3).save(path)
    return tmp_path


def test_images_are_read_in_other_processes_that_live_on_over_streams(photos):
    data = open_dataset(photos, "train", image_size=16, augmentation=None)
    with Readers([data], 2) as readers:
        with BatchStream(data, sequential_order(12), 5, readers, drop_last=False, epochs=1) as stream:
            values = np.concatenate([batch.images[:, 0, 0, 0] for batch in stream])
        assert values.tolist() == [10 * i for i in range(12)]
        workers = {p.pid for p in reading_processes()}
        assert len(workers) == 2
        with BatchStream(data, sequential_order(12), 5, readers, drop_last=False, epochs=1) as stream:
            assert len(list(stream)) == 3
        assert {p.pid for p in reading_processes()} == workers
    assert reading_processes() == []


@pytest.mark.parametrize("deaths", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_killed_worker_is_replaced_and_no_sample_is_lost(tmp_path, deaths):
    for i in range(deaths):
        (tmp_path / str(i)).touch()
    data = Deadly(tmp_path)
    with BatchStream(data, sequential_order(4), 2, drop_last=True, epochs=1) as stream:
        batches = list(stream)
    assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1], [2, 3]]
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_workers_that_are_killed_again_and_again_are_an_error_that_names_an_image(tmp_path):
    for i in range(9):
        (tmp_path / str(i)).touch()
    with (
        BatchStream(Deadly(tmp_path), sequential_order(4), 2, drop_last=True, epochs=1) as stream,
        pytest.raises(
            UserError, match=r"^workers: found a reading process killed 4 times, last at image [02]"
        ),
    ):
        list(stream)
    assert reading_processes() == []


def test_no_worker_outlives_a_parent_that_is_killed(photos):
    program = f"""
from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.images import open_dataset
data = open_dataset({str(photos)!r}, "train", image_size=16)
stream = BatchStream(data, sequential_order(12), 4, drop_last=True)
next(stream)
print("reading", flush=True)
next(iter([]), __import__("time").sleep(60))
"""
    process = start_python("-c", program)
    try:
        assert process.stdout.readline().startswith("reading")
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
    finally:
        process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family):
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Images that cannot be read


def spoil(photos, *numbers):
    for path in (photos / "train").rglob("*.png"):
        if int(path.stem) in numbers:
            path.write_bytes(b"no image")


def test_in_training_the_next_good_image_takes_the_place_of_a_bad_one(photos):
    spoil(photos, 3, 7, 8, 11)
    data = open_dataset(photos, "train", image_size=16, augmentation=None)
    bad = []
    with BatchStream(
        data,
        sequential_order(12),
        6,
        drop_last=True,
        epochs=1,
        on_error=lambda _, index, reason: bad.append((index, reason)),
    ) as stream:
        batches = list(stream)
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 4, 4, 5], [6, 9, 9, 9, 10, 0]]
    for batch in batches:
        assert (batch.images[:, 0, 0, 0] == 10 * batch.indices).all()
        assert (batch.labels == batch.indices // 4).all()
    assert sorted({index for index, _ in bad}) == [3, 7, 8, 11]
    assert all(f"{index:02d}.png: found no known image format" in reason for index, reason in bad)


def test_in_evaluation_a_bad_image_is_left_out(photos):
    spoil(photos, 0, 1, 2, 3, 9)
    data = open_images(photos, image_size=16)
    bad = []
    with BatchStream(
        data,
        sequential_order(12),
        4,
        drop_last=False,
        epochs=1,
        on_error=lambda _, index, reason: bad.append(index),
    ) as stream:
        batches = list(stream)
    assert [batch.indices.tolist() for batch in batches] == [[], [4, 5, 6, 7], [8, 10, 11]]
    assert bad == [0, 1, 2, 3, 9]


# Readers that are killed from outside, as by the kernel when memory runs out


def processes_of(readers):
    """The processes of a pool of readers, all of which have started."""
    return [psutil.Process(pid) for pid in readers._pool._processes]


def kill_all(processes):
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=20)


def until_noticed(readers):
    """Wait until the pool knows that its processes are dead."""
    deadline = time.monotonic() + 20
    while readers._pool._flags.broken is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stream_of(data, readers, **options):
    return BatchStream(data, sequential_order(len(data)), 4, readers, drop_last=True, epochs=2, **options)


def values(batches):
    return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


WHOLE = 2 * [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90, 100, 110]]


@pytest.mark.parametrize(
    ("prefetch", "count", "noticed"),
    [
        (2, 2, False),
        *(pytest.param(*case, marks=pytest.mark.long) for case in product((0, 2), (1, 2), (True, False))),
    ],
)
def test_readers_killed_between_batches_are_replaced(photos, count, noticed, prefetch):
    """While a step computes, they are idle: what is read ahead is read."""
    data = open_dataset(photos, "train", image_size=16, augmentation=None)
    with Readers([data], 2) as readers, stream_of(data, readers, prefetch=prefetch) as stream:
        found = [next(stream)]
        for batch in stream._pending:
            for task in batch.tasks:
                task.result()
        kill_all(processes_of(readers)[:count])
        if noticed:
            until_noticed(readers)
        found += stream
    assert values(found) == WHOLE


@pytest.mark.long
def test_readers_may_be_killed_between_any_two_batches(photos):
    """More often than a single batch would stand it: each batch that is read shows that it goes on."""
    data = open_dataset(photos, "train", image_size=16, augmentation=None)
    found = []
    with Readers([data], 1) as readers, stream_of(data, readers) as stream:
        for batch in stream:
            found.append(batch)
            kill_all(processes_of(readers))
            until_noticed(readers)
    assert values(found) == WHOLE


@pytest.mark.long
def test_readers_killed_in_one_stream_are_replaced_in_the_other(photos):
    """Validation reads while batches of the next epoch are read ahead, by the same processes."""
    data = open_dataset(photos, "train", image_size=16, augmentation=None)
    deadly = Deadly(photos / "lives")
    deadly.lives.mkdir()
    with Readers([data, deadly], 2) as readers, stream_of(data, readers) as training:
        found = [next(training)]
        (deadly.lives / "0").touch()
        options = {"drop_last": False, "epochs": 1}
        with BatchStream(deadly, sequential_order(4), 4, readers, **options) as validation:
            assert [batch.images[:, 0, 0, 0].tolist() for batch in validation] == [[0, 1, 2, 3]]
        found += training
    assert values(found) == WHOLE


@pytest.mark.parametrize("deaths", [1, pytest.param(9, marks=pytest.mark.long)])
def test_a_reader_killed_while_it_starts_is_replaced_or_an_error(tmp_path, deaths):
    for i in range(deaths):
        (tmp_path / str(i)).touch()
    data = KilledAtStart(tmp_path)
    with (
        Readers([data], 1) as readers,
        BatchStream(data, sequential_order(4), 4, readers, drop_last=True, epochs=1) as stream,
    ):
        if deaths == 1:
            assert values(stream) == [[0, 1, 2, 3]]
            return
        with pytest.raises(UserError, match=r"^workers: found a reading process killed 4 times, last at"):
            next(stream)


def test_a_system_that_starts_no_processes_is_an_error_of_one_line(photos, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("sysds_resnet.batches.readers.loky.ProcessPoolExecutor", refuse)
    data = open_dataset(photos, "train", image_size=16, augmentation=None)
    with (
        Readers([data], 7) as readers,
        stream_of(data, readers) as stream,
        pytest.raises(UserError, match=r"^workers: found no room for 7 .*\(resource temporarily unavail"),
    ):
        next(stream)
