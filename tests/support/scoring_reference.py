"""Narrow networks and images for the tests of evaluation and prediction, and what PyTorch makes of them."""

import numpy as np
import torch
from narrow import narrow_resnet
from PIL import Image
from reference import arrays
from torch.nn import functional
from torchvision_reference import functional as pixels_of
from torchvision_reference import transforms

from sysds_resnet.network.weights.files import describe, write_weights

SIZE, SHORT = 32, 38  # even margins; images have this shorter side, so that nothing is resized
CLASSES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]
SCALES = {
    18: {"mean": [100.0, 110.0, 120.0], "std": [50.0, 55.0, 60.0]},
    34: {"mean": [120.0, 100.0, 90.0], "std": [40.0, 60.0, 70.0]},
}


def write_networks(folder, *depths, make=narrow_resnet):
    """Networks of these depths and different scales of pixels, as files that know their sizes and classes."""
    networks = {depth: make(depth, len(CLASSES), seed=depth) for depth in depths}
    for depth, network in networks.items():
        beside = {**SCALES[depth], "classes": CLASSES, "image_size": [SIZE, SIZE], "resize_size": SHORT}
        write_weights(folder / f"{depth}.safetensors", arrays(network), metadata=describe(beside))
    return networks


def write_images(folder, count):
    """Images in a folder for each class, of any longer side; gives their paths as they are sorted."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        size = rng.permutation([SHORT, 2 * rng.integers(20, 40)]).tolist()
        path = folder / CLASSES[i % len(CLASSES)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
    return sorted(folder.rglob("*.png"))


def views(path, tta):
    """Torchvision's crops of an image, tensors of shape (V, 3, SIZE, SIZE) in 0..255."""
    image = Image.open(path).convert("RGB")
    if tta == "ten":
        crops = transforms.TenCrop(SIZE)(image)
    else:
        centre = transforms.CenterCrop(SIZE)(image)
        crops = {"none": [centre], "flip": [centre, pixels_of.hflip(centre)]}[tta]
    return torch.stack([torch.from_numpy(np.array(crop)).permute(2, 0, 1).double() for crop in crops])


def logits(networks, paths, tta="none"):
    """PyTorch's logits, of shape (networks, images, V, classes)."""
    found = []
    with torch.no_grad():
        for depth, network in networks.items():
            mean, std = (torch.tensor(SCALES[depth][name]).double().view(3, 1, 1) for name in ("mean", "std"))
            found.append([network((views(path, tta) - mean) / std).numpy() for path in paths])
    return np.array(found)


def probabilities(networks, paths, tta="none"):
    """PyTorch's probabilities, averaged by NumPy over networks and views, of shape (images, classes)."""
    found = torch.from_numpy(logits(networks, paths, tta))
    return functional.softmax(found, dim=-1).numpy().mean(axis=(0, 2))
