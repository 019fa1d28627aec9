"""Data sets, against references written out here, and how they fail."""

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from sysds_resnet.errors import UserError
from sysds_resnet.images import (
    ArrayDataset,
    Augmentation,
    Dataset,
    list_images,
    open_dataset,
    open_images,
)
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.transforms import eval_transform


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(path, width=40, height=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(width, height, seed).save(path)


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


def test_classes_files_and_their_order_are_those_of_torchvisions_image_folder(folder):
    for name in ("10.jpg", "9.jpg", "B.JPEG", "a/b.png", "a-b.png"):
        save(folder / "train" / "ant" / name)
    save(folder / "train" / "Zebra" / "x.webp")
    save(folder / "val" / "Zebra" / "x.webp")
    theirs = ImageFolder(folder / "train")
    ours = open_dataset(folder, "train")
    assert ours.classes == theirs.classes
    assert list(zip(names(ours), ours.labels.tolist(), strict=True)) == theirs.samples


def test_folder_without_train_and_val_is_for_evaluation_only(folder):
    data = open_dataset(folder / "val", "val", image_size=16)
    assert data.labels.tolist() == [0, 0, 1]
    with pytest.raises(UserError) as error:
        open_dataset(folder / "val", "train")
    assert "train/" in one_line(error)


def test_validation_images_have_the_evaluation_preprocessing(folder):
    data = open_dataset(folder, "val", image_size=16)
    expected = eval_transform(Picture(np.asarray(Image.open(data.name(1)).convert("RGB")), ""), 16)
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
    data = open_dataset(folder, "train", image_size=16, augmentation=None)
    pixels = np.asarray(Image.open(data.name(2)).convert("RGB"))
    np.testing.assert_array_equal(data.image(2, 0), eval_transform(Picture(pixels, ""), 16))


@pytest.mark.parametrize("spec", ["digits", "synthetic", "photos", "PATH"])
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


# --- images without labels ---


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
    np.testing.assert_array_equal(
        data.image(0, 0), eval_transform(Picture(np.asarray(picture(40, 30, seed=2)), ""), 16)
    )


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


@pytest.mark.parametrize("split", ["train", "val"])
def test_validation_images_of_a_class_that_training_lacks_are_refused(folder, split):
    save(folder / "val" / "Ant" / "x.png")
    with pytest.raises(UserError) as error:
        open_dataset(folder, split)
    assert "(first: 'Ant'; train/ has 'ant')" in one_line(error)


@pytest.mark.parametrize(
    "spec, options",
    [
        ("synthetic", {"image_size": 0}),
        ("synthetic", {"seed": -1}),
        ("synthetic", {"num_images": 0}),
        ("synthetic", {"num_classes": 0}),
        ("synthetic", {"augmentation": Augmentation(flip=0)}),
        ("digits", {"augmentation": Augmentation(erasing=0.1)}),
        ("digits", {"resize_size": 40}),
        ("digits", {"layout": "folders"}),
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
        ((images, np.array([0.5, 1.0])), good),
        ((images, np.array([0, 2])), good),
        ((images, np.array([-1, 0])), good),
        ((images, np.array([0])), good),
        ((images, np.array([0, 1])), {**good, "mean": np.zeros(1)}),
    ):
        with pytest.raises(UserError) as error:
            ArrayDataset(*arrays, ["a", "b"], **options)
        one_line(error)
