"""The data set of crops of photographs: ImageNet's files and layout without ImageNet.

Every class is one photograph from the wheels of scikit-image and scikit-learn, so nothing is downloaded. By
their documentation, the photographs are in the public domain, CC0 or without known restrictions, except
lakeside and dahlia, CC BY 2.0 by danielbuechele and vultilion (Flickr), and the motorcycle, which is from
Middlebury's stereo benchmark of 2014.
"""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sysds_resnet.classes.file import CLASSES_FILE, classes_text
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.files import Split
from sysds_resnet.system.command_lines import install_command
from sysds_resnet.system.files import user_cache

RECIPE = 1
"""The version of the files that are made, part of the folder's name; every change of them must raise it."""

NUM_CROPS: dict[Split, int] = {"train": 40, "val": 10}
"""The number of images of each class."""

VAL_SHARE = 3 / 8
"""The share of a photograph's width at one end that is for validation; training never sees it."""

SHORTER_SIDE = (160, 375)
"""The least and greatest shorter side of a crop in pixels, where the photograph is large enough.

375 is ImageNet's usual one.
"""

GREATEST_RATIO = 3 / 2
"""The greatest ratio of a crop's longer to its shorter side."""

QUALITY = 90
PROGRESSIVE_EVERY = 10

Box = tuple[int, int, int, int]
"""The left, top, right and bottom of a crop in pixels, the last two exclusive, as in Pillow."""


class Photo(NamedTuple):
    """A photograph, which is a class.

    Attributes:
        name: The name of the class.
        package: The distribution that brings the file.
        file: The path of the file, relative to where distributions are installed.
        val_left: Whether validation is at the left end: the one that shows more of the object.
        reduce: The whole factor to shrink the photograph by.
    """

    name: str
    package: str
    file: str
    val_left: bool = False
    reduce: int = 1


PHOTOS = (
    Photo("astronaut", "scikit-image", "skimage/data/astronaut.png", val_left=True),
    Photo("cat", "scikit-image", "skimage/data/chelsea.png"),
    Photo("espresso", "scikit-image", "skimage/data/coffee.png"),
    Photo("galaxies", "scikit-image", "skimage/data/hubble_deep_field.jpg"),
    Photo("tissue", "scikit-image", "skimage/data/ihc.png"),
    Photo("motorcycle", "scikit-image", "skimage/data/motorcycle_left.png"),
    # At full size, its black corners are larger than the least crop.
    Photo("retina", "scikit-image", "skimage/data/retina.jpg", reduce=2),
    Photo("launchpad", "scikit-image", "skimage/data/rocket.jpg"),
    Photo("lakeside", "scikit-learn", "sklearn/datasets/images/china.jpg", val_left=True),
    Photo("dahlia", "scikit-learn", "sklearn/datasets/images/flower.jpg", val_left=True),
    Photo("coins", "scikit-image", "skimage/data/coins.png"),
    Photo("bricks", "scikit-image", "skimage/data/brick.png"),
)
"""The classes in the order of their labels; the last two are grey."""


def photos_folder() -> Path:
    """Gives the folder of this data set, which is made when it is first asked for (half a second, 12 MB).

    It is photos-RECIPE in sysds_resnet in the user's cache folder ($XDG_CACHE_HOME, by default ~/.cache), in
    a layout that `open_source` reads. It is there whole or not at all, even if processes are killed or
    several make it at once. What a killed process was making stays beside it, under a name that begins with a
    dot.

    Raises:
        UserError: If the cache folder cannot be written, or a package lacks its photograph.
    """
    folder = user_cache("sysds_resnet") / f"photos-{RECIPE}"
    if os.path.isdir(folder):  # unlike Path.is_dir, not an error below a folder without permission
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            whole = Path(temporary) / folder.name
            make_photos(whole)
            whole.rename(folder)
    except OSError as error:
        if not os.path.isdir(folder):  # else another process was quicker
            raise UserError(
                f"cache folder {folder.parent}: found {one_line(error)}, expected one to write the data set "
                "photos into: make it writable, or set XDG_CACHE_HOME to another folder"
            ) from error
    return folder


