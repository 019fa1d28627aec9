"""The verify command, which finds what is broken."""

import errno
import io
import os
import shutil
import tarfile

import pytest
from command_line import assert_one_line_error, run_here
from damage import cut, flip
from listed_images import COUNTS, rows
from PIL import Image

from sysds_resnet import prepare, verify

REPORT = """\
train: 18 images, {} bad, 3 classes of 6 to 6 images
val: 9 images, {} bad, 3 classes of 3 to 3 images
"""


def test_a_good_data_set_is_reported_as_good(source, tmp_path, capfd):
    outcome = run_here(capfd, "verify", source, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == REPORT.format(0, 0) + f"{source}: all images can be read\n"
    assert not (tmp_path / "bad.csv").exists()


def write_odd_pictures(folder):
    """Pictures of kinds that are seldom, but in order."""
    Image.new("RGB", (1, 1)).save(folder / "0.JPEG")
    Image.new("P", (30, 20)).save(folder / "1.png")
    Image.new("CMYK", (30, 20)).save(folder / "2.JPEG")
    Image.new("L", (1, 500)).save(folder / "3.JPEG")
    Image.new("I;16", (30, 20)).save(folder / "4.png")


BROKEN = [
    ("train", "ant/0.JPEG", lambda path: cut(path, 0.5), "found a damaged file"),
    ("train", "ant/2.JPEG", lambda path: cut(path, 0.9), "found a damaged file"),  # progressive
    ("train", "ant/3.JPEG", lambda path: path.write_bytes(b""), "found no known image format"),
    ("train", "bee/1.png", lambda path: path.write_text("<html>not found</html>\n"), "no known image format"),
    ("train", "bee/4.png", lambda path: cut(path, 0.9), "found a damaged file"),
    ("train", "cat/1.png", lambda path: flip(path, path.stat().st_size // 2), "found a damaged file"),
    ("train", "cat/5.JPEG", lambda path: path.unlink(), "found no such file or directory"),
    ("val", "bee/0.JPEG", lambda path: (path.unlink(), path.mkdir()), "found a folder, expected a file"),
    ("val", "bee/2.JPEG", lambda path: cut(path, 0.02), "found no known image format"),
]


def test_all_broken_images_are_listed_once_and_no_others(own, tmp_path, capfd):
    write_odd_pictures(own / "val" / "cat")
    for split, name, spoil, _ in BROKEN:
        spoil(own / split / name)
    listings = []
    for workers in (1, 2):
        out = tmp_path / "reports" / f"{workers}.csv"
        outcome = run_here(capfd, "verify", own, "--out", out, "--workers", workers)
        assert (outcome.code, outcome.err) == (1, "")
        assert outcome.out == (
            REPORT.format(7, 2) + f"{own}: 9 images or files cannot be used, listed in {out}\n"
        )
        listings.append(out.read_text())
    assert listings[0] == listings[1]
    found = rows(out)
    for row, (split, name, _, reason) in zip(found, BROKEN, strict=True):
        path = str(own / split / name)
        assert list(row) == ["split", "name", "class", "reason"]
        assert (row["split"], row["name"], row["class"]) == (split, path, name[:3])
        assert reason in row["reason"] and path in row["reason"] and "\n" not in row["reason"]


@pytest.mark.parametrize("names", [["val"], ["val", "val_list.txt"]])
def test_a_split_that_is_not_there_is_left_out(source, tmp_path, capfd, names):
    for name in names:
        (tmp_path / name).symlink_to(source / name)
    outcome = run_here(capfd, "verify", tmp_path, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    first, *others = outcome.out.splitlines()
    assert first.startswith(f"left out: data set {tmp_path}: found ") and "train" in first
    assert others == [
        "val: 9 images, 0 bad, 3 classes of 3 to 3 images",
        f"{tmp_path}: all images can be read",
    ]


@pytest.mark.parametrize("table", [False, True])
def test_a_data_set_that_is_not_divided_is_verified_as_a_whole(source, tmp_path, capfd, table):
    path = tmp_path / "images"
    path.symlink_to(source / "val")
    if table:
        path = tmp_path / "images.csv"
        files = sorted((source / "val").glob("*/*.*"))
        path.write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in files))
    outcome = run_here(capfd, "verify", path, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        f"images: 9 images, 0 bad, 3 classes of 3 to 3 images\n{path}: all images can be read\n"
    )


def empty_a_class(root):
    for split in COUNTS:
        (root / f"{split}_list.txt").unlink()
    for path in (root / "train" / "bee").iterdir():
        path.unlink()


def cut_a_tar(root):
    picture = (root / "val" / "ant" / "1.png").read_bytes()
    for path in root.iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for split in COUNTS:
        with tarfile.open(root / f"{split}.tar", "w") as archive:
            for name, data in (("0.png", picture), ("0.cls", b"0")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    cut(root / "train.tar", 0.03)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(empty_a_class, "train/bee: found no image file"), (cut_a_tar, "train.tar: found")],
)
def test_a_split_that_is_there_but_cannot_be_opened_is_no_success(own, tmp_path, capfd, spoil, found):
    spoil(own)
    outcome = run_here(capfd, "verify", own, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert outcome.code != 0
    assert found in outcome.out + outcome.err


def test_what_a_data_set_leaves_out_is_noted_and_the_last_line_does_not_say_all(
    source, tmp_path, capfd, monkeypatch
):
    def open_with_notes(*arguments):
        sets = _open(*arguments)
        sets["train"].notes = ["train: left out: .heic 4, no ending 2", "of\x1b[2J both"]
        sets["val"].notes = ["of\x1b[2J both"]
        return sets

    _open = verify._open
    monkeypatch.setattr(verify, "_open", open_with_notes)
    outcome = run_here(capfd, "verify", source, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == REPORT.format(0, 0) + (
        "note: train: left out: .heic 4, no ending 2\n"
        "note: of\\x1b[2J both\n"
        f"{source}: 27 images can be read; the notes above say what is not among them\n"
    )


@pytest.mark.parametrize(
    ("out", "found"),
    [("folder", "found a folder"), ("file/bad.csv", "file, which is no folder"), ("x" * 300, "too long")],
)
def test_a_list_that_cannot_be_written_is_named_before_images_are_read(
    own, tmp_path, capfd, monkeypatch, out, found
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(verify, "unreadable", lambda *_: pytest.fail("images were read"))
    assert_one_line_error(run_here(capfd, "verify", own, "--out", out), out, found)


def test_a_disk_that_is_full_loses_the_list_but_not_the_finding(own, tmp_path, capfd, monkeypatch):
    def write_whole(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(verify, "write_whole", write_whole)
    (own / "train" / "ant" / "0.JPEG").write_bytes(b"")
    outcome = run_here(capfd, "verify", own, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert_one_line_error(outcome, "bad.csv", "no space left", "the first", "ant/0.JPEG")


def test_nothing_to_verify_is_one_line(tmp_path, capfd):
    outcome = run_here(capfd, "verify", tmp_path / "none")
    assert_one_line_error(outcome, f"data set {tmp_path / 'none'}: found nothing")
    outcome = run_here(capfd, "verify", tmp_path)
    assert_one_line_error(outcome, tmp_path, "found no ")


# verify, of a prepared data set


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """With matrices; no test changes it."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    flags = ["--dataset", "synthetic", "--image-size", "8", "--shard-images", "150", "--matrices"]
    assert prepare.main([*flags, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(prepared, tmp_path / "copied")


def test_a_prepared_data_set_is_reported_as_good(prepared, tmp_path, capfd):
    outcome = run_here(capfd, "verify", prepared, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "train: 256 images, 0 bad, 10 classes of 25 to 26 images\n"
        "val: 64 images, 0 bad, 10 classes of 6 to 7 images\n"
        f"{prepared}: all images can be read\n"
    )
    assert not (tmp_path / "bad.csv").exists()


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("train-00001-images.npy", 5000),
        ("train-00001-images.npy", 0),  # no array any more
        ("train-00001-images.npy", 61),  # in the shape
        ("val-00000-labels.npy", 128 + 8 * 10),  # another class, or none
        ("val-00000-labels.npy", -1),  # below 0
        ("val-00000-labels.npy", 0),
        ("matrices/train_X/part-000000", 5000),
        ("matrices/val_X.mtd", 10),
        ("matrices/val_Y", -1),
    ],
)
def test_a_flipped_byte_is_found_and_its_file_named(copied, tmp_path, capfd, name, position):
    flip(copied / name, position)
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (1, "")
    assert f"listed in {tmp_path / 'bad.csv'}" in outcome.out
    row = rows(tmp_path / "bad.csv")[0]
    assert (row["split"], row["name"], row["class"]) == ("", str(copied / name), "")
    assert "SHA-256" in row["reason"]
    assert {row["name"].partition(", image ")[0] for row in rows(tmp_path / "bad.csv")} == {
        str(copied / name)
    }


def test_all_files_that_are_cut_off_or_gone_are_named(copied, tmp_path, capfd):
    damaged = ["train-00000-images.npy", "train-00001-labels.npy", "val-00000-images.npy", "matrices/val_Y"]
    for name in damaged[:2]:
        cut(copied / name, 0.5)
    for name in damaged[2:]:
        (copied / name).unlink()
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (1, "")
    assert [row["name"] for row in rows(tmp_path / "bad.csv")] == [str(copied / name) for name in damaged]


def test_a_data_set_that_is_not_prepared_to_its_end_is_one_line(copied, tmp_path, capfd):
    (copied / "manifest.json").rename(copied / "progress.json")
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert_one_line_error(outcome, copied, "run sysds_resnet.prepare again as before, and it goes on")


def test_a_damaged_manifest_is_one_line(copied, tmp_path, capfd):
    cut(copied / "manifest.json", 0.5)
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert_one_line_error(outcome, copied / "manifest.json", "found no readable manifest")
