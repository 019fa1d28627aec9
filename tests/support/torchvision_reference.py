"""Torchvision's transforms, which the augmentations are compared with.

The package index's torchvision is built for its CUDA torch. Beside a CPU torch its compiled part cannot be
loaded, and the import stops at two operators of that part. No transform uses them, so they are declared here.
"""

import torch

try:
    import torchvision
except RuntimeError:
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    import torchvision

transforms = torchvision.transforms
functional = transforms.functional
autoaugment = transforms.autoaugment