def make_photos(folder: Path) -> None:
    """Writes the data set in ImageNet's layout, with lists: the same bytes for the same version of Pillow.

    The files are train/n00000001/n00000001_0.JPEG and so on, train_list.txt and val_list.txt with lines "path
    label", and classes.txt. A class has 40 images for training and 10 for validation (`crop_boxes`), in JPEG
    of quality 90, 4:2:0 or grey, one in ten progressive.

    Args:
        folder: The folder to make; it may be there, if empty.

    Raises:
        UserError: If a package lacks its photograph.
        OSError: If a file cannot be written.
    """
    lists: dict[Split, list[str]] = {split: [] for split in NUM_CROPS}
    for label, photo in enumerate(PHOTOS):
        image = open_photo(photo)
        # A name like ImageNet's, but of no synset: WordNet's numbers of nouns begin at 1740.
        name = f"n{label + 1:08d}"
        number = 0
        for split, boxes in crop_boxes(label, image.size).items():
            (folder / split / name).mkdir(parents=True)
            for box in boxes:
                path = f"{split}/{name}/{name}_{number}.JPEG"
                # Pillow's default is 4:2:0; to ask for it would give the grey ones sampling factors as well.
                image.crop(box).save(
                    folder / path, "JPEG", quality=QUALITY, progressive=number % PROGRESSIVE_EVERY == 0
                )
                lists[split].append(f"{path} {label}\n")
                number += 1
    for split, lines in lists.items():
        (folder / f"{split}_list.txt").write_text("".join(lines))
    (folder / CLASSES_FILE).write_text(classes_text(photo.name for photo in PHOTOS))


def open_photo(photo: Photo) -> Image.Image:
    """Decodes a photograph: in mode RGB, or L where it is grey.

    Raises:
        UserError: If the package lacks it.
    """
    try:
        # The file is located without importing its package, which would take longer than all crops.
        with Image.open(str(distribution(photo.package).locate_file(photo.file))) as image:
            return image.reduce(photo.reduce)
    except (OSError, PackageNotFoundError) as error:
        raise UserError(
            f"photograph {photo.file}: found {one_line(error)}, expected it to come with {photo.package}; "
            f"run {install_command('samples')}"
        ) from error


def crop_boxes(label: int, size: tuple[int, int]) -> dict[Split, list[Box]]:
    """Draws the crops of a photograph: those for training from one end, those for validation from the other.

    Validation has 3/8 of the width, all of the height, and no pixel in common with training. The shorter side
    of a crop is uniform in 160..375 pixels, as far as there is room; the longer is up to 3/2 of it, upright
    or across.

    Args:
        label: The position of the photograph in `PHOTOS`.
        size: The width and height of the photograph in pixels.
    """
    width, height = size
    val_width = round(VAL_SHARE * width)
    if PHOTOS[label].val_left:
        strips = {"train": (val_width, width), "val": (0, val_width)}
    else:
        strips = {"train": (0, width - val_width), "val": (width - val_width, width)}
    # Only random() is used because NumPy promises no fixed stream for other methods.
    rng = np.random.Generator(np.random.PCG64(label))
    return {
        split: [_draw_box(*strips[split], height, rng) for _ in range(number)]
        for split, number in NUM_CROPS.items()
    }


def _draw_box(start: int, end: int, height: int, rng: np.random.Generator) -> Box:
    """Draws one crop from the columns from `start` to `end`."""
    room = min(end - start, height)
    least, greatest = (min(side, room) for side in SHORTER_SIDE)
    shorter = least + int(rng.random() * (greatest - least + 1))
    longer = round(shorter * (1 + (GREATEST_RATIO - 1) * rng.random()))
    w, h = (shorter, longer) if rng.random() < 0.5 else (longer, shorter)
    w, h = min(w, end - start), min(h, height)
    left = start + int(rng.random() * (end - start - w + 1))
    top = int(rng.random() * (height - h + 1))
    return left, top, left + w, top + h
