"""Normalization and resizing of images in arrays, against NumPy and PyTorch."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from sysds_resnet.images.pixels.normalization import mean_and_std, normalized
from sysds_resnet.images.pixels.resample import resize_values


def random(*shape):
    return np.random.default_rng(0).uniform(-3, 7, shape)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_statistics_are_numpys(channels):
    images = random(6, 9, 7, channels)
    mean, std = mean_and_std(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)), rtol=1e-12)


def test_statistics_of_bytes_are_those_of_their_numbers():
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(mean_and_std(images), mean_and_std(images.astype(float)))


@pytest.mark.parametrize("value", [0, 7, 0.1, -1e9])
def test_a_channel_of_one_value_becomes_zero(value):
    images = random(3, 8, 8, 2)
    images[..., 1] = value
    mean, std = mean_and_std(images)
    assert std[1] == 1 and std[0] == pytest.approx(images[..., 0].std(), rel=1e-12)
    found = normalized(images, (8, 8), mean, std, np.float64)
    assert np.abs(found[..., 1]).max() <= 1e-6 * abs(value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_are_resized_and_then_normalized(dtype):
    images, mean, std = random(4, 9, 7, 2), np.array([1.0, 2.0]), np.array([0.5, 3.0])
    found = normalized(images, (20, 32), mean, std, dtype)
    expected = [(resize_values(image, 20, 32) - mean) / std for image in images]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray(expected, dtype))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(("before", "after"), [((8, 8), (32, 32)), ((40, 33), (32, 32)), ((1, 10), (32, 32))])
def test_resizing_is_pytorchs_antialiased_one(channels, before, after):
    image = random(*before, channels)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = functional.interpolate(tensor, after, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    found = resize_values(image, *after)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, resized.numpy(), atol=1e-5)


def test_resizing_grey_bytes_is_pillows_before_it_rounds():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 1), dtype=np.uint8)
    rounded = np.asarray(Image.fromarray(image[..., 0]).resize((40, 32), Image.Resampling.BILINEAR))
    found = resize_values(image, 32, 40)[..., 0]
    assert np.abs(found - rounded).max() < 1


def test_an_image_of_the_right_size_stays():
    image = random(8, 8, 3)
    assert resize_values(image, 8, 8) is image
