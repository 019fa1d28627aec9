"""Links among folders of images: in circles, to other classes or splits, or to nothing."""

import pytest
from opened_folders import error_of, expected, paths
from small_layouts import CLASSES, COUNTS, make_folders

from sysds_resnet.images.sources.layouts import open_source


@pytest.fixture
def root(tmp_path):
    """Three classes, four training and two validation images of each."""
    make_folders(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "links",
    [
        {f"train/{CLASSES[0]}/up": ".."},
        {f"train/{CLASSES[0]}/up": "..", f"train/{CLASSES[1]}/up": ".."},
        {f"train/{CLASSES[0]}/top": "../..", f"train/{CLASSES[2]}/self": "."},
        {f"train/{CLASSES[0]}/a": f"../{CLASSES[1]}", f"train/{CLASSES[1]}/b": f"../{CLASSES[0]}"},
        {f"train/{CLASSES[0]}/val": "../../val"},
        {"train/loop": "."},
        {"train/top": ".."},
        {"train/root": "/"},
    ],
)
def test_links_that_lead_back_add_nothing_and_end(root, links):
    for name, target in links.items():
        (root / name).symlink_to(target)
    source = open_source(root, "train")
    assert source.classes == CLASSES and paths(root) == expected()
    assert (
        any(f"left out {len(links)} links to folders" in note for note in source.notes)
        or len(source.notes) == 2
    )


def test_links_that_make_sense_are_followed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "train" / CLASSES[1]).rename(elsewhere / "class")
    (root / "train" / CLASSES[1]).symlink_to(elsewhere / "class")
    image = root / "train" / CLASSES[0] / "0_1.JPEG"
    image.rename(elsewhere / "0_1.JPEG")
    image.symlink_to(elsewhere / "0_1.JPEG")
    (elsewhere / "more" / "deep").mkdir(parents=True)
    (elsewhere / "more" / "deep" / "9.png").write_bytes(b"image")
    (root / "train" / CLASSES[2] / "more").symlink_to(elsewhere / "more")
    for split in COUNTS:
        (root / split).rename(elsewhere / split)
        (root / split).symlink_to(elsewhere / split)
    assert paths(root) == [*expected(), f"train/{CLASSES[2]}/more/deep/9.png"]
    assert open_source(root, "train").notes == []


def test_two_classes_that_are_one_folder_are_refused(root):
    (root / "train" / "z").symlink_to(CLASSES[0])
    text = error_of(root)
    assert f"class {root}/train/z: found a link to the folder of another class" in text


def test_images_in_two_classes_are_noted(root, tmp_path_factory):
    (root / "train" / CLASSES[1] / "also.JPEG").symlink_to(f"../{CLASSES[0]}/0_0.JPEG")
    pool = tmp_path_factory.mktemp("pool")
    (pool / "x.png").write_bytes(b"image")
    for name in CLASSES[1:]:
        (root / "train" / name / "x.png").symlink_to(pool / "x.png")
    assert open_source(root, "train").notes == [
        f"{root}/train: 2 links lead to images of another class, the first: "
        f"{root}/train/{CLASSES[1]}/also.JPEG"
    ]


@pytest.mark.parametrize(
    ("links", "count", "first"),
    [
        ({f"train/{CLASSES[0]}/more": f"../../val/{CLASSES[0]}"}, 2, f"{CLASSES[0]}/more/0_0.JPEG"),
        ({"train/z": f"../val/{CLASSES[1]}", "val/z": "../train/z"}, 2, "z/1_0.JPEG"),
        ({f"val/{CLASSES[2]}/x.png": f"../../train/{CLASSES[1]}/1_0.JPEG"}, 1, f"{CLASSES[1]}/1_0.JPEG"),
    ],
)
def test_images_in_both_splits_are_noted(root, links, count, first):
    for name, target in links.items():
        (root / name).symlink_to(target)
    said = f"data set {root}: {count} training images are validation images too, by links, the first: "
    assert f"{said}{root}/train/{first}" in open_source(root, "train").notes


def test_both_splits_in_one_folder_are_noted(root):
    (root / "train").rename(root / "all")
    (root / "val").rename(root / "old")
    for split in COUNTS:
        (root / split).symlink_to("all")
    assert "12 training images are validation images too" in open_source(root, "train").notes[0]


@pytest.mark.parametrize("target", ["loop", "x" * 300])
def test_links_that_cannot_be_resolved_are_broken(root, target):
    (root / "train" / CLASSES[0] / "loop").symlink_to(target)
    assert paths(root) == expected()
    said = f"{root}/train/*: left out 1 links to nothing, the first: {root}/train/{CLASSES[0]}/loop"
    assert open_source(root, "train").notes == [said]
    (root / "train" / CLASSES[0] / "loop").rename(root / "train" / CLASSES[0] / "loop.png")
    assert len(paths(root)) == 13, "an image that cannot be read"


def test_a_path_that_is_too_long_is_not_there(root):
    assert "found nothing, expected digits" in error_of(root / ("x" * 300))


def test_a_link_of_a_class_that_leads_nowhere_is_noted(root):
    (root / "train" / "gone").symlink_to(root / "nowhere")
    assert open_source(root, "train").notes == [
        f"{root}/train: left out 1 links to nothing, the first: {root}/train/gone"
    ]
