"""Runs that several processes share against the same runs by one, whose micro-batches are the same."""

from dataclasses import asdict
from threading import Barrier, Event, get_ident
from types import SimpleNamespace

import numpy as np
import pytest
from groups import in_group

from sysds_resnet.errors import OutOfMemory, UserError
from sysds_resnet.images import ArrayDataset, open_dataset
from sysds_resnet.images.part import PartDataset
from sysds_resnet.network.weights.files import VELOCITY
from sysds_resnet.report.events import StepEvent
from sysds_resnet.training.checkpoints import write_checkpoint
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.processes import sharing
from sysds_resnet.training.processes.gradient_sums import GradientSums
from sysds_resnet.training.processes.group import MESSAGE
from sysds_resnet.training.processes.rounding import round_to_bf16
from sysds_resnet.training.processes.sharing import Exchange, own_images
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.snapshot import fetch_tensors, handles_of
from sysds_resnet.training.trainer import Trainer

CLASSES, BATCH, MICRO_BATCH, STEPS = 6, 8, 2, 2
MEAN, STD = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 70.0])
SETTINGS = dict(
    dataset="synthetic",
    model="resnet18",
    batch_size=BATCH,
    micro_batch=MICRO_BATCH,
    epochs=2,
    schedule="constant",
    warmup_epochs=0,
    base_lr=1,
    workers=1,
    precision="double",
)


def noise(n, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 32, 40, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, n)
    return ArrayDataset(images, labels, list("abcdef"), mean=MEAN, std=STD)


# in training one image is left out of an epoch; 13 images to validate divide by neither 2 nor 4
SETS = [noise(STEPS * BATCH + 1, 0), noise(13, 1)]


def by(size, engine, folder, sets=SETS, enough=lambda progress: False, **settings):
    """The events and the tensors after the first step and after the last, of each of so many processes.

    Only the last process is asked to stop, as soon as it has made enough progress.
    """

    def work(group):
        trainer = Trainer(TrainSettings(**SETTINGS | settings), folder, list(sets), engine, group)
        state, events, tensors, unread = trainer.state, [], [], []

        def asked():
            return group.rank == group.size - 1 and enough(state.progress)

        for event in trainer.events(asked, lambda *one: unread.append(one[1:])):
            events.append(event)
            if event.step == 1:
                tensors.append(fetch_tensors(state.model.network, handles_of(state)))
        tensors.append(fetch_tensors(state.model.network, handles_of(state)))
        return SimpleNamespace(events=events, tensors=tensors, unread=unread, trainer=trainer)

    return in_group(size, work)


def difference(found, expected):
    """The largest of any tensor, relative to its largest value."""
    assert found.keys() == expected.keys()
    return max(
        np.abs(found[name] - array).max() / max(np.abs(array).max(), 1e-300)
        for name, array in expected.items()
    )


def check_same(engine, folder, size, sets=SETS, **settings):
    """A run by several processes is that of one, in each of the processes."""
    [expected] = by(1, engine, folder, sets, **settings)
    assert expected.events
    members = by(size, engine, folder, sets, **settings)
    for found in members:
        for tensors, first in zip(found.tensors, members[0].tensors, strict=True):
            assert all(np.array_equal(array, first[name]) for name, array in tensors.items())
        assert difference(found.tensors[0], expected.tensors[0]) < 1e-12
        assert difference(found.tensors[1], expected.tensors[1]) < 1e-8, "rounding grows from step to step"
        for event, other in zip(found.events, expected.events, strict=True):
            np.testing.assert_allclose(numbers(event), numbers(other), rtol=1e-8)
    return members


def numbers(event):
    """What an event says that does not depend on the clock."""
    if isinstance(event, StepEvent):
        metrics = event.metrics
        return [event.images, metrics.loss, metrics.top1, metrics.top5, metrics.grad_norm, metrics.lr]
    return [event.train_loss, event.val_loss, event.val_top1, event.val_top5]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.long)])
def test_so_many_processes_train_as_one(engine, tmp_path, size):
    check_same(engine, tmp_path, size)


