"""Data sets of images in folders and arrays, against references written out here, and how they fail."""

import numpy as np
import pytest
from PIL import Image
from refusals import one_line
from torchvision.datasets import ImageFolder

from sysds_resnet.errors import UserError
from sysds_resnet.images import ArrayDataset, Dataset, list_images, open_dataset, open_images
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


@pytest.fixture
def folder(tmp_path):
    """Two classes, 4 + 3 training images and 2 + 1 validation images, the classes made in reverse order."""
    for split, counts in (("train", {"zebra": 3, "ant": 4}), ("val", {"zebra": 1, "ant": 2})):
        for name, count in counts.items():
            for k in range(count):
                save(tmp_path / split / name / f"{k}.JPEG", seed=k)
    return tmp_path


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


def test_arrays_of_wrong_type_or_with_labels_out_of_range_are_refused():
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    good = {"mean": np.zeros(3), "std": np.ones(3)}
    for arrays, options in (
        ((images.astype(complex), np.array([0, 1])), good),
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
