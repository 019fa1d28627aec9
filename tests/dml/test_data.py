"""Ready matrices and their checks in DML."""

import numpy as np
import pytest
from dml_runner import assert_close, pixel_major

from sysds_resnet.errors import UserError

DATA = 'source("dml/training/data.dml") as data\n'


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 4, 5), (2, 4, 3, 2)])
def test_channel_major_images_become_pixel_major(dml, shape):
    images = np.random.default_rng(0).standard_normal(shape)
    pixels = dml(
        'source("dml/training/data.dml") as data\npixels = data::to_pixels(X, C)\n',
        "pixels",
        X=images.reshape(shape[0], -1),
        C=shape[1],
    )
    assert np.array_equal(pixels, pixel_major(images))


def orders(dml, n, seed, epoch, block=1):
    program = DATA + "out = data::order(n, seed, epoch, block)\n"
    return dml(program, "out", n=n, seed=seed, epoch=epoch, block=block)[:, 0]


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 1000])
def test_order_is_a_permutation(dml, n, block):
    assert sorted(orders(dml, n, 42, 0, block)) == list(range(1, n + 1))


def test_order_depends_on_seed_and_epoch_alone(dml):
    first = orders(dml, 1000, 42, 0)
    assert np.array_equal(orders(dml, 1000, 42, 0), first)
    for other in (orders(dml, 1000, 43, 0), orders(dml, 1000, 42, 1)):
        assert (other == first).mean() < 0.02


def test_blocks_of_samples_stay_together(dml):
    found = orders(dml, 1003, 42, 0, 4)
    blocks = found[:1000].reshape(250, 4)
    assert np.array_equal(blocks, blocks[:, :1] + np.arange(4))
    assert np.array_equal(sorted(blocks[:, 0]), np.arange(250) * 4 + 1)
    assert (blocks[:, 0] == np.arange(250) * 4 + 1).mean() < 0.05
    assert found[1000:].tolist() == [1001, 1002, 1003], "those that fill no block"


def test_normalization_is_by_channel(dml):
    rng = np.random.default_rng(0)
    pixels, mean, std = rng.random((12, 3)), rng.random((1, 3)), rng.random((1, 3)) + 0.1
    out = dml(DATA + "out = data::normalize(pixels, mean, std)\n", "out", pixels=pixels, mean=mean, std=std)
    assert_close(out, (pixels - mean) / std)


@pytest.mark.parametrize("shape", [(5, 3), (400, 3000)])
def test_take_gives_rows_in_their_order(dml, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    rows = np.array([[5.0], [1.0], [5.0]])
    out = dml(DATA + "out = data::take(X, rows)\n", "out", X=x, rows=rows)
    assert np.array_equal(out, x[[4, 0, 4]])


@pytest.mark.parametrize("wrong", [0.0, -1.0, 4.0, 1.5, np.nan])
def test_labels_that_are_no_classes_are_refused(quick_dml, wrong):
    program = DATA + "y = data::check_labels(y, 3)\nn = nrow(y)\n"
    good = np.array([[1.0], [3.0], [2.0]])
    assert quick_dml(program, "n:int", y=good) == 3
    good[1] = wrong
    with pytest.raises(UserError, match=r"labels: found values from .* expected whole numbers from 1 to 3"):
        quick_dml(program, "n:int", y=good)


def test_classes_are_numbers_or_one_hot(dml):
    y = np.array([[2.0], [3.0], [1.0], [3.0]])
    for labels in (y, np.eye(3)[y[:, 0].astype(int) - 1]):
        found = dml(DATA + "y = data::class_numbers(Y, 4, 3)\n", "y", Y=labels)
        assert np.array_equal(found, y)


@pytest.mark.parametrize(
    "labels",
    [
        [[1.0, 0.0], [0.0, 1.0]],  # two classes of three
        [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]],
        [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        [[1.0], [4.0]],
        [[1.0]],
    ],
)
def test_other_labels_are_refused(quick_dml, labels):
    program = DATA + "y = data::class_numbers(Y, 2, 3)\nn = sum(y)\n"
    with pytest.raises(UserError, match=r"^labels: found"):
        quick_dml(program, "n:double", Y=np.array(labels))


def test_mean_and_std_are_given_or_neutral(dml):
    program = DATA + "[mean, std] = data::mean_std(rows, 3)\n"
    rows = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])
    mean, std = dml(program, "mean std", rows=rows)
    assert np.array_equal(np.concatenate([mean, std]), rows)
    mean, std = dml(program.replace("rows", "matrix(0, rows=0, cols=0)"), "mean std")
    assert np.array_equal(np.concatenate([mean, std]), [[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("rows", [[[0.0, 0.0], [1.0, 1.0]], [[1.0] * 3], [[0.0] * 3, [1.0, 0.0, 1.0]]])
def test_other_means_and_stds_are_refused(quick_dml, rows):
    program = DATA + "[mean, std] = data::mean_std(rows, 3)\nn = sum(mean + std)\n"
    with pytest.raises(UserError, match=r"^mean_std: found"):
        quick_dml(program, "n:double", rows=np.array(rows))


@pytest.mark.parametrize(
    ("given", "expected"), [((0, 0), (6, 6)), ((4, 0), (4, 9)), ((0, 4), (9, 4)), ((3, 12), (3, 12))]
)
def test_image_size_is_completed(dml, given, expected):
    size = dml(
        DATA
        + """[height, width] = data::image_size(X, 2, H, W)
        size = cbind(as.matrix(height), as.matrix(width))
        """,
        "size",
        X=np.ones((3, 72)),
        H=given[0],
        W=given[1],
    )
    assert tuple(size[0]) == expected


@pytest.mark.parametrize(
    ("columns", "size", "value", "message"),
    [
        (2 * 32 * 32, (32, 32), 1.0, None),
        (2 * 32 * 32, (31, 33), 1.0, "image size: found 31 x 33 pixels"),
        (2 * 32 * 32 + 1, (32, 32), 1.0, "images: found a matrix of 2 x 2049, expected a row of 2048"),
        (2 * 32 * 32, (32, 32), np.nan, "images: found NaN or infinity"),
        (2 * 32 * 32, (32, 32), -np.inf, "images: found NaN or infinity"),
    ],
)
def test_images_are_checked(quick_dml, columns, size, value, message):
    x = np.ones((2, columns))
    x[1, 7] = value
    program = DATA + "X = data::check_images(X, 2, H, W)\nn = sum(X)\n"
    if message is None:
        assert quick_dml(program, "n:double", X=x, H=size[0], W=size[1]) == x.size
        return
    with pytest.raises(UserError, match=message):
        quick_dml(program, "n:double", X=x, H=size[0], W=size[1])
