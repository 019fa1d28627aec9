"""Tar files by WebDataset's convention: each image counts, or is counted as left out, or is an error."""

import io
import tarfile

import pytest
from small_layouts import CLASSES, COUNTS, make_folders, make_tar
from tar_files import error_of, named, pairs, write

from sysds_resnet.images.sources.layouts import open_source


@pytest.mark.parametrize(
    ("names", "more"),
    [
        (["red.v2_0", "red.v2_1", "blue.v2_0", "./sub/green.1.2"], []),
        (["red.v2_0", "red"], []),
        (["a", "b"], [("c.left.jpg", b"image"), ("c.cls", b"c")]),
    ],
)
def test_images_whose_names_have_dots_are_all_kept(tmp_path, names, more):
    write(tmp_path / "val.tar", *pairs(names), *more)
    expected = {f"val.tar/{name}": name[:1] for name in names}
    expected |= {"val.tar/c.left": "c"} if more else {}
    assert named(open_source(tmp_path, "val")) == expected


def test_images_beside_that_of_their_key_are_counted_and_the_others_kept(tmp_path):
    masks = [(f"{name}.seg.PNG", b"mask") for name in "ab"]
    write(
        tmp_path / "val.tar", *pairs("ab", "JPEG"), *masks, ("a.heic", b""), ("x.cls", b"a"), ("README", b"")
    )
    source = open_source(tmp_path, "val")
    assert named(source) == {"val.tar/a": "a", "val.tar/b": "b"}
    assert source.notes == [
        f"data set {tmp_path}: left out of val*.tar: images beside that of their key 2, .cls without an "
        "image 1, .heic 1, no ending 1"
    ]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([*pairs("ab"), *pairs("a")], "found two images under the key a,"),
        ([*pairs("a"), ("a.png", b"image")], "found two images under the key a,"),
        ([*pairs("a"), ("a.cls", b"b")], "found .cls twice under the key a,"),
        ([("k.1.jpg", b""), ("k.2.jpg", b""), ("k.cls", b"a")], "found 2 images (k.1, k.2) under the key k,"),
        ([*pairs("a"), ("b.v1.jpg", b"image")], "found b.v1 without a label, expected b.v1.cls"),
        ([("a.jpg", b""), ("a.json", b'{"caption": "x"}')], "found a without a label, expected a.cls"),
        ([("a.jpg", b""), ("a.json", b'{"label": null}')], "found a without a label, expected a.cls"),
        (
            [("a.jpg", b""), ("a.json", b'{"label": NaN}')],
            """'label' in a.json, which holds '{"label": NaN}'""",
        ),
        (
            [("a.jpg", b""), ("a.json", b'{"label": 1e400}')],
            "found a without a label, expected a.cls, or a name",
        ),
        ([("a.jpg", b""), ("a.json", b'{"cls": 0}')], """'label' in a.json, which holds '{"cls": 0}'"""),
        ([("a.jpg", b""), ("a.json", b"[" * 100_000)], "a.json: found no JSON (maximum recursion depth"),
        ([("caf\udce9.jpg", b"")], "found a member called 'caf\\udce9.jpg', expected a name in UTF-8"),
        ([("a.jpg", b""), ("a.cls", b" \n")], "found a without a label, expected a.cls"),
        ([("a.jpg", b""), ("a.json", b'{"label"')], "a.json: found no JSON"),
        (
            [("a.jpg", b""), ("a.cls", "caf\u00e9".encode("latin-1"))],
            "a.cls: found text that seems to be in ISO-8859-1",
        ),
        ([("a.jpg", b""), ("a.txt", b"a\nb")], "found the class name 'a\\nb', expected a line of text"),
        ([("a.jpg", b""), ("a.cls", bytes(2**20 + 1))], "a.cls: found 1048577 bytes, expected a label"),
        (
            [("a.heic", b""), ("a.cls", b"a")],
            "found no images in val*.tar but .cls without an image 1, .heic 1",
        ),
    ],
)
def test_what_is_ambiguous_or_lacking_is_named(tmp_path, members, found):
    write(tmp_path / "val.tar", *members)
    text = error_of(tmp_path)
    assert found in text and str(tmp_path) in text


def test_the_same_key_in_two_tar_files_is_two_images(tmp_path):
    for number in range(2):
        write(tmp_path / f"val-{number}.tar", *pairs("ab"))
    assert len(set(named(open_source(tmp_path, "val")))) == 4


def test_companions_that_macos_makes_are_left_out_and_said(tmp_path):
    write(
        tmp_path / "val.tar",
        *pairs("ab"),
        ("._a.jpg", b"x"),
        ("__MACOSX/._a.cls", b"x"),
        (".DS_Store", b"x"),
    )
    source = open_source(tmp_path, "val")
    assert named(source) == {"val.tar/a": "a", "val.tar/b": "b"}
    assert source.notes == [f"data set {tmp_path}: left out of val*.tar: files of tools 3"]


