"""Folders of images as people have them: tools, odd names, and what is said of them."""

import os
from pathlib import Path

import pytest
from command_line import assert_one_line_error, run_here
from opened_folders import error_of, expected, paths
from small_layouts import CLASSES, COUNTS, make_folders

from sysds_resnet.images import list_images, open_dataset
from sysds_resnet.images.sources.files import split_folders
from sysds_resnet.images.sources.layouts import open_source

TOOLS = [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", ".thumbnails", "$RECYCLE.BIN", "lost+found"]


@pytest.fixture
def root(tmp_path):
    """Three classes, four training and two validation images of each."""
    make_folders(tmp_path)
    return tmp_path


@pytest.mark.parametrize("tool", TOOLS)
def test_folders_of_tools_are_neither_classes_nor_images_and_said_once(root, tool):
    image = next((root / "train" / CLASSES[0]).iterdir()).read_bytes()
    for place in ("train", f"train/{CLASSES[0]}", f"train/{CLASSES[1]}", "val"):
        (root / place / tool / "deeper").mkdir(parents=True)
        (root / place / tool / "copy.JPEG").write_bytes(image)
    for split in COUNTS:
        source = open_source(root, split)
        assert source.classes == CLASSES and paths(root, split) == expected(split)
    assert open_source(root, "train").notes == [
        f"{root}/train: left out as files and folders of tools: {tool} 1",
        f"{root}/train/*: left out as files and folders of tools: {tool} 2",
    ]
    assert open_source(root / "train", "val").classes == CLASSES, "PATH/CLASS alone"
    assert len(list_images(root / "train")) == 12, "for prediction"


def test_files_of_tools_and_other_endings_are_counted_by_kind(root):
    folder = root / "train" / CLASSES[0]
    for name in ("._0_0.JPEG", "._0_1.JPEG", ".DS_Store", "Thumbs.db", ".hidden.png", "desktop.ini"):
        (folder / name).write_bytes(b"x")
    for name in ("1.heic", "2.HEIC", "3.jfif", "noending", "4.gif"):
        (folder / name).write_bytes(b"x")
    (root / "train" / "stray.jpg").write_bytes(b"x")
    (root / "train" / "stray.heic").write_bytes(b"x")
    assert paths(root) == expected()
    assert open_source(root, "train").notes == [
        f"{root}/train: left out for endings that images do not have: .heic 1",
        f"{root}/train: left out 1 images outside of the folders of classes, the first: "
        f"{root}/train/stray.jpg",
        f"{root}/train/*: left out as files and folders of tools: ._* 2, .DS_Store 1, .hidden.png 1, "
        "Thumbs.db 1, desktop.ini 1",
        f"{root}/train/*: left out for endings that images do not have: .heic 2, .gif 1, .jfif 1, no ending "
        "1",
    ]


# Classes


def test_a_class_without_validation_images_is_a_note(root):
    (root / "train" / "bee").mkdir()
    (root / "train" / "bee" / "x.png").write_bytes(b"image")
    for split in COUNTS:
        assert open_source(root, split).classes == ["bee", *CLASSES]
    note = f"data set {root}: 1 of 4 classes have no validation images: bee"
    assert open_source(root, "val").notes == [note]
    (root / "val" / "bee").mkdir()
    assert open_source(root, "val").notes == [note]
    assert open_source(root, "val").labels.tolist() == [1, 1, 2, 2, 3, 3]
    assert open_source(root / "val", "val").classes == ["bee", *CLASSES]


def test_a_class_without_training_images_is_one_error_that_can_be_mended(root):
    (root / "train" / "bee").mkdir()
    text = error_of(root)
    assert f"class {root}/train/bee: found no image file" in text and text.endswith("remove the folder")
    (root / "val" / "bee").mkdir()
    assert error_of(root).endswith(f"remove the folder, and {root}/val/bee too")
    (root / "train" / "bee").rmdir()
    assert open_source(root, "train").classes == open_source(root, "val").classes == CLASSES
    (root / "val" / "bee" / "x.png").write_bytes(b"image")
    for split in COUNTS:
        assert f"add {root}/train/bee or remove {root}/val/bee" in error_of(root, split)


@pytest.mark.parametrize(
    "names", [("Train", "VAL"), ("training", "validation"), ("train", "valid"), ("train", "test")]
)
def test_folders_of_splits_are_found_under_their_usual_names(root, names):
    for split, name in zip(COUNTS, names, strict=True):
        (root / split).rename(root / "moved")
        (root / "moved").rename(root / name)
    for split in COUNTS:
        source = open_source(root, split)
        assert source.classes == CLASSES and len(source.labels) == 3 * COUNTS[split]
    said = f"data set {root}: validation is on the test split (test/), as there is no val"
    assert open_source(root, "val").notes == ([said] if names[1] == "test" else [])


def test_a_test_folder_beside_val_is_not_used_and_said(root):
    (root / "test" / CLASSES[0]).mkdir(parents=True)
    assert paths(root, "val") == expected("val")
    assert open_source(root, "val").notes == [
        f"data set {root}: the test split (test/) is not used, as there is val"
    ]


def test_other_folders_of_a_split_are_not_used_and_said(root):
    for name in ("validation", "Valid"):
        (root / name / CLASSES[0]).mkdir(parents=True)
    (root / "VAL").symlink_to("val")
    assert paths(root, "val") == expected("val")
    assert open_source(root, "val").notes == [
        f"data set {root}: val images are from val/; not used, though called alike: Valid/, validation/"
    ]


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "TEST")])
@pytest.mark.parametrize("above", ["ds", "train"])
def test_a_data_set_one_level_below_is_named(tmp_path, above, names):
    make_folders(tmp_path)
    root = tmp_path / "root"
    for split, name in zip(COUNTS, names, strict=True):
        (root / above).mkdir(parents=True, exist_ok=True)
        (tmp_path / split).rename(root / above / name)
    for split in COUNTS if above == "ds" else ["train"]:
        assert f"give {root / above} itself as the data set" in error_of(root, split)


