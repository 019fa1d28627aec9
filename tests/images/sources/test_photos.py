"""The data set photos: honest validation, ImageNet's kind of files, a cache that is whole or not there."""

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from threading import Barrier

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from sysds_resnet.errors import UserError
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.sources import photos
from sysds_resnet.images.sources.folders import open_folders
from sysds_resnet.images.sources.layouts import open_source
from sysds_resnet.images.sources.photos import (
    NUM_CROPS,
    PHOTOS,
    crop_boxes,
    make_photos,
    open_photo,
    photos_folder,
)

NUM_FILES = len(PHOTOS) * sum(NUM_CROPS.values()) + len(["train_list.txt", "val_list.txt", "classes.txt"])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sysds_resnet"


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
def test_a_photograph_is_in_the_wheel(photo):
    assert photo.file in {str(file) for file in distribution(photo.package).files}


@pytest.mark.parametrize("label", range(len(PHOTOS)))
def test_training_and_validation_have_no_pixel_in_common(label):
    width, height = size = open_photo(PHOTOS[label]).size
    seen = {}
    for split, boxes in crop_boxes(label, size).items():
        assert len(set(boxes)) > 0.9 * NUM_CROPS[split]
        seen[split] = np.zeros((height, width), bool)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            seen[split][top:bottom, left:right] = True
    assert not (seen["train"] & seen["val"]).any()
    assert seen["train"].mean() > 0.5 and seen["val"].mean() > 0.25


@pytest.mark.parametrize("split", NUM_CROPS)
def test_lists_and_folders_give_the_same_samples_and_lists_name_the_classes(made, split):
    source, other = open_source(made, split), open_folders(made, split)
    assert source.classes == [photo.name for photo in PHOTOS]
    assert np.bincount(source.labels).tolist() == [NUM_CROPS[split]] * len(PHOTOS)
    indices = range(len(source.labels))
    listed, found = ({(s.name(i), s.labels[i]) for i in indices} for s in (source, other))
    assert listed == found


@pytest.mark.parametrize("split", NUM_CROPS)
def test_files_are_jpeg_of_the_crops_in_every_kind(made, split):
    source = open_source(made, split)
    kinds, sizes = set(), []
    for label, photo in enumerate(PHOTOS):
        image = open_photo(photo)
        for i, box in enumerate(crop_boxes(label, image.size)[split]):
            index = label * NUM_CROPS[split] + i
            data = source.read(index)
            pixels = Picture(data, source.name(index)).pixels()
            crop = np.asarray(image.crop(box).convert("RGB"), float)
            assert pixels.shape == crop.shape and np.abs(pixels - crop).mean() < 6
            with Image.open(source.name(index)) as file:
                assert file.format == "JPEG" and file.mode == image.mode
                kinds.add((*simplejpeg.decode_jpeg_header(data)[2:], "progressive" in file.info))
            sizes.append(crop.shape[:2])
    assert kinds == {
        (*kind, progressive) for kind in (("YCbCr", "420"), ("Gray", "Gray")) for progressive in (0, 1)
    }
    assert min(map(min, sizes)) >= 144 and len(set(sizes)) > len(sizes) / 2
    assert any(h > w for h, w in sizes) and any(h < w for h, w in sizes)


def test_the_same_bytes_are_made_again(made, tmp_path):
    make_photos(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(made)
    assert sum(map(len, contents(made).values())) < 15e6


def test_the_folder_is_made_once_in_the_cache_without_network(made, cache, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = photos_folder()
    assert folder.parent == cache and list(cache.iterdir()) == [folder]
    assert contents(folder) == contents(made)
    monkeypatch.setattr(photos, "make_photos", refuse)
    assert photos_folder() == folder


KILLED = f"""
import os
from PIL import Image
from sysds_resnet.images.sources.photos import photos_folder
save, saved = Image.Image.save, []
def save_or_die(*args, **kwargs):
    if len(saved) == 100:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    saved.append(save(*args, **kwargs))
Image.Image.save = save_or_die
photos_folder()
"""


def test_a_kill_in_the_middle_leaves_nothing_that_looks_whole(made, cache):
    assert subprocess.run([sys.executable, "-c", KILLED]).returncode == -signal.SIGKILL
    (left,) = cache.iterdir()
    assert left.name.startswith(".") and 100 <= len(contents(left)) < NUM_FILES
    assert contents(photos_folder()) == contents(made)


def test_an_exception_in_the_middle_leaves_nothing(made, cache, monkeypatch):
    def stop_at_the_second(label, size):
        if label == 1:
            raise KeyboardInterrupt
        return crop_boxes(label, size)

    with monkeypatch.context() as patch:
        patch.setattr(photos, "crop_boxes", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            photos_folder()
    assert not list(cache.iterdir())
    assert contents(photos_folder()) == contents(made)


def test_of_two_that_make_it_at_once_one_wins(made, cache, monkeypatch):
    barrier = Barrier(2)

    def make_together(folder):
        barrier.wait(60)
        make_photos(folder)
        barrier.wait(60)

    monkeypatch.setattr(photos, "make_photos", make_together)
    with ThreadPoolExecutor(2) as pool:
        folders = {future.result() for future in [pool.submit(photos_folder) for _ in range(2)]}
    assert list(cache.iterdir()) == list(folders)
    assert contents(*folders) == contents(made)


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        UserError, match=r"^cache folder .*file/sysds_resnet: found .*: .*set XDG_CACHE_HOME.*$"
    ):
        photos_folder()


def test_a_photograph_that_is_not_there_names_its_package():
    with pytest.raises(
        UserError, match=r"skimage/data/eagle\.png: found no such file .* run .* pip install 'scikit-image"
    ):
        open_photo(PHOTOS[0]._replace(file="skimage/data/eagle.png"))
    with pytest.raises(UserError, match=r"found No package .* expected it to come with no-such-package"):
        open_photo(PHOTOS[0]._replace(package="no-such-package"))
