"""The prepare command: shards that hold what evaluation sees, matrices, and runs that were stopped."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from command_line import assert_gone, assert_one_line_error, finish, run_here, start_python, wait_for
from damage import changes, cut, flip
from PIL import Image

from sysds_resnet import prepare
from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.errors import UserError
from sysds_resnet.images import Augmentation, open_dataset
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.transforms import Purpose, eval_transform, sample_rng, train_transform
from sysds_resnet.images.sources.layouts import open_source
from sysds_resnet.images.sources.photos import photos_folder
from sysds_resnet.preparing import shards
from sysds_resnet.system.folder_lock import FolderLock

SIZE = 32
OPTIONS = ["--image-size", "32", "--shard-images", "5", "--workers", "1"]
COUNTS = {"train": {"ant": 5, "bee": 4, "cat": 4}, "val": {"ant": 2, "bee": 2, "cat": 2}}
SHARDS = {"train": [5, 5, 3], "val": [5, 1]}
SIDES = [(40, 40), (57, 33), (45, 32), (130, 200), (32, 47)]  # width and height
SYNTHETIC = ["--dataset", "synthetic", "--image-size", "8", "--shard-images", "150"]
SYNTHETIC_BYTES = (256 + 64) * 8 * 8 * 3


def make_source(root):
    """A folder for each class, of JPEG and PNG files of several sizes."""
    rng = np.random.default_rng(0)
    for split, classes in COUNTS.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
                picture = coarse.resize(SIDES[i], Image.Resampling.BICUBIC)
                picture.save(root / split / name / f"{i}.{'png' if i % 2 else 'JPEG'}")
    return root


def files_of(source, split):
    return sorted(path for path in (source / split).rglob("*") if path.is_file())


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def load(folder, split, kind):
    return [np.load(path) for path in sorted(folder.glob(f"{split}-*-{kind}.npy"))]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set in folders; no test changes it."""
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """What it becomes; no test changes it."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    assert prepare.main(["--dataset", str(source), "--out", str(folder), *OPTIONS]) == 0
    return folder


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(prepared, tmp_path / "copied")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A prepared data set that needs no reading processes; no test changes it."""
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    assert prepare.main([*SYNTHETIC, "--out", str(folder)]) == 0
    return folder


# Shards


@pytest.mark.parametrize("split", COUNTS)
def test_shards_hold_what_evaluation_sees_in_the_order_of_the_files(source, prepared, split):
    shards = load(prepared, split, "images")
    assert [len(shard) for shard in shards] == SHARDS[split]
    images = np.concatenate(shards)
    assert images.dtype == np.uint8
    files = files_of(source, split)
    expected = [eval_transform(Picture(path.read_bytes(), path.name), SIZE, SIZE) for path in files]
    np.testing.assert_array_equal(images, np.stack(expected))
    for i, path in enumerate(files):
        pixels = np.asarray(Image.open(path))
        if min(pixels.shape[:2]) == SIZE:  # so that it is only cropped
            top, left = (round((side - SIZE) / 2) for side in pixels.shape[:2])
            np.testing.assert_array_equal(images[i], pixels[top : top + SIZE, left : left + SIZE])


@pytest.mark.parametrize("split", COUNTS)
def test_labels_and_classes_are_those_of_the_source(prepared, split):
    labels = load(prepared, split, "labels")
    assert [len(part) for part in labels] == SHARDS[split]
    assert np.concatenate(labels).tolist() == np.repeat([0, 1, 2], list(COUNTS[split].values())).tolist()
    assert (prepared / "classes.txt").read_text() == "ant\nbee\ncat\n"
    data = open_dataset(prepared, split)
    assert data.classes == ["ant", "bee", "cat"]
    assert data.labels.tolist() == np.concatenate(labels).tolist()


