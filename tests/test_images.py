"""Data sets, preprocessing and broken files, against references written out here."""

import math

import numpy as np
import pytest
from PIL import Image

from sysds_resnet.errors import UserError
from sysds_resnet.images import (
    ArrayDataset,
    Dataset,
    EncodedDataset,
    eval_transform,
    list_images,
    open_dataset,
    open_images,
    train_transform,
)
from sysds_resnet.images.decode import decode
from sysds_resnet.images.sources import FileSource
from sysds_resnet.images.transforms import (
    Purpose,
    center_crop,
    random_crop_box,
    sample_rng,
)


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(path, width=40, height=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(width, height, seed).save(path)


def files(*paths):
    """A data set of these files."""
    return EncodedDataset(
        FileSource([str(path) for path in paths], np.zeros(len(paths)), ["a"]), image_size=16
    )


def names(data):
    return [data.name(i) for i in range(len(data))]


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert "found" in text and "expected" in text
    return text


@pytest.fixture
def folder(tmp_path):
    """Two classes, 4 + 3 training images and 2 + 1 validation images, the classes made in reverse order."""
    for split, counts in (("train", {"zebra": 3, "ant": 4}), ("val", {"zebra": 1, "ant": 2})):
        for name, count in counts.items():
            for k in range(count):
                save(tmp_path / split / name / f"{k}.JPEG", seed=k)
    return tmp_path


class ScriptedRng:
    """Gives the listed numbers by random()."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self):
        return self.numbers.pop(0)


# --- digits ---


def test_digits_split_is_stratified_and_disjoint_and_complete():
    from sklearn.datasets import load_digits

    train, val = open_dataset("digits", "train"), open_dataset("digits", "val")
    assert (len(train), len(val)) == (1437, 360)
    data = load_digits()
    share = np.bincount(data.target) * 360 / 1797
    assert np.abs(np.bincount(val.labels) - share).max() < 1
    # No two digits of the set have the same pixels, so images identify samples.
    known = {image.tobytes(): label for image, label in zip(data.images, data.target, strict=True)}
    assert len(known) == 1797
    seen = []
    for part in (train, val):
        for i in range(len(part)):
            original = np.rint(part.image(i, 0)[::4, ::4, 0] * (16 / 255))
            assert known[original.tobytes()] == part.labels[i]
            seen.append(original.tobytes())
    assert len(set(seen)) == 1797


def test_digits_pixels_are_repeated_four_times_in_three_equal_channels():
    data = open_dataset("digits", "val")
    image = data.image(5, 0)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.kron(image[::4, ::4, 0], np.ones((4, 4)))[..., None] * np.ones(3))
    assert max(data.image(i, 0).max() for i in range(len(data))) == 255


def test_digits_split_does_not_depend_on_the_seed():
    first, second = (open_dataset("digits", "val", seed=seed) for seed in (0, 1))
    assert all(np.array_equal(first.image(i, 0), second.image(i, 0)) for i in range(360))


def test_digits_are_normalised_by_the_training_pixels_in_both_splits():
    train, val = open_dataset("digits", "train"), open_dataset("digits", "val")
    pixels = np.stack([train.image(i, 0) for i in range(len(train))]).astype(np.float64)
    for data in (train, val):
        np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-9)
        np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), rtol=1e-9)


def test_digits_take_multiples_of_eight_only():
    assert open_dataset("digits", "val", image_size=64).image(0, 0).shape == (64, 64, 3)
    with pytest.raises(UserError) as error:
        open_dataset("digits", "val", image_size=50)
    assert "50" in one_line(error)


# --- synthetic ---


def test_synthetic_images_depend_on_seed_split_and_index_only():
    a, b = (open_dataset("synthetic", "train", image_size=24, seed=3) for _ in range(2))
    other_seed = open_dataset("synthetic", "train", image_size=24, seed=4)
    val = open_dataset("synthetic", "val", image_size=24, seed=3)
    assert (len(a), len(val), a.num_classes) == (256, 64, 10)
    assert np.array_equal(a.image(7, 0), b.image(7, 5))
    assert not np.array_equal(a.image(7, 0), a.image(17, 0))
    assert not np.array_equal(a.image(7, 0), other_seed.image(7, 0))
    assert not np.array_equal(a.image(7, 0), val.image(7, 0))


def test_synthetic_classes_can_be_learned():
    train = open_dataset("synthetic", "train")
    val = open_dataset("synthetic", "val")
    x, v = (np.stack([d.image(i, 0) for i in range(len(d))]).mean(axis=(1, 2)) for d in (train, val))
    nearest = train.labels[((v[:, None] - x[None]) ** 2).sum(axis=2).argmin(axis=1)]
    assert (nearest == val.labels).mean() > 0.9


def test_synthetic_classes_are_balanced_and_many_classes_work():
    data = open_dataset("synthetic", "train", num_images=2000, num_classes=1000)
    assert np.all(np.bincount(data.labels) == 2)
    assert len(set(data.classes)) == 1000
    assert data.image(1999, 0).dtype == np.uint8


# --- folders ---


def test_folder_classes_are_sorted_and_labels_follow(folder):
    data = open_dataset(str(folder), "train", image_size=16)
    assert data.classes == ["ant", "zebra"]
    assert data.labels.tolist() == [0] * 4 + [1] * 3
    assert names(data) == [str(folder / "train" / "ant" / f"{k}.JPEG") for k in range(4)] + [
        str(folder / "train" / "zebra" / f"{k}.JPEG") for k in range(3)
    ]
    np.testing.assert_allclose(data.mean, [123.675, 116.28, 103.53])
    np.testing.assert_allclose(data.std, [58.395, 57.12, 57.375])


def test_folder_reads_images_in_subfolders_and_leaves_other_files(folder):
    save(folder / "val" / "ant" / "deeper" / "x.PnG")
    (folder / "val" / "ant" / "notes.txt").write_text("no image")
    (folder / "val" / "README").write_text("no class")
    data = open_dataset(folder, "val", image_size=16)
    assert [p.removeprefix(str(folder)) for p in names(data)] == [
        "/val/ant/0.JPEG",
        "/val/ant/1.JPEG",
        "/val/ant/deeper/x.PnG",
        "/val/zebra/0.JPEG",
    ]


def test_folder_without_train_and_val_is_for_evaluation_only(folder):
    data = open_dataset(folder / "val", "val", image_size=16)
    assert data.labels.tolist() == [0, 0, 1]
    with pytest.raises(UserError) as error:
        open_dataset(folder / "val", "train")
    assert "train/" in one_line(error)


def test_validation_images_have_the_evaluation_preprocessing(folder):
    data = open_dataset(folder, "val", image_size=16, augment=True)
    expected = eval_transform(Image.open(data.name(1)).convert("RGB"), 16)
    np.testing.assert_array_equal(data.image(1, 0), expected)
    np.testing.assert_array_equal(data.image(1, 9), expected)


def test_training_images_change_with_seed_epoch_and_sample_and_with_nothing_else(folder):
    data = open_dataset(folder, "train", image_size=16, seed=1)
    again = open_dataset(folder, "train", image_size=16, seed=1)
    first = data.image(2, 0)
    data.image(3, 0)
    np.testing.assert_array_equal(data.image(2, 0), first)
    np.testing.assert_array_equal(again.image(2, 0), first)
    assert not np.array_equal(data.image(2, 1), first)
    assert not np.array_equal(open_dataset(folder, "train", image_size=16, seed=2).image(2, 0), first)


def test_augmentation_can_be_switched_off(folder):
    data = open_dataset(folder, "train", image_size=16, augment=False)
    np.testing.assert_array_equal(
        data.image(2, 0), eval_transform(Image.open(data.name(2)).convert("RGB"), 16)
    )


@pytest.mark.parametrize("spec", ["digits", "synthetic", "PATH"])
def test_every_data_set_follows_the_protocol(spec, folder):
    for split in ("train", "val"):
        data = open_dataset(folder if spec == "PATH" else spec, split)
        assert isinstance(data, Dataset)
        height, width = data.image_size
        assert data.image(0, 0).shape == (height, width, data.channels)
        assert data.labels.shape == (len(data),) and data.labels.dtype == np.int64
        assert data.labels[len(data) - 1] == data.labels[-1]
        assert len(data.classes) == data.num_classes
        assert data.mean.shape == data.std.shape == (3,)


# --- evaluation preprocessing ---


def reference_eval(image, size, resize_size):
    """Resize(resize_size) and CenterCrop(size) as torchvision's documentation and rounding say."""
    w, h = image.size
    if w < h:
        new_w, new_h = resize_size, int(resize_size * h / w)
    else:
        new_w, new_h = int(resize_size * w / h), resize_size
    pixels = np.asarray(image.resize((new_w, new_h), Image.BILINEAR))
    pad_y, pad_x = max(0, size - new_h), max(0, size - new_w)
    pixels = np.pad(
        pixels,
        ((pad_y // 2, (pad_y + 1) // 2), (pad_x // 2, (pad_x + 1) // 2), (0, 0)),
    )
    top = int(np.round((pixels.shape[0] - size) / 2.0))
    left = int(np.round((pixels.shape[1] - size) / 2.0))
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize(
    "width, height",
    [(500, 375), (375, 500), (301, 299), (256, 256), (97, 211), (33, 31), (1, 1), (3, 120), (200, 7)],
)
@pytest.mark.parametrize("size, resize_size", [(224, 256), (32, 37), (65, 65), (64, 41), (31, 30)])
def test_evaluation_preprocessing_equals_the_reference(width, height, size, resize_size):
    image = picture(width, height)
    found = eval_transform(image, size, resize_size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, reference_eval(image, size, resize_size))


def test_shorter_side_before_the_crop_keeps_the_proportion_of_256_to_224():
    image = picture(300, 200)
    for size, resize_size in ((224, 256), (32, 37), (176, 201)):
        np.testing.assert_array_equal(eval_transform(image, size), eval_transform(image, size, resize_size))


def test_centre_crop_pads_a_smaller_image_with_black_on_all_sides():
    found = np.asarray(center_crop(Image.new("RGB", (3, 8), "white"), 6))[..., 0]
    assert np.all(found[:, 1:4] == 255) and found.sum() == 6 * 3 * 255


# --- training augmentation ---


def test_random_crop_follows_the_definition_with_the_random_numbers_fixed():
    # area 0.08 + 0.92 * 0.25 = 0.31 of 20,000; log ratio in the middle: a square of round(sqrt(6200)) = 79.
    assert random_crop_box(100, 200, ScriptedRng(0.25, 0.5, 0.5, 0.999)) == (11, 121, 79, 79)
    # least area and least ratio: 1,600 pixels, w = sqrt(1200), h = sqrt(1600 / 0.75).
    assert random_crop_box(100, 200, ScriptedRng(0, 0, 0, 0)) == (0, 0, 46, 35)


def test_random_crop_falls_back_to_the_centre_after_ten_draws():
    too_wide = [0.9999, 0.9999] * 10
    assert random_crop_box(40, 10, ScriptedRng(*too_wide)) == (13, 0, 13, 10)
    assert random_crop_box(10, 40, ScriptedRng(*too_wide)) == (0, 13, 10, 13)
    square = random_crop_box(30, 30, ScriptedRng(*too_wide))
    assert square == (0, 0, 30, 30)


def test_random_crops_have_the_stated_distribution():
    height, width, n = 1000, 1200, 3000
    boxes = [random_crop_box(height, width, sample_rng(0, Purpose.AUGMENT, 0, i)) for i in range(n)]
    top, left, h, w = np.array(boxes).T
    assert np.all((top >= 0) & (left >= 0) & (top + h <= height) & (left + w <= width))
    area = h * w / (height * width)
    ratio = w / h
    assert area.min() > 0.08 - 0.002 and area.max() <= 1
    assert ratio.min() > 3 / 4 - 0.005 and ratio.max() < 4 / 3 + 0.005
    # Below 0.6 every shape fits, so no draw is refused there: uniform area, symmetric log ratio.
    small = area < 0.6
    assert abs(area[small].mean() - 0.34) < 0.015
    log_ratio = np.log(ratio[small])
    assert abs(log_ratio.mean()) < 0.015
    assert abs(log_ratio.std() - math.log(16 / 9) / math.sqrt(12)) < 0.01
    assert abs((top / (height - h + 1))[small].mean() - 0.5) < 0.03
    assert abs((left / (width - w + 1))[small].mean() - 0.5) < 0.03


def test_half_of_the_training_images_are_flipped():
    # Darker to the left: a crop keeps that, a flip turns it round.
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    flipped = 0
    for i in range(1000):
        image = train_transform(ramp, 8, sample_rng(0, Purpose.AUGMENT, 0, i)).astype(int)
        flipped += image[0, 0, 0] > image[0, -1, 0]
    assert 440 < flipped < 560


def test_training_crop_does_not_see_pixels_outside_its_box():
    pixels = np.full((100, 200, 3), 255, dtype=np.uint8)
    pixels[11:90, 121:200] = 0
    image = Image.fromarray(pixels)
    assert train_transform(image, 16, ScriptedRng(0.25, 0.5, 0.5, 0.999, 0.9)).max() == 0


# --- reading files ---


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image = Image.new("I;16", (9, 7), 100) if mode == "I;16" else picture(9, 7).convert(mode)
    image.save(path)
    found = decode(path.read_bytes(), str(path))
    assert (found.dtype, found.shape) == (np.uint8, (7, 9, 3))
    np.testing.assert_array_equal(found, Image.open(path).convert("RGB"))


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(9, 7).save(tmp_path / "x.jpg", exif=exif)
    assert decode((tmp_path / "x.jpg").read_bytes(), "x.jpg").shape == (7, 9, 3)


def break_file(path, how):
    save(path, 64, 64)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not an image")
    elif how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "missing", "folder"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_broken_image_is_one_line_that_names_the_file(tmp_path, how, suffix):
    path = tmp_path / f"broken{suffix}"
    break_file(path, how)
    data = open_images(tmp_path, image_size=16) if path.is_file() else files(path)
    with pytest.raises(UserError) as error:
        data.image(0, 0)
    assert str(path) in one_line(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged metadata
def test_damaged_bytes_give_an_image_or_the_documented_error(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in (".jpg", ".png", ".bmp", ".tif", ".webp"):
        save(tmp_path / f"good{suffix}", 24, 24)
        good = np.frombuffer((tmp_path / f"good{suffix}").read_bytes(), dtype=np.uint8)
        for k in range(40):
            bad = good.copy()
            bad[rng.integers(0, min(len(bad), 200), size=5)] = rng.integers(0, 256, size=5)
            path = tmp_path / f"bad{k}{suffix}"
            path.write_bytes(bad[: rng.integers(1, len(bad) + 1)].tobytes())
            try:
                assert decode(path.read_bytes(), str(path)).shape[2] == 3
            except UserError as error:
                assert "\n" not in str(error)


def test_images_are_listed_in_sorted_order_from_a_folder_or_a_file(tmp_path):
    for name in ("b.png", "a/2.JPEG", "a/10.jpg", "a-b.png"):
        save(tmp_path / name)
    (tmp_path / "note.txt").write_text("")
    found = [str(p.relative_to(tmp_path)) for p in list_images(tmp_path)]
    assert found == sorted(found) == ["a-b.png", "a/10.jpg", "a/2.JPEG", "b.png"]
    assert list_images(tmp_path / "b.png") == [tmp_path / "b.png"]


def test_images_without_labels_are_preprocessed_for_evaluation(tmp_path):
    save(tmp_path / "b.png", seed=1)
    save(tmp_path / "a.png", seed=2)
    data = open_images(tmp_path, image_size=16)
    assert data.labels.tolist() == [-1, -1] and data.classes == []
    np.testing.assert_array_equal(data.image(0, 0), eval_transform(picture(40, 30, seed=2), 16))


# --- what users get wrong ---


def test_wrong_folders_are_one_line_errors(folder, tmp_path):
    (tmp_path / "flat").mkdir()
    save(tmp_path / "flat" / "x.png")
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    save(tmp_path / "half" / "train" / "cat" / "x.png")
    for path, split, expected in (
        ("nowhere", "train", "nothing"),
        ("flat/x.png", "train", "a file"),
        ("flat", "val", "sub-folder"),
        ("bare", "val", "sub-folder"),
        ("hollow", "val", "no image"),
        ("half", "val", "without val/"),
    ):
        with pytest.raises(UserError) as error:
            open_dataset(tmp_path / path, split)
        assert expected in one_line(error)
    for path, expected in (("nowhere", "nothing"), ("bare", "no image")):
        with pytest.raises(UserError) as error:
            list_images(tmp_path / path)
        assert expected in one_line(error)


@pytest.mark.parametrize("where", ["train", "val"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_classes_that_differ_between_train_and_val_are_refused(folder, where, split):
    save(folder / where / "bee" / "x.png")
    with pytest.raises(UserError) as error:
        open_dataset(folder, split)
    assert "bee" in one_line(error)


@pytest.mark.parametrize(
    "spec, options",
    [
        ("synthetic", {"image_size": 0}),
        ("synthetic", {"seed": -1}),
        ("synthetic", {"num_images": 0}),
        ("synthetic", {"num_classes": 0}),
        ("synthetic", {"augment": True}),
        ("digits", {"augment": True}),
        ("digits", {"num_classes": 5}),
        ("digits", {"split": "test"}),
    ],
)
def test_wrong_options_are_one_line_errors(spec, options):
    with pytest.raises(UserError) as error:
        open_dataset(spec, **{"split": "train", **options})
    one_line(error)


def test_arrays_of_wrong_type_or_with_labels_out_of_range_are_refused():
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    good = {"mean": np.zeros(3), "std": np.ones(3)}
    for arrays, options in (
        ((images.astype(float), np.array([0, 1])), good),
        ((images[0], np.array([0, 1])), good),
        ((images[:0], np.array([], dtype=int)), good),
        ((images, np.array([0.0, 1.0])), good),
        ((images, np.array([0, 2])), good),
        ((images, np.array([-1, 0])), good),
        ((images, np.array([0])), good),
        ((images, np.array([0, 1])), {**good, "mean": np.zeros(1)}),
    ):
        with pytest.raises(UserError) as error:
            ArrayDataset(*arrays, ["a", "b"], **options)
        one_line(error)
