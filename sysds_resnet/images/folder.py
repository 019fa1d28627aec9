"""Image files in folders: finding, reading, and the data sets they make."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sysds_resnet.errors import UserError
from sysds_resnet.images.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Purpose,
    eval_transform,
    sample_rng,
    train_transform,
)

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of image files in either case, so .JPEG too; torchvision's list."""

# Image.open (in Pillow 11.3 and 13.0) loads parsers when first needed, without a lock: by its code, a second
# thread may then be told that a good file has no known format. So all are loaded beforehand.
Image.init()

DEFAULT_IMAGE_SIZE = 224
LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg"


class FileDataset:
    """Images read from files whenever they are asked for."""

    channels = 3

    def __init__(
        self,
        paths: Sequence[str],
        labels: np.ndarray,
        classes: Sequence[str],
        *,
        image_size: int | None = None,
        augment: bool = False,
        seed: int = 0,
        resize_size: int | None = None,
    ) -> None:
        """Describe the data set; no file is opened.

        Args:
            paths: n image files.
            labels: 0-based labels, integers of shape (n,); -1 for unlabelled.
            classes: names of the classes.
            image_size: side of the square images in pixels; None means 224.
            augment: random crop and flip instead of the evaluation preprocessing.
            seed: of the augmentation, at least 0.
            resize_size: shorter side before the centre crop; None means 256 for 224 and in proportion.
        """
        size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
        self.paths: list[str] | None = list(paths)
        self._files = self.paths
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = list(classes)
        self.num_classes = len(self.classes)
        self.image_size = (size, size)
        self.mean = IMAGENET_MEAN.copy()
        self.std = IMAGENET_STD.copy()
        self._augment = augment
        self._seed = seed
        self._resize_size = resize_size

    def __len__(self) -> int:
        return len(self._files)

    def label(self, index: int) -> int:
        """Give the 0-based label of sample `index`, -1 when unlabelled."""
        return int(self.labels[index])

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Give sample `index` as it is seen in `epoch`, uint8 of shape (H, W, 3).

        Raises:
            UserError: the file cannot be read as an image.
        """
        image = load_image(self._files[index])
        if self._augment:
            rng = sample_rng(self._seed, Purpose.AUGMENT, epoch, index)
            return train_transform(image, self.image_size[0], rng)
        return eval_transform(image, self.image_size[0], self._resize_size)


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as RGB, as torchvision's default loader does.

    The first frame is taken; grey, palette, CMYK and alpha are converted by Pillow; 16-bit grey is clipped
    at 255 by it, not scaled. EXIF orientation is ignored. All this is what torchvision's loader does.

    Raises:
        UserError: the file is missing, truncated, damaged or not an image.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            return image.convert("RGB")
    except Exception as error:
        # Any Exception: on damaged files Pillow's many parsers raise much more than OSError.
        raise UserError(
            f"image {os.fspath(path)}: found {_reason(error)}, expected a whole JPEG, PNG or other image "
            "that Pillow reads: repair, replace or remove the file"
        ) from error


def _reason(error: Exception) -> str:
    """Say in a few words and one line why a file could not be read."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    return f"a damaged file ({text or type(error).__name__})"


def list_images(path: str | os.PathLike[str]) -> list[Path]:
    """List the image files at `path`: the file itself, whatever its ending, or all in a folder and below.

    Returns:
        paths sorted as strings, at least one.

    Raises:
        UserError: there is nothing at `path`, or no image in the folder.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(
            f"images {root}: found nothing, expected an image or a folder of images: check the path"
        )
    found = _walk_images(root)
    if not found:
        raise UserError(
            f"images {root}: found no image file, expected some ending in {' '.join(IMG_EXTENSIONS)}: "
            "give another folder"
        )
    return [Path(name) for name in sorted(found)]


def open_images(
    path: str | os.PathLike[str], *, image_size: int | None = None, resize_size: int | None = None
) -> FileDataset:
    """Open the images of `list_images(path)` as a data set without labels, for prediction.

    Its labels are -1 and it has no classes; images have the evaluation preprocessing.

    Raises:
        UserError: as `list_images`.
    """
    paths = [str(name) for name in list_images(path)]
    return FileDataset(paths, np.full(len(paths), -1), [], image_size=image_size, resize_size=resize_size)


def open_folder(
    path: str | os.PathLike[str],
    split: str,
    *,
    image_size: int | None = None,
    augment: bool = False,
    seed: int = 0,
    resize_size: int | None = None,
) -> FileDataset:
    """Open one split of an image folder; classes and order of files are those of torchvision's ImageFolder.

    PATH/train/CLASS/... and PATH/val/CLASS/..., or PATH/CLASS/..., which is a validation split only. The
    other arguments are those of `FileDataset`.

    Raises:
        UserError: the folder is missing or laid out otherwise, a class has no images, or train/ and val/
            differ in their classes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise UserError(
            f"data set {root}: found {found}, expected digits, synthetic or a folder with {LAYOUT}: "
            "check the path"
        )
    present = [name for name in ("train", "val") if (root / name).is_dir()]
    if not present and split == "train":
        raise UserError(
            f"data set {root}: found no train/ to train on, expected {LAYOUT}: rearrange the folder"
        )
    if present and split not in present:
        raise UserError(
            f"data set {root}: found {present[0]}/ without {split}/, expected {LAYOUT}: add {root / split}"
        )
    if len(present) == 2:
        _check_same_classes(root, _find_classes(root / "train"), _find_classes(root / "val"))
    folder = root / split if present else root
    classes = _find_classes(folder)
    files: list[str] = []
    counts = []
    for name in classes:
        in_class = _walk_images(folder / name)
        if not in_class:
            raise UserError(
                f"class {folder / name}: found no image file, expected some ending in "
                f"{' '.join(IMG_EXTENSIONS)}: add images or remove the folder"
            )
        files += in_class
        counts.append(len(in_class))
    labels = np.repeat(np.arange(len(classes)), counts)
    return FileDataset(
        files, labels, classes, image_size=image_size, augment=augment, seed=seed, resize_size=resize_size
    )


def _find_classes(folder: Path) -> list[str]:
    """List the sub-folders by name in sorted order, at least one."""
    try:
        with os.scandir(folder) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise UserError(
            f"folder {folder}: found {_reason(error)}, expected a readable folder: fix it"
        ) from error
    if not classes:
        raise UserError(
            f"folder {folder}: found no sub-folders, expected one sub-folder of images for each class: "
            "sort the images into folders named by class"
        )
    return classes


def _check_same_classes(root: Path, train: list[str], val: list[str]) -> None:
    """Refuse classes that only one split has: labels are positions, so every label after one would be off."""
    for here, there, missing in (
        ("train", "val", set(train) - set(val)),
        ("val", "train", set(val) - set(train)),
    ):
        if missing:
            raise UserError(
                f"data set {root}: found {len(missing)} classes in {here}/ that {there}/ lacks (first: "
                f"{min(missing)}), expected the same sub-folders in both: add or remove the folders"
            )


def _walk_images(folder: Path) -> list[str]:
    """List image files in `folder` and below, in the order of torchvision's ImageFolder."""
    return [
        os.path.join(parent, name)
        for parent, _, names in sorted(os.walk(folder, followlinks=True))
        for name in sorted(names)
        if name.lower().endswith(IMG_EXTENSIONS)
    ]