def test_the_manifest_has_counts_and_checksums_of_all_files(prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert manifest["shards"] == SHARDS
    assert manifest["image_size"] == [SIZE, SIZE] and manifest["classes"] == ["ant", "bee", "cat"]
    files = contents(prepared)
    assert files.keys() - manifest["files"].keys() == {"manifest.json", "classes.txt"}
    assert manifest["files"] == {
        name: {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        for name in manifest["files"]
    }


def test_evaluation_at_seven_eighths_sees_the_same_pixels_as_from_the_files(tmp_path):
    assert prepare.main(
        ["--dataset", "photos", "--splits", "val", "--image-size", "64", "--out", str(tmp_path / "out")]
    ) == 0  # fmt: skip
    shards = open_dataset(tmp_path / "out", "val", image_size=56)
    files = open_dataset(photos_folder(), "val", image_size=56, resize_size=64)
    assert len(shards) == len(files) == 120
    for i in range(120):
        np.testing.assert_array_equal(shards.image(i, 0), files.image(i, 0), err_msg=files.name(i))


def test_training_images_from_shards_are_augmented(prepared):
    augmentation = Augmentation(policy="randaugment", color_jitter=0.4, erasing=0.5)
    data = open_dataset(prepared, "train", image_size=24, augmentation=augmentation, seed=3)
    stored = np.concatenate(load(prepared, "train", "images"))
    for i in range(len(data)):
        for epoch in range(2):
            rng = sample_rng(3, Purpose.AUGMENT, epoch, i)
            expected = train_transform(Picture(stored[i], "stored"), 24, rng, augmentation)
            np.testing.assert_array_equal(data.image(i, epoch), expected)
        assert (data.image(i, 0) != data.image(i, 1)).any()


def test_mean_and_deviation_are_the_data_sets_own(tmp_path):
    flags = ["--dataset", "digits", "--splits", "val", "--out", str(tmp_path)]
    assert prepare.main(flags) == 0
    data, digits = open_dataset(tmp_path, "val", image_size=32, resize_size=32), open_dataset("digits", "val")
    np.testing.assert_array_equal(data.mean, digits.mean)
    np.testing.assert_array_equal(data.std, digits.std)
    assert all((data.image(i, 0) == digits.image(i, 0)).all() for i in range(len(digits)))


def test_a_source_is_sent_to_processes_without_its_images(prepared):
    source = open_source(prepared, "train")
    before = pickle.dumps(source)
    images = np.stack([source.read(i) for i in range(13)])
    after = pickle.dumps(source)
    assert len(after) == len(before) < images.nbytes / 10
    sent = pickle.loads(after)  # noqa: S301 as to a reading process
    np.testing.assert_array_equal(np.stack([sent.read(i) for i in range(13)]), images)
    assert [sent.name(i) for i in (4, 5)] == [
        f"{prepared / f'train-0000{shard}-images.npy'}, image {place}" for shard, place in ((0, 4), (1, 0))
    ]


def test_processes_read_from_shards(prepared):
    data = open_dataset(prepared, "train", image_size=24)
    images = np.stack([data.image(i, 0) for i in range(13)])  # maps all shards here
    with (
        Readers([data], 2) as readers,
        BatchStream(data, sequential_order(13), 4, readers, drop_last=False, epochs=1) as stream,
    ):
        batches = list(stream)
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), images)
    assert np.concatenate([batch.labels for batch in batches]).tolist() == data.labels.tolist()


def test_one_split_can_be_prepared_alone(source, tmp_path, capfd):
    """Of a data set that has no other, here PATH/CLASS."""
    outcome = run_here(capfd, "prepare", "--dataset", source / "val", "--out", tmp_path / "out", *OPTIONS)
    assert_one_line_error(outcome, "found no train/ to train on", "or prepare what is there with --splits")
    outcome = run_here(
        capfd, "prepare", "--dataset", source / "val", "--splits", "val", "--out", tmp_path / "out", *OPTIONS
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert [path.name for path in sorted(tmp_path.glob("out/*-*"))] == [
        f"val-0000{shard}-{kind}.npy" for shard in (0, 1) for kind in ("images", "labels")
    ]
    assert len(open_dataset(tmp_path / "out", "val")) == 6
    with pytest.raises(UserError, match="found no train images, expected some: prepare that split too"):
        open_dataset(tmp_path / "out", "train")


# Sizes


def test_sizes_are_told_before_anything_is_written(tmp_path, capfd, monkeypatch):
    told = []
    write_whole = shards.write_whole

    def note(writers):
        told.append((capfd.readouterr().out, list(changes(tmp_path))))
        write_whole(writers)

    monkeypatch.setattr(shards, "write_whole", note)
    assert prepare.main([*SYNTHETIC, "--out", str(tmp_path)]) == 0
    assert told[0] == ("256 train, 64 val images of 8 x 8, 10 classes\nshards:   61.4kB\n", [])


@pytest.mark.parametrize(
    ("flags", "bytes_needed", "size"),
    [
        (SYNTHETIC, SYNTHETIC_BYTES, "8 x 8"),
        ([*SYNTHETIC, "--matrices"], 3 * SYNTHETIC_BYTES, "8 x 8"),
        (["--dataset", "synthetic"], 320 * 32 * 32 * 3, "32 x 32"),
        (["--dataset", "photos", "--splits", "val"], 120 * 256 * 256 * 3, "256 x 256"),
    ],
)
def test_too_small_a_disk_is_refused_before_writing(tmp_path, capfd, monkeypatch, flags, bytes_needed, size):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=bytes_needed - 1))
    outcome = run_here(capfd, "prepare", *flags, "--out", tmp_path / "a" / "b")
    assert_one_line_error(outcome, tmp_path / "a" / "b", " free, expected ", "make room")
    assert f"images of {size}" in outcome.out
    assert not list(tmp_path.iterdir())


