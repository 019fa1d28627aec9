"""Resizing as Pillow does it: antialiased and bilinear, which torchvision uses for Pillow images too."""

from __future__ import annotations

import numpy as np
from PIL import Image

try:
    import cykooz_resizer as fast
except ImportError:  # no wheel for this machine
    fast = None

RESAMPLER = "fast_image_resize" if fast else "Pillow, which is slower: cykooz-resizer is not installed"
"""What resizes images on this machine, in words for users."""

Box = tuple[float, float, float, float]
"""A box (top, left, height, width) in pixels, which may be fractions."""


def resize(pixels: np.ndarray, height: int, width: int, box: Box | None = None) -> np.ndarray:
    """Resizes an image, or a part of it that is sampled together with its surroundings.

    Args:
        pixels: The image, uint8 of shape (H, W, 3).
        height: The height of the result in pixels.
        width: The width of the result in pixels.
        box: The part of the image that becomes the result. Pixels outside of it count at its edges as they
            would if the whole image were resized. None means the whole image.

    Returns:
        The resized pixels, uint8 of shape (height, width, 3), no value more than 1 from that of Pillow's
        `Image.resize`.
    """
    top, left, h, w = (0, 0, *pixels.shape[:2]) if box is None else box
    if (h, w) == (height, width) and top == int(top) and left == int(left):
        return pixels[int(top) : int(top) + height, int(left) : int(left) + width]
    # The sum of rounded numbers may reach beyond the edge by its last bit.
    bottom, right = min(top + h, pixels.shape[0]), min(left + w, pixels.shape[1])
    if fast is None:
        image = Image.fromarray(pixels)
        return np.asarray(
            image.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom))
        )
    source = fast.ImageData(pixels.shape[1], pixels.shape[0], fast.PixelType.U8x3, pixels.tobytes())
    result = fast.ImageData(width, height, fast.PixelType.U8x3)
    options = fast.ResizeOptions(
        fast.ResizeAlg.convolution(fast.FilterType.bilinear),
        use_alpha=False,
        crop_box=fast.CropBox(left, top, right - left, bottom - top),
    )
    fast.Resizer().resize(source, result, options)
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(height, width, 3)


def resize_values(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an image of any scale and any number of channels, without rounding its values to whole numbers.

    Args:
        image: The image, numbers of shape (H, W, C).
        height: The height of the result in pixels.
        width: The width of the result in pixels.

    Returns:
        The resized image, float32 of shape (height, width, C), whose channels are those of Pillow's
        `Image.resize` in mode F. An image that has this size is given back as it is.
    """
    if image.shape[:2] == (height, width):
        return image
    channels = np.moveaxis(image, -1, 0).astype(np.float32, order="C")
    pictures = [Image.fromarray(channel) for channel in channels]
    resized = [picture.resize((width, height), Image.Resampling.BILINEAR) for picture in pictures]
    return np.stack([np.asarray(picture) for picture in resized], axis=-1)