def test_what_a_step_has_more_is_shared_too(engine, tmp_path):
    settings = dict(mixup=0.2, label_smoothing=0.1, ema_decay=0.9, clip_norm=0.5, freeze="layer1", repeats=2)
    check_same(engine, tmp_path, 2, epochs=1, **settings)


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        dict(cutmix=1.0, batch_size=4),  # of one image each, norms of two numbers have gradients of rounding
        dict(optimizer="adamw", base_lr=0.001, sampling="balanced"),
        dict(optimizer="lamb", base_lr=0.001, class_weights="balanced"),
    ],
    ids=lambda settings: "-".join(settings),
)
def test_other_settings_are_shared_too(engine, tmp_path, settings):
    check_same(engine, tmp_path, 2, **settings)


@pytest.mark.long
def test_three_processes_share_four_micro_batches(engine, tmp_path):
    check_same(engine, tmp_path, 3)


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 4])
def test_ten_steps_on_digits_are_those_of_one_process(engine, tmp_path, size):
    first = {"train": 640, "val": 64}
    digits = [PartDataset(open_dataset("digits", split), range(n)) for split, n in first.items()]
    members = check_same(engine, tmp_path, size, digits, batch_size=64, micro_batch=16, epochs=1, base_lr=10)
    assert members[0].trainer.state.progress.step == 10


def test_gradients_in_bf16_are_rounded_and_nothing_else_is(engine, tmp_path):
    """The velocities after a first step of plain SGD are the gradients, times a power of two."""
    settings = dict(epochs=1, optimizer="sgd", weight_decay=0, base_lr=2.0**-3)
    exact = by(2, engine, tmp_path, **settings)[0]
    first, second = by(2, engine, tmp_path, wire="bf16", **settings)
    np.testing.assert_allclose(numbers(first.events[0])[:4], numbers(exact.events[0])[:4], rtol=1e-6)
    for name, array in first.tensors[0].items():
        if name.startswith(VELOCITY):
            close = 2.0**-7 * np.abs(array).max()
            np.testing.assert_allclose(array, exact.tensors[0][name], rtol=2.0**-6, atol=close)
            np.testing.assert_array_equal(array, round_to_bf16(array.astype("f4")))
        np.testing.assert_array_equal(array, second.tensors[0][name])
    assert difference(first.tensors[0], exact.tensors[0]) > 0


def test_the_last_stage_is_summed_before_the_other_gradients_are_computed(engine, tmp_path, monkeypatch):
    """From the second step on; in the first one, the sums do not know yet how many numbers there are."""
    summed, threads = Event(), set()
    begin = Barrier(2, summed.clear)
    sum_upper = GradientSums.sum_upper

    def watched_sum(self):
        sum_upper(self)
        summed.set()

    def compute(model, images, labels, optimizer, batch_size, early):
        begin.wait(60)
        later = get_ident() in threads
        threads.add(get_ident())

        def early_and_wait(upper):
            early(upper)
            assert not later or summed.wait(60)

        return compute_gradients(model, images, labels, optimizer, batch_size, early_and_wait)

    monkeypatch.setattr(GradientSums, "sum_upper", watched_sum)
    monkeypatch.setattr(sharing, "compute_gradients", compute)
    check_same(engine, tmp_path, 2, epochs=1)


@pytest.mark.parametrize("freeze", ["layer2", "layer3", "layer4"])
def test_frozen_stages_are_shared_too(engine, tmp_path, freeze):
    check_same(engine, tmp_path, 2, epochs=1, freeze=freeze)


def test_an_error_after_the_first_sum_is_told(engine, tmp_path, monkeypatch):
    """The engine fails between the two parts of the second step, in each process."""
    taken = []

    def compute(*arguments):
        def early_and_fail(upper):
            arguments[-1](upper)
            taken.append(upper)
            if len(taken) > 2:
                raise OutOfMemory("heap: found it full")

        return compute_gradients(*arguments[:-1], early_and_fail)

    monkeypatch.setattr(sharing, "compute_gradients", compute)
    with pytest.raises(OutOfMemory, match="heap: found it full"):
        by(2, engine, tmp_path, epochs=1)