def test_what_is_written_already_needs_no_room(synthetic, capfd, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", synthetic)
    assert (outcome.code, outcome.err) == (0, "")


# Runs that end early


STOPS_AFTER_THREE_SHARDS = """
import sys, time
from sysds_resnet import prepare
save = prepare._save
def wait(path, manifest):
    save(path, manifest)
    while manifest.shards["train"] == [2, 2, 2]:
        time.sleep(0.1)
prepare._save = wait
sys.exit(prepare.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not(tmp_path, capfd, sent, code):
    source = make_source(tmp_path / "source")
    flags = ["--dataset", source, "--image-size", SIZE, "--shard-images", 2, "--workers", 1]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_here(capfd, "prepare", *flags, "--out", whole).code == 0

    process = start_python("-c", STOPS_AFTER_THREE_SHARDS, *map(str, flags), "--out", str(out))
    progress = out / "progress.json"
    wait_for(
        process,
        lambda: progress.exists() and json.loads(progress.read_text())["shards"]["train"] == [2, 2, 2],
    )
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(sent)
    outcome = finish(process)
    assert outcome.code == code
    assert sent == signal.SIGKILL or "interrupted\n" in outcome.err
    assert "Traceback" not in outcome.err
    for child in family:
        assert_gone(child)
    for split in COUNTS:
        with pytest.raises(UserError, match=r"run sysds_resnet\.prepare again as before, and it goes on$"):
            open_dataset(out, split)
    before = changes(out)
    outcome = run_here(capfd, "prepare", *flags[:-4], "--shard-images", 3, "--workers", 1, "--out", out)
    assert_one_line_error(outcome, f"{out}: found a data set with shard_images 2, expected 3")
    assert changes(out) == before

    assert run_here(capfd, "prepare", *flags, "--out", out).code == 0
    assert contents(out) == contents(whole)
    after = changes(out)
    for number in range(3):
        path = out / f"train-0000{number}-images.npy"
        assert after[path] == before[path], "written again"


KILLED = f"""
import itertools, os, signal
from sysds_resnet import prepare
for number in itertools.count():
    if os.fork() == 0:
        calls = itertools.count()
        for name in ("replace", "unlink"):
            def or_die(*args, call=getattr(os, name), **kwargs):
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)
            setattr(os, name, or_die)
        os._exit(prepare.main([*{SYNTHETIC}, "--out", str(number)]))
    if os.wait()[1] != signal.SIGKILL:
        break
