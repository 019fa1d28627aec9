"""Views of images for test-time augmentation, against torchvision's crops and mirror images."""

import numpy as np
import pytest
from PIL import Image
from torchvision_reference import functional, transforms

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.images.encoded import open_files
from sysds_resnet.images.pixels import decode
from sysds_resnet.images.views import View, ViewDataset, choose_views

SIZE, SHORT = 32, 37


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(folder, *images):
    """The images as a data set."""
    paths = [str(folder / f"{i}.png") for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return open_files(paths, image_size=SIZE, resize_size=SHORT)


def views_of(dataset, index, views):
    """The views of a sample, int of shape (V, H, W, 3)."""
    return ViewDataset(dataset, views).image(index, 0).reshape(len(views), SIZE, SIZE, 3).astype(int)


def crops(image, tta, short=SHORT):
    """The views by torchvision's own transforms, of shape (V, H, W, 3)."""
    image = transforms.Resize(short)(image)
    found = (
        transforms.FiveCrop(SIZE)(image) if tta in ("five", "ten") else [transforms.CenterCrop(SIZE)(image)]
    )
    if tta in ("flip", "ten"):
        found = [*found, *map(functional.hflip, found)]
    return np.stack([np.asarray(crop, int) for crop in found])


@pytest.mark.parametrize("tta", ["none", "flip", "five", "ten"])
@pytest.mark.parametrize("size", [(60, 45), (45, 60), (37, 37), (38, 201), (33, 34)])
def test_views_are_torchvisions_crops_and_their_mirror_images(tmp_path, tta, size):
    image = noise(*size)
    found = views_of(saved(tmp_path, image), 0, choose_views(tta))
    expected = crops(image, tta)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1
    if min(size) == SHORT:  # nothing is resized
        np.testing.assert_array_equal(found, expected)


def test_ten_views_are_those_of_tencrop_which_crops_the_mirrored_image(tmp_path):
    image = noise(50, 38)  # even margins, or its centre would be a column beside
    data = open_files([str(saved(tmp_path, image).name(0))], image_size=SIZE, resize_size=38)
    expected = np.stack([np.asarray(crop, int) for crop in transforms.TenCrop(SIZE)(image)])
    order = [0, 1, 2, 3, 4, 6, 5, 8, 7, 9]  # left corners of the mirrored image are right ones of the image
    np.testing.assert_array_equal(views_of(data, 0, choose_views("ten"))[order], expected)


def test_scales_follow_each_other_and_change_the_size_before_the_crop(tmp_path):
    image = noise(90, 70)
    found = views_of(saved(tmp_path, image), 0, choose_views("ten", [1.0, 1.15, 1.5]))
    expected = np.concatenate([crops(image, "ten", short) for short in (37, 43, 56)])  # 42.55 and 55.5
    assert np.abs(found - expected).max() <= 1


def test_without_augmentation_there_is_the_one_view_of_evaluation(tmp_path):
    data = saved(tmp_path, noise(60, 45))
    assert choose_views() == [View()]
    np.testing.assert_array_equal(ViewDataset(data, choose_views()).image(0, 0), data.image(0, 0))


def test_crops_of_stored_images_are_their_corners(tmp_path):
    """Arrays, as prepared shards: images of one size, here that before the crop."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, SHORT, SHORT, 3), dtype=np.uint8)
    np.save(tmp_path / "val_images.npy", images)
    np.save(tmp_path / "val_labels.npy", np.arange(3))
    data = open_dataset(tmp_path, "val", image_size=SIZE)
    found = views_of(data, 1, choose_views("five"))
    far = SHORT - SIZE
    for view, (top, left) in zip(found, [(0, 0), (0, far), (far, 0), (far, far), (2, 2)], strict=True):
        np.testing.assert_array_equal(view, images[1, top : top + SIZE, left : left + SIZE])


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_crops_of_images_of_the_crops_size_coincide_until_they_are_scaled(name):
    data = open_dataset(name, "val", image_size=SIZE)
    image = data.image(3, 0)
    found = views_of(data, 3, choose_views("ten"))
    np.testing.assert_array_equal(found, np.stack(5 * [image] + 5 * [image[:, ::-1]]))
    found = views_of(data, 3, choose_views("ten", [1.25]))
    assert np.abs(found - crops(Image.fromarray(image), "ten", 40)).max() <= 1


def test_all_crops_of_an_image_that_is_too_small_are_padded_alike(tmp_path):
    data = saved(tmp_path, Image.new("RGB", (50, 50), "white"))
    found = views_of(data, 0, choose_views("five", [0.5]))  # 18 of 32 pixels
    expected = np.zeros((SIZE, SIZE, 3), int)
    expected[7:25, 7:25] = 255
    np.testing.assert_array_equal(found, np.stack(5 * [expected]))


def test_a_file_is_decoded_once_for_all_its_views(tmp_path, monkeypatch):
    calls = []
    jpeg = decode.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        decode.simplejpeg, "decode_jpeg", lambda *args, **kwargs: calls.append(1) or jpeg(*args, **kwargs)
    )
    noise(80, 60).save(tmp_path / "a.jpg")
    data = open_files([str(tmp_path / "a.jpg")], image_size=SIZE)
    views_of(data, 0, choose_views("ten", [1.0, 1.2]))
    assert len(calls) == 1


def test_batches_hold_all_views_of_their_images_and_broken_files_once(tmp_path):
    images = [noise(60, 45, seed) for seed in range(5)]
    data = saved(tmp_path, *images)
    (tmp_path / "2.png").write_bytes(b"no image")
    views = choose_views("ten")
    seen = ViewDataset(data, views)
    errors = []
    with (
        Readers([seen], 2) as readers,
        BatchStream(
            seen, sequential_order(5), 3, readers, drop_last=False, epochs=1,
            on_error=lambda dataset, index, reason: errors.append((dataset.name(index), reason)),
        ) as stream,
    ):  # fmt: skip
        batches = list(stream)
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [3, 4]]
    for batch in batches:
        found = batch.images.reshape(-1, len(views), SIZE, SIZE, 3)
        for index, image in zip(batch.indices, found, strict=True):
            np.testing.assert_array_equal(image, views_of(data, index, views))
    [(name, reason)] = errors
    assert name == str(tmp_path / "2.png") and "no known image format" in reason


def test_errors_name_the_class_of_an_image(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    data = ViewDataset(open_dataset(tmp_path, "val", image_size=SIZE), choose_views("flip"))
    with pytest.raises(UserError, match=r"^class b, image .*1\.png: found no known image format"):
        data.image(1, 0)