def test_one_class_in_all_is_noted(tmp_path):
    for split in COUNTS:
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "images" / "0.png").write_bytes(b"image")
        said = [f"data set {tmp_path}: all images are of one class, 'images'"]
        assert open_source(tmp_path, split).notes == said


def test_a_flat_test_folder_as_of_competitions_is_no_validation(root):
    (root / "val").rename(root / "test")
    for path in (root / "test").rglob("*.JPEG"):
        path.rename(root / "test" / path.name)
    for name in CLASSES:
        (root / "test" / name).rmdir()
    assert open_source(root, "train").classes == CLASSES
    assert "found train/ without val/" in error_of(root, "val")


# Names


def undecodable(root, name):
    """A path whose last part is bytes that are not UTF-8."""
    return os.fsdecode(os.fsencode(root) + b"/" + name)


@pytest.mark.parametrize("command", ["train", "verify", "prepare", "evaluate", "show"])
def test_names_that_are_not_utf_8_are_one_line(root, capfd, tmp_path_factory, command):
    out = tmp_path_factory.mktemp("out") / "out"
    flags = {
        "train": ["--dataset", root, "--out", out],
        "prepare": ["--dataset", root, "--out", out],
        "show": ["--dataset", root, "--split", "val", "--out", out],
        "evaluate": ["--dataset", root, "--weights", out],
        "verify": [root, "--out", out],
    }[command]
    if command != "evaluate":  # which reads weights first
        with open(undecodable(root / "val" / CLASSES[0], b"caf\xe9.png"), "wb"):
            pass
        outcome = run_here(capfd, command, *flags)
        assert_one_line_error(outcome, f"{CLASSES[0]}/caf\\udce9.png': found a name that is not UTF-8")
        os.unlink(undecodable(root / "val" / CLASSES[0], b"caf\xe9.png"))
    for split in COUNTS:
        folder = Path(undecodable(root / split, b"caf\xe9"))
        folder.mkdir()
        (folder / "x.png").write_bytes(b"")
    outcome = run_here(capfd, command, *flags)
    assert outcome.code == 2 and "Traceback" not in outcome.err and outcome.err.count("\n") == 1
    if command != "evaluate":
        assert "found the class name 'caf\\udce9', expected a line of text in UTF-8" in outcome.err
    assert not out.exists()


@pytest.mark.parametrize("name", ["two\nlines", "carriage\rreturn", " "])
def test_names_of_classes_that_a_line_cannot_hold_are_refused(root, name):
    for split in COUNTS:
        (root / split / name).mkdir()
        (root / split / name / "x.png").write_bytes(b"")
    for split in COUNTS:
        assert f"found the class name {name!r}, expected a line of text" in error_of(root, split)


# What commands say


def test_each_note_is_said_once_on_standard_error(root, capfd, tmp_path):
    (root / "train" / CLASSES[0] / "x.heic").write_bytes(b"")
    (root / "train" / "bee").mkdir()
    (root / "train" / "bee" / "0.png").write_bytes((root / "train" / CLASSES[0] / "0_0.JPEG").read_bytes())
    (root / "test" / "ant").mkdir(parents=True)
    out = tmp_path / "out"
    outcome = run_here(capfd, "prepare", "--dataset", root, "--image-size", 8, "--workers", 1, "--out", out)
    assert outcome.code == 0
    assert set(outcome.err.splitlines()) == {
        f"note: data set {root}: 1 of 4 classes have no validation images: bee",
        f"note: data set {root}: the test split (test/) is not used, as there is val",
        f"note: {root}/train/*: left out for endings that images do not have: .heic 1",
    }
    assert outcome.err.count("note: ") == 3
    assert open_dataset(out, "train").notes == []
    outcome = run_here(
        capfd, "show", "--dataset", root, "--images", 2, "--workers", 1, "--out", out / "x.png"
    )
    assert outcome.code == 0 and len(outcome.err.splitlines()) == 2
    outcome = run_here(capfd, "train", "--dataset", root, "--epochs", 1, "--dry-run")
    assert outcome.code == 0 and outcome.err.count("note: ") == 3


def test_the_folder_called_as_usual_counts_first_whatever_leads_to_it(tmp_path):
    for name in ("train", "TRAINING"):
        (tmp_path / name).mkdir()
    (tmp_path / "Training").symlink_to("train")
    assert split_folders(tmp_path, "train") == [tmp_path / "train", tmp_path / "TRAINING"]