"""


def test_a_kill_before_any_file_gets_its_name_leaves_what_the_same_command_completes(tmp_path, capfd):
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    *killed, whole = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(killed) > 15
    expected = contents(whole)
    assert len(expected) == 8 and len(open_dataset(whole, "train")) == 256
    for folder in killed:
        if not (folder / "manifest.json").exists():
            for split in COUNTS:
                with pytest.raises(UserError):
                    open_dataset(folder, split)
        outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", folder)
        assert (outcome.code, outcome.err) == (0, ""), f"killed at call {folder.name}"
        assert contents(folder) == expected, f"killed at call {folder.name}"


def test_a_complete_data_set_stays_as_it_is(synthetic, capfd):
    before = changes(synthetic)
    outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", synthetic, "--workers", 1, "--prefetch", 0)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(f"{synthetic}: 320 images; train with --dataset {synthetic}\n")
    assert changes(synthetic) == before


# Refusals


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["synthetic", "--image-size", 16, "--shard-images", 150], "image_size [8, 8], expected [16, 16]"),
        (["synthetic", "--image-size", 8, "--shard-images", 50], "shard_images 150, expected 50"),
        (["synthetic", "--image-size", 8, "--shard-images", 150, "--splits", "val"], "images {'train': 256,"),
        (["digits", "--image-size", 8, "--shard-images", 150], "dataset synthetic, expected digits"),
    ],
)
def test_another_data_set_in_the_same_folder_is_refused(synthetic, capfd, flags, found):
    before = changes(synthetic)
    outcome = run_here(capfd, "prepare", "--dataset", *flags, "--out", synthetic)
    assert_one_line_error(outcome, f"{synthetic}: found a data set with {found}", "choose another --out")
    assert changes(synthetic) == before


@pytest.mark.parametrize("change", [("a.png 0", "a.png 1"), ("a.png", "c.png")])
def test_other_labels_and_other_files_in_the_same_folder_are_refused(tmp_path, capfd, change):
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    listed = tmp_path / "val_list.txt"
    listed.write_text("a.png 0\nb.png 1\nb.png 0\n")
    out = tmp_path / "out"
    flags = ["--dataset", tmp_path, "--splits", "val", "--image-size", 8, "--workers", 1, "--out", out]
    assert run_here(capfd, "prepare", *flags).code == 0
    before = changes(out)
    listed.write_text(listed.read_text().replace(*change))
    outcome = run_here(capfd, "prepare", *flags)
    assert_one_line_error(outcome, f"{out}: found a data set with val samples ", "prepare it as before")
    assert changes(out) == before


def test_a_folder_with_other_files_is_refused(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("mine")
    before = changes(tmp_path)
    for out, found in (
        (tmp_path, "found files there"),
        (tmp_path / "notes.txt", "cannot be made (file exists)"),
    ):
        outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", out)
        assert_one_line_error(outcome, f"{out}: {found}, expected a", "choose another --out")
    assert changes(tmp_path) == before


# Images that cannot be read


def test_a_bad_image_ends_the_command_which_goes_on_when_it_is_repaired(prepared, tmp_path, capfd):
    source = make_source(tmp_path / "source")
    bad = source / "train" / "cat" / "1.png"
    whole = bad.read_bytes()
    cut(bad)
    flags = ["--dataset", source, *OPTIONS, "--out", tmp_path / "out"]
    outcome = run_here(capfd, "prepare", *flags)
    assert_one_line_error(outcome, f"error: class cat, image {bad}: found a damaged file")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "bad_images.csv").exists()
    bad.write_bytes(whole)
    assert run_here(capfd, "prepare", *flags).code == 0
    here, there = contents(tmp_path / "out"), contents(prepared)
    assert here.pop("manifest.json") != there.pop("manifest.json"), "the paths differ"
    assert here == there


def test_bad_images_can_be_left_out_and_are_listed(prepared, tmp_path, capfd):
    source = make_source(tmp_path / "source")
    bad = {
        source / "train" / "ant" / "1.png": "found a damaged file",
        source / "train" / "cat" / "0.JPEG": "found no known image format",
    }
    first, second = bad
    cut(first)
    second.write_bytes(b"")
    out = tmp_path / "out"
    flags = ["--dataset", source, *OPTIONS, "--out", out, "--on-error", "skip", "--max-bad", 0.2]
    outcome = run_here(capfd, "prepare", *flags)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"2 images cannot be read and were left out: {out / 'bad_images.csv'}\n" in outcome.out
    assert f"{out}: 17 images" in outcome.out
    table = pd.read_csv(out / "bad_images.csv")
    assert table["name"].tolist() == [str(path) for path in bad]
    assert table["class"].tolist() == ["ant", "cat"]
    for reason, path in zip(table["reason"], bad, strict=True):
        assert str(path) in reason and bad[path] in reason
    good = [i for i, path in enumerate(files_of(source, "train")) if path not in bad]
    for kind in ("images", "labels"):
        whole = np.concatenate(load(prepared, "train", kind))
        np.testing.assert_array_equal(np.concatenate(load(out, "train", kind)), whole[good])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["shards"] == {"train": [4, 4, 3], "val": [5, 1]}
    assert open_dataset(out, "train").labels.tolist() == [0] * 4 + [1] * 4 + [2] * 3

    before = changes(out)
    assert run_here(capfd, "prepare", *flags).code == 0
    assert changes(out) == before


def test_each_split_may_lack_its_share_of_images(tmp_path, capfd):
    source = make_source(tmp_path / "source")
    for name in ("train/ant/0.JPEG", "train/ant/1.png", "val/ant/0.JPEG"):  # 2 of 13, 1 of 6
        cut(source / name)
    outcome = run_here(
        capfd, "prepare", "--dataset", source, *OPTIONS, "--out", tmp_path / "out", "--on-error", "skip",
        "--max-bad", 0.2,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    assert [len(open_dataset(tmp_path / "out", split)) for split in COUNTS] == [11, 5]


def test_too_many_bad_images_end_the_command_which_goes_on_when_more_are_allowed(tmp_path, capfd):
    source = make_source(tmp_path / "source")
    for i, ending in enumerate(["JPEG", "png"]):
        cut(source / "train" / "ant" / f"{i}.{ending}")
    out = tmp_path / "out"
    flags = ["--dataset", source, *OPTIONS, "--out", out, "--on-error", "skip", "--max-bad"]
    outcome = run_here(capfd, "prepare", *flags, 0.1)
    assert_one_line_error(outcome, out / "bad_images.csv", "found 2 images", "no more than 0.1 of 13")
    outcome = run_here(capfd, "prepare", *flags, 0.2)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(open_dataset(out, "train")) == 11
    assert len(pd.read_csv(out / "bad_images.csv")) == 2


# Damage


def set_manifest(root, **values):
    path = root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (
            lambda root: cut(root / "train-00001-images.npy"),
            "train-00001-images.npy: found 7744 bytes, expected 15488 as in manifest.json",
        ),
        (lambda root: (root / "train-00002-images.npy").unlink(), "train-00002-images.npy: found 0 bytes"),
        (lambda root: cut(root / "train-00000-labels.npy"), "train-00000-labels.npy: found 84 bytes"),
        (lambda root: flip(root / "train-00000-labels.npy", 0), "train-00000-labels.npy: found"),
        (lambda root: cut(root / "manifest.json"), "manifest.json: found no readable manifest"),
        (lambda root: (root / "manifest.json").write_text("[]"), "manifest.json: found no readable manifest"),
        (lambda root: (root / "manifest.json").write_bytes(b"\xff"), "found no readable manifest"),
        (lambda root: set_manifest(root, more=1), "manifest.json: found no readable manifest"),
        (lambda root: set_manifest(root, files={}), "train-00000-images.npy"),
        (lambda root: set_manifest(root, format="shards 2"), "manifest.json: found format 'shards 2'"),
        (lambda root: (root / "manifest.json").unlink(), "found no train/ to train on"),
    ],
)
def test_damage_is_found_on_opening_and_the_file_named_in_one_line(copied, damage, found):
    damage(copied)
    with pytest.raises(UserError) as caught:
        open_dataset(copied, "train")
    assert found in str(caught.value) and "\n" not in str(caught.value)


def test_a_shard_that_is_no_array_any_more_is_named_when_it_is_read(copied):
    flip(copied / "train-00001-images.npy", 0)
    data = open_dataset(copied, "train", image_size=24)
    data.image(4, 0)
    with pytest.raises(UserError, match=r"train-00001-images\.npy"):
        data.image(5, 0)


def test_two_processes_do_not_prepare_into_one_folder(tmp_path, capfd):
    out = tmp_path / "out"
    out.mkdir()
    with FolderLock(out, "prepare", pytest.fail):
        outcome = run_here(capfd, "prepare", "--dataset", "digits", "--out", out)
        assert_one_line_error(outcome, f"{out}: found prepare at work there, process {os.getpid()} on")
    outcome = run_here(capfd, "prepare", "--dataset", "digits", "--splits", "val", "--out", out)
    assert outcome.code == 0, outcome
    assert ".lock" not in os.listdir(out)


def test_a_folder_that_cannot_be_made_is_named_with_the_cause(tmp_path, capfd):
    (tmp_path / "file").touch()
    for out, cause in ((tmp_path / "file", "file exists"), (tmp_path / ("x" * 300), "file name too long")):
        outcome = run_here(capfd, "prepare", "--dataset", "digits", "--out", out)
        assert_one_line_error(outcome, f"{out}: cannot be made ({cause})")
