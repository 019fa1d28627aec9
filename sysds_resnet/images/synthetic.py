"""Made-up images that a network can learn: for tests, first steps and benchmarks without data."""

from collections.abc import Iterable

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sysds_resnet.images.pixels.transforms import Purpose, sample_rng

DEFAULT_IMAGE_SIZE = 32
DEFAULT_NUM_IMAGES = {"train": 256, "val": 64}
DEFAULT_NUM_CLASSES = 10
AMPLITUDE = 48
NOISE = 32


class SyntheticDataset:
    """Striped images whose direction and colour tell the class, with random phase and noise.

    Sample i has class i modulo the number of classes, so classes are balanced. Each image is made when it is
    read, from (seed, split, index) alone, so that any number of images takes no memory. Only additions,
    multiplications and remainders are used, which give the same bytes on every machine.
    """

    decodes = False
    channels = 3

    def __init__(
        self,
        split: str,
        *,
        image_size: int | None = None,
        seed: int = 0,
        num_images: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        """Describes one split.

        Args:
            split: The split, "train" or "val"; their images differ, their classes look alike.
            image_size: The side of the square images in pixels; None means 32.
            seed: The seed of phases and noise; the look of a class does not depend on it.
            num_images: The number of images; None means 256 for train, 64 for val.
            num_classes: The number of classes; None means 10.

        Raises:
            UserError: If there is less than 1 image or class.
        """
        n = DEFAULT_NUM_IMAGES[split] if num_images is None else num_images
        k = DEFAULT_NUM_CLASSES if num_classes is None else num_classes
        for name, value in (("num_images", n), ("num_classes", k)):
            if value < 1:
                raise UserError(
                    f"{name}: found {value} for synthetic, expected at least 1: choose a larger one"
                )
        size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
        self.image_size = (size, size)
        self.num_classes = k
        self.classes = [f"pattern{c:0{len(str(k - 1))}d}" for c in range(k)]
        self.labels = np.arange(n, dtype=np.int64) % k
        self.notes: list[str] = []
        self.mean = IMAGENET_MEAN.copy()
        self.std = IMAGENET_STD.copy()
        self._split, self._seed = split, seed
        self._purpose = Purpose.SYNTHETIC_TRAIN if split == "train" else Purpose.SYNTHETIC_VAL

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Gives the name of sample `index`, such as image 7."""
        return f"image {index}"

    def relative_name(self, index: int) -> str:
        """Gives what sample `index` is made from: the split, the seed and the position."""
        return f"{self._split}, seed {self._seed}, image {index}"

    def files(self) -> Iterable[str]:
        """Gives no paths, since images are made when they are read."""
        return []

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Gives sample `index`, uint8 of shape (H, W, 3), which is the same in every epoch."""
        label = int(self.labels[index])
        rng = sample_rng(self._seed, self._purpose, index)
        height, width = self.image_size
        # 1 to 4 stripes down and across, leaning either way, make 32 directions. Beyond 32 classes, colours
        # decide.
        down = (1 + label % 4) * (1 if label // 16 % 2 == 0 else -1)
        across = 1 + label // 4 % 4
        y = np.arange(height)[:, np.newaxis] / height
        x = np.arange(width) / width
        turn = (down * y + across * x + rng.random()) % 1.0
        wave = AMPLITUDE * (4 * np.abs(turn - 0.5) - 1)
        # Steps without a common divisor with 96 walk through all of 80..175 before they repeat.
        colour = 80 + (label * np.array([41, 67, 91]) + np.array([0, 32, 64])) % 96
        noise = rng.integers(-NOISE, NOISE + 1, size=(height, width, 3), dtype=np.int16)
        # 80 - 48 - 32 = 0 and 175 + 48 + 32 = 255: no clipping.
        return (wave.astype(np.int16)[..., np.newaxis] + colour.astype(np.int16) + noise).astype(np.uint8)