def test_links_in_tar_files_are_counted(tmp_path):
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        for name, kind in (
            ("a.jpg", tarfile.REGTYPE),
            ("a.cls", tarfile.SYMTYPE),
            ("b.jpg", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type = kind
            archive.addfile(member, io.BytesIO())
    assert "a without a label, expected a.cls with bytes of its own, as a.cls is a link" in error_of(tmp_path)
    write(tmp_path / "val.tar", *pairs("ac"))
    with tarfile.open(tmp_path / "val.tar", "a") as archive:
        archive.addfile(member)
    assert open_source(tmp_path, "val").notes == [f"data set {tmp_path}: left out of val*.tar: links 1"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["val-0.tar", "data/val-1.tar", "val/0.tar"],
            "{0}: val images are from the 1 .tar files in {0}; not used, 2 elsewhere, the first: "
            "{0}/data/val-1.tar",
        ),
        (["val-0.tar", "val-0 (1).tar"], "{0}: {0}/val-0 (1).tar is called like a copy of val-0.tar; both"),
        (["val-0.tar", "val-1.tar.gz"], "{0}: not all its files are used (but val-1.tar.gz: compressed"),
        (["val-0.tar", "more.tar"], "{0}: not all its files are used (but more.tar: in no split by its name"),
    ],
)
def test_files_that_are_not_used_or_copies_are_said(tmp_path, names, said):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, *pairs("ab"))
    [note] = open_source(tmp_path, "val").notes
    assert note.startswith(f"data set {said.format(tmp_path)}")


def test_a_tar_file_without_images_is_said(tmp_path):
    write(tmp_path / "val-0.tar", *pairs("ab"))
    write(tmp_path / "val-1.tar")
    said = f"data set {tmp_path}: 1 tar files have no images, the first: val-1.tar"
    assert open_source(tmp_path, "val").notes == [said]


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [("0 3", "1, 2, 4"), ("0 1 2 3", "4"), ("5", "1, 2, 3, ..."), ("0 1 2 3 4", ""), ("1 2 3 4 5", "")],
)
def test_files_that_are_missing_by_the_numbers_of_the_others_are_named(tmp_path, numbers, missing):
    for number in numbers.split():
        write(tmp_path / f"val-{number}-of-00005.tar", *pairs("ab"))
    if missing:
        assert f"of 5 files val-*-of-*, without number {missing}, expected all" in error_of(tmp_path)
    else:
        assert len(open_source(tmp_path, "val").labels) == 10


def test_archives_beside_the_folders_that_they_were_unpacked_into_are_said(tmp_path):
    make_folders(tmp_path)
    write(tmp_path / "ILSVRC2012_img_train.tar", ("n01440764.tar", b""))
    write(tmp_path / "ILSVRC2012_img_val.tar", ("ILSVRC2012_val_00000001.JPEG", b"image"))
    for split in COUNTS:
        source = open_source(tmp_path, split)
        assert source.classes == CLASSES and source.notes == [
            f"data set {tmp_path}: images are from its folders, not from ILSVRC2012_img_{split}.tar"
        ]


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("dataset-train-000000.tar", "train"),
        ("imagenet-val-0001.TAR", "val"),
        ("imagenet1k-validation-00.tar", "val"),
        ("train0001.tar", "train"),
        ("data/TRAIN_1.tar", "train"),
        ("default/training/0000.tar", "train"),
        ("Valid/0000.tar", "val"),
        ("test-1.tar", "val"),
    ],
)
def test_usual_names_of_shards_are_found(tmp_path, name, of):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write(tmp_path / name, *pairs("ab"))
    assert list(named(open_source(tmp_path, of)).values()) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train-0.tar.gz", "train-0.tar.gz: compressed, and only an uncompressed .tar can be read"),
        ("val.tgz", "val.tgz: compressed"),
        ("shard-000000.tar", "shard-000000.tar: in no split by its name: put the word train or val into it"),
        ("data/images.parquet", "data/images.parquet: in no split by its name"),
        ("labels.csv", "labels.csv: in no split by its name"),
        ("train/x.tfrecord", "x.tfrecord: a form that is not read"),
        ("val.zip", "val.zip: an archive"),
    ],
)
def test_files_in_no_layout_are_named_with_what_to_do(tmp_path, name, found):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    assert found in error_of(tmp_path, "train")


def test_a_name_of_two_splits_is_refused(tmp_path):
    write(tmp_path / "train-val-0.tar", *pairs("ab"))
    assert "train-val-0.tar: found the names of two splits" in error_of(tmp_path)


def test_both_splits_are_read_for_the_classes_of_either(tmp_path):
    make_tar(tmp_path)
    write(tmp_path / "val-000001.tar")
    val = open_source(tmp_path, "val")
    assert val.classes == ["0", "1", "2"] and set(val.labels.tolist()) == {0, 1}
    assert any("1 of 3 classes have no validation images: 2" in note for note in val.notes)
