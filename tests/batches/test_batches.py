"""Order, repetitions, resuming and errors of the stream of batches."""

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
from numbered_images import numbered, our_threads
from PIL import Image

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.errors import UserError
from sysds_resnet.images import Augmentation, open_dataset, open_images

EVERYTHING = Augmentation(policy="randaugment", color_jitter=0.4, hue=0.1, erasing=0.5)


def shuffled(n, seed=0):
    return lambda epoch: np.random.default_rng([seed, epoch]).permutation(n)


@pytest.fixture(autouse=True)
def no_threads_are_left():
    yield
    assert our_threads() == []


@pytest.fixture
def photos(tmp_path):
    """A folder with 11 training images, of sizes that take unequal time, and as many for validation."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for k in range(11):
            path = tmp_path / split / f"class{k % 2}" / f"{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            side = 300 if k % 3 == 0 else 20
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return tmp_path


def collect(stream):
    with stream:
        return [(b.epoch, b.step, b.indices.tolist(), b.labels.tolist(), b.images.tobytes()) for b in stream]


def test_images_and_labels_stand_in_the_order_given():
    data = numbered(10)
    order = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    with BatchStream(data, lambda epoch: order, 4, drop_last=True, epochs=1) as stream:
        batches = list(stream)
    assert [b.indices.tolist() for b in batches] == [[3, 1, 4, 0], [5, 9, 2, 6]]
    for b in batches:
        assert b.images.dtype == np.uint8 and b.images.shape == (4, 4, 5, 3)
        assert b.labels.dtype == np.int64 and b.labels.tolist() == (b.indices % 3).tolist()
        assert np.all(b.images == b.indices[:, None, None, None])


def test_evaluation_keeps_the_last_partial_batch():
    with BatchStream(numbered(10), sequential_order(10), 4, drop_last=False, epochs=1) as stream:
        assert stream.steps_per_epoch == 3
        assert [b.indices.tolist() for b in stream] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_each_sample_comes_once_in_an_epoch():
    with BatchStream(numbered(50), shuffled(50), 5, drop_last=True, epochs=3) as stream:
        batches = list(stream)
    orders = []
    for epoch in range(3):
        orders.append(np.concatenate([b.indices for b in batches if b.epoch == epoch]))
        assert sorted(orders[-1]) == list(range(50))
        assert [b.step for b in batches if b.epoch == epoch] == list(range(10))
    assert not np.array_equal(orders[0], orders[1])


def of_ra_sampler(order, repetitions, batch_size, ranks, step):
    """What a step of all ranks sees by the law of torchvision's RASampler: a sample for each of its places.

    The order with each sample repeated on the spot is dealt to the ranks like cards, a card at a time; a rank
    takes its cards as they come. https://github.com/pytorch/vision, references/classification/sampler.py
    """
    hands = [[] for _ in range(ranks)]
    dealt = 0
    for sample in order.tolist():
        for _ in range(repetitions):
            hands[dealt % ranks].append(sample)
            dealt += 1
    share = batch_size // ranks
    return [sample for hand in hands for sample in hand[step * share : (step + 1) * share]]


@pytest.mark.parametrize(("repeats", "size"), [(1, 8), (2, 8), (3, 8), (4, 8), (4, 6), (9, 4), (48, 6)])
def test_batches_of_repeated_samples_are_those_of_torchvisions_sampler(repeats, size):
    with BatchStream(numbered(48), shuffled(48), size, drop_last=True, repeats=repeats, epochs=2) as stream:
        batches = list(stream)
    assert [(b.epoch, b.step) for b in batches] == [(e, s) for e in (0, 1) for s in range(48 // size)]
    for b in batches:
        expected = of_ra_sampler(shuffled(48)(b.epoch), repeats, size, 2, b.step)
        assert Counter(b.indices.tolist()) == Counter(expected)
        assert np.all(b.images == b.indices[:, None, None, None])
        assert b.labels.tolist() == (b.indices % 3).tolist()


def test_neighbours_in_a_batch_and_images_of_a_micro_batch_are_different_samples():
    with BatchStream(numbered(32), shuffled(32), 16, drop_last=True, repeats=4, epochs=1) as stream:
        for b in stream:
            assert all(a != b for a, b in pairwise(b.indices.tolist()))
            assert all(len(set(part)) == 4 for part in b.indices.reshape(4, 4).tolist())


def test_an_epoch_shows_a_part_of_the_samples_that_changes_from_epoch_to_epoch():
    with BatchStream(numbered(50), shuffled(50), 5, drop_last=True, repeats=5, epochs=8) as stream:
        seen = [set() for _ in range(8)]
        for b in stream:
            seen[b.epoch] |= set(b.indices.tolist())
    assert [len(samples) for samples in seen] == 8 * [10]
    assert len(set.union(*seen)) > 35  # of 50; 41.6 are expected, with a standard deviation of 2.2


def test_each_repetition_is_augmented_anew_and_the_first_as_without_repetitions(photos):
    data = open_dataset(photos, "train", image_size=16, seed=5, augmentation=EVERYTHING)
    with Readers([data], 2) as readers:
        plain, repeated = (
            list(BatchStream(data, shuffled(11), 9, readers, drop_last=True, repeats=repeats, epochs=2))
            for repeats in (1, 3)
        )
    assert len({image.tobytes() for batch in repeated for image in batch.images}) == 2 * 9
    for batch, once in zip(repeated, plain, strict=True):
        for sample in set(batch.indices.tolist()):
            first = batch.images[batch.indices == sample][0]
            np.testing.assert_array_equal(first, once.images[once.indices == sample][0])


def test_batches_are_the_same_for_any_number_of_workers_and_any_prefetch(photos):
    data = open_dataset(photos, "train", image_size=32, seed=5, augmentation=EVERYTHING)
    runs = {1: [], 3: []}
    for workers in (1, 2, 4):
        with Readers([data], workers) as readers:
            for repeats, prefetch in product(runs, (0, 2, 7)):
                options = {"drop_last": True, "repeats": repeats, "epochs": 2, "prefetch": prefetch}
                runs[repeats].append(collect(BatchStream(data, shuffled(11), 4, readers, **options)))
    for found in runs.values():
        assert len(found[0]) == 4
        assert all(run == found[0] for run in found)


def test_resuming_at_any_place_gives_the_same_following_batches(photos):
    data = open_dataset(photos, "train", image_size=16, seed=5, augmentation=EVERYTHING)
    with Readers([data], 2) as readers:
        for repeats in (1, 2):
            args = (data, shuffled(11), 3, readers)
            options = {"drop_last": True, "repeats": repeats, "epochs": 2}
            whole = collect(BatchStream(*args, **options))
            stream = BatchStream(*args, **options)
            for done in range(len(whole) + 1):
                epoch, step = stream.position
                rest = collect(BatchStream(*args, **options, start_epoch=epoch, start_step=step))
                assert rest == whole[done:]
                if done < len(whole):
                    next(stream)


def test_position_counts_batches_handed_out_not_batches_read_ahead():
    with BatchStream(numbered(8), sequential_order(8), 4, drop_last=True, prefetch=5) as stream:
        assert stream.position == (0, 0)
        next(stream)
        assert stream.position == (0, 1)
        next(stream)
        assert stream.position == (1, 0)


def test_end_of_an_epoch_resumes_as_the_start_of_the_next():
    with BatchStream(numbered(8), shuffled(8), 4, drop_last=True, start_epoch=1, start_step=2) as stream:
        first = next(stream)
    assert (first.epoch, first.step) == (2, 0)


def test_stream_without_end_goes_on_over_epochs():
    with BatchStream(numbered(4), sequential_order(4), 4, drop_last=True) as stream:
        assert [next(stream).epoch for _ in range(20)] == list(range(20))


def test_broken_image_reaches_the_consumer_as_its_own_error(photos):
    broken = photos / "val" / "class1" / "7.jpg"
    broken.write_bytes(broken.read_bytes()[:60])
    data = open_images(photos / "val", image_size=16)
    stream = BatchStream(data, sequential_order(11), 3, drop_last=False, epochs=1)
    with pytest.raises(UserError, match=r"7\.jpg") as error:
        list(stream)
    assert "\n" not in str(error.value)
    assert our_threads() == []
    assert list(stream) == []


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 9},
        {"batch_size": 0},
        {"repeats": 0},
        {"prefetch": -1},
        {"start_epoch": -1},
        {"start_step": 3},
        {"start_step": -1},
    ],
)
def test_wrong_sizes_and_positions_are_one_line_errors(options):
    with pytest.raises(UserError) as error:
        BatchStream(numbered(8), sequential_order(8), **{"batch_size": 4, "drop_last": True, **options})
    text = str(error.value)
    assert "\n" not in text and "found" in text and "expected" in text


def test_evaluation_may_have_fewer_images_than_a_batch():
    with BatchStream(numbered(3), sequential_order(3), 8, drop_last=False, epochs=1) as stream:
        assert [b.indices.tolist() for b in stream] == [[0, 1, 2]]


@pytest.mark.parametrize(
    "order", [np.arange(7), np.arange(1, 9), np.zeros(8, int), np.arange(8.0), np.arange(8) - 1]
)
def test_order_that_is_no_permutation_is_refused(order):
    stream = BatchStream(numbered(8), lambda epoch: order, 4, drop_last=True)
    with pytest.raises(ValueError, match="order"):
        next(stream)