def test_all_stop_after_the_same_step_and_go_on_with_the_same_bits(engine, tmp_path):
    """The last process alone is asked to stop, in the middle of the second epoch."""
    whole = by(2, engine, tmp_path)[0]
    folder = tmp_path / "stopped"
    (folder / "checkpoints").mkdir(parents=True)
    halves = by(2, engine, folder, enough=lambda progress: progress.epoch)
    for found in halves:
        assert [event.step for event in found.events] == [1, 2, 2, 3]
        assert found.trainer.state.progress.step_in_epoch == 1
    trainer = halves[0].trainer
    described = {**trainer.identity, "progress": asdict(trainer.state.progress)}
    write_checkpoint(folder / "checkpoints" / "step-00000003.safetensors", described, halves[0].tensors[1])
    for rest in by(2, engine, folder):
        for event, other in zip(rest.events, whole.events[4:], strict=True):
            assert (event.step, numbers(event)) == (other.step, numbers(other))
        assert all(np.array_equal(rest.tensors[0][name], a) for name, a in whole.tensors[1].items())


class Damaged(ArrayDataset):
    """Noise of which some images cannot be read."""

    damaged = ()

    def image(self, index, epoch):
        if index in self.damaged:
            raise UserError(f"image {index}: damaged")
        return super().image(index, epoch)


def damaged(whole, *positions):
    images, labels = whole.arrays()
    found = Damaged(images, labels, whole.classes, mean=MEAN, std=STD)
    found.damaged = positions
    return found


def test_the_first_process_hears_of_all_images_that_cannot_be_read(engine, tmp_path):
    sets = [damaged(SETS[0], 2, 11), damaged(SETS[1], 0, 12)]
    [alone] = by(1, engine, tmp_path, sets, epochs=1)
    first, second = check_same(engine, tmp_path, 2, sets, epochs=1)
    assert len(set(alone.unread)) == 4
    assert (set(first.unread), second.unread) == (set(alone.unread), [])


@pytest.mark.long
def test_fewer_validation_images_than_processes(engine, tmp_path):
    check_same(engine, tmp_path, 2, [SETS[0], noise(1, 2)], epochs=1)


def test_processes_with_other_data_refuse_to_train(engine, tmp_path):
    def work(group):
        sets = [noise(17, group.rank), SETS[1]]
        sets[0].labels[:] = group.rank
        with pytest.raises(UserError, match=r"process 1: found other data.*expected the same"):
            Trainer(TrainSettings(**SETTINGS), tmp_path, sets, engine, group)

    in_group(2, work)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, [range(0, 8)]), (2, [range(0, 4), range(4, 8)]), (3, [range(0, 2), range(2, 4), range(4, 8)])],
)
def test_processes_have_whole_micro_batches_of_their_own(size, expected):
    assert in_group(size, lambda group: own_images(8, 2, group)) == expected


def test_an_exchange_sums_numbers_and_the_wish_to_stop():
    def work(group):
        exchange = Exchange(group, [], lambda: group.rank == 1, pytest.fail)
        total = exchange.sum([1.0, group.rank])
        return total.tolist(), exchange.stopping

    assert in_group(3, work) == [([3.0, 3.0], True)] * 3


def test_texts_are_gathered_in_the_order_of_the_processes():
    texts = ["", "two", "drei ä"]
    assert in_group(3, lambda group: group.gather(texts[group.rank])) == [texts] * 3
    assert in_group(2, lambda group: group.gather("")) == [["", ""]] * 2


@pytest.mark.parametrize("kind", ["f4", "f8", "i8"])
def test_sums_of_more_than_a_message_are_the_same_everywhere_and_again(kind):
    rng = np.random.default_rng(0)
    values = (1000 * rng.standard_normal((3, 3 * MESSAGE // 4 + 5))).astype(kind)

    def summed(group):
        own = values[group.rank].copy()
        group.sum(own)
        return own

    found = [*in_group(3, summed), *in_group(3, summed)]
    for one in found:
        np.testing.assert_array_equal(one, found[0])
    np.testing.assert_allclose(found[0], values.sum(0, dtype="f8"), rtol=1e-6, atol=1e-3)
