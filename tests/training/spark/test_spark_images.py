"""Micro-batches that executors read, mix and write, against what one machine reads."""

from types import SimpleNamespace

import numpy as np
import pytest
from spark_images import BATCH, IMAGES, MICRO_BATCH, make_dataset

from sysds_resnet.batches.order import BatchOrder, sequential_order
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.errors import UserError
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.training.spark.images import micro_batches, write_micro_batch


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.mark.parametrize("mixing", [Mixing(), Mixing(mixup=0.4), Mixing(cutmix=1.0)])
@pytest.mark.parametrize("repeats", [1, 2])
def test_executors_read_what_one_machine_reads(engine, dataset, tmp_path, mixing, repeats):
    order = np.random.default_rng(1).permutation(IMAGES)
    options = dict(drop_last=True, repeats=repeats, epochs=1)
    batches = BatchOrder(IMAGES, lambda epoch: order, BATCH, **options)
    known = SimpleNamespace(value=dataset)  # in the place of a broadcast
    with BatchStream(dataset, lambda epoch: order, BATCH, **options) as stream:
        for samples, batch in zip(batches, stream, strict=True):
            images, labels = batch.images, batch.labels
            if mixing:
                images, labels = mixing.apply(images, labels, 7, batch.epoch, batch.step)
            tasks = micro_batches(samples, MICRO_BATCH, str(tmp_path / str(batch.step)))
            written = [write_micro_batch(known, MICRO_BATCH, True, mixing, 7, task) for task in tasks]
            assert [part.errors for part in written] == [[]] * len(tasks)
            rows = read_matrices(engine, [task.path for task in tasks])
            assert np.array_equal(rows.reshape(BATCH, 3, 32, 40).transpose(0, 2, 3, 1), images)
            expected = mixed_columns(labels) if mixing else labels.reshape(BATCH, 1) + 1
            assert np.array_equal(np.concatenate([part.y for part in written]), expected)


def mixed_columns(labels):
    return np.column_stack([labels.own + 1, labels.other + 1, labels.share])


def read_matrices(engine, paths):
    handles = [engine.matrices.open(path, MICRO_BATCH, 3 * 32 * 40) for path in paths]
    return np.concatenate(list(map(engine.to_numpy, engine.list_items(engine.make_list(handles)))))


class Damaged:
    """A data set of which some images cannot be read."""

    def __init__(self, dataset, bad):
        self._dataset, self._bad = dataset, bad

    def __getattr__(self, name):
        return getattr(self._dataset, name)

    def __len__(self):
        return len(self._dataset)

    def image(self, index, epoch):
        if index in self._bad:
            raise UserError("image broken.jpg: found no image")
        return self._dataset.image(index, epoch)


def test_micro_batches_of_an_evaluation_are_filled_up(engine, dataset, tmp_path):
    """Images that cannot be read are left out, and there is nothing in the place of those after the last."""
    order = BatchOrder(7, sequential_order(7), 7, drop_last=False, epochs=1)
    tasks = micro_batches(next(order), MICRO_BATCH, str(tmp_path))
    known = SimpleNamespace(value=Damaged(dataset, [2]))
    written = [write_micro_batch(known, MICRO_BATCH, False, Mixing(), 0, task) for task in tasks]
    rows = read_matrices(engine, [task.path for task in tasks])
    images = np.stack([dataset.image(index, 0) for index in range(7)])
    expected = np.zeros((8, 32, 40, 3))
    expected[[0, 1, 2, 4, 5, 6]] = images[[0, 1, 3, 4, 5, 6]]
    assert np.array_equal(rows.reshape(8, 3, 32, 40).transpose(0, 2, 3, 1), expected)
    y = np.concatenate([part.y for part in written])[:, 0]
    assert y[[3, 7]].tolist() == [0, 0]
    assert np.array_equal(y[[0, 1, 2, 4, 5, 6]], dataset.labels[[0, 1, 3, 4, 5, 6]] + 1)
    assert [error for part in written for error in part.errors] == [(2, "image broken.jpg: found no image")]


def test_a_data_set_without_an_image_that_can_be_read(dataset, tmp_path):
    order = BatchOrder(IMAGES, sequential_order(IMAGES), BATCH, drop_last=True, epochs=1)
    task = micro_batches(next(order), MICRO_BATCH, str(tmp_path))[0]
    known = SimpleNamespace(value=Damaged(dataset, range(IMAGES)))
    with pytest.raises(
        UserError, match=r"none that can be read \(the first: image broken.jpg: found no image"
    ):
        write_micro_batch(known, MICRO_BATCH, True, Mixing(), 0, task)
