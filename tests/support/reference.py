"""The reference network of the tests: ResNet v1.5 in PyTorch, with torchvision's parameter names.

Written from He et al. 2015, https://arxiv.org/abs/1512.03385 (table 1, figure 5, option B of section 4.1 for
the shortcuts), with v1.5's stride on the 3x3 of a bottleneck (Goyal et al. 2017,
https://arxiv.org/abs/1706.02677, section 5.1).
"""

import copy
import functools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def conv(inputs, outputs, kernel, stride=1):
    """Return a convolution without bias that keeps the size, up to its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """A residual block: the kernels of its convolutions, their widths, and which of them has the stride."""

    def __init__(self, inputs, kernels, widths, strided, stride):
        super().__init__()
        self.size = len(kernels)
        sources = (inputs, *widths)
        for i, (kernel, width) in enumerate(zip(kernels, widths, strict=True)):
            step = stride if i == strided else 1
            self.add_module(f"conv{i + 1}", conv(sources[i], width, kernel, step))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(width))
        self.downsample = None
        if stride != 1 or inputs != widths[-1]:
            self.downsample = nn.Sequential(conv(inputs, widths[-1], 1, stride), nn.BatchNorm2d(widths[-1]))

    def forward(self, x):
        """Map (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        y = x
        for i in range(1, self.size + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.size:
                y = functional.relu(y)
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(Block):
    """Two 3x3 convolutions, the stride on the first."""

    expansion = 1

    def __init__(self, inputs, width, stride):
        super().__init__(inputs, (3, 3), (width, width), strided=0, stride=stride)


class Bottleneck(Block):
    """A 1x1, a 3x3 and a 1x1 convolution, the stride on the 3x3 (v1.5)."""

    expansion = 4

    def __init__(self, inputs, width, stride):
        super().__init__(inputs, (1, 3, 1), (width, width, 4 * width), strided=1, stride=stride)


class ResNet(nn.Module):
    """ResNet-18, 34, 50, 101 or 152: (N, channels, H, W) to logits of shape (N, num_classes).

    `stem` is the number of channels after the first convolution, which all others go by.
    """

    def __init__(self, depth, num_classes=1000, channels=3, stem=64):
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.conv1 = conv(channels, stem, 7, 2)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = stem
        for stage, count in enumerate(STAGES[depth]):
            width = stem << stage
            blocks = []
            for i in range(count):
                blocks.append(block(inputs, width, stride=2 if stage > 0 and i == 0 else 1))
                inputs = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, num_classes)

    def features(self, x):
        """Map images to what the final layer takes."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, x):
        """Map images to logits."""
        return self.fc(self.features(x))


def random_resnet(depth, num_classes=10, channels=3, seed=0, dtype=torch.float64, stem=64):
    """Return a ResNet in evaluation mode in which no two channels are alike, norms and statistics included.

    Convolutions are He normal (fan-in, which keeps activations near 1 in every depth); norm scales, shifts,
    running means and variances are drawn around their usual values. Each call gives a model of its own.
    """
    return copy.deepcopy(_drawn(depth, num_classes, channels, seed, dtype, stem))


@functools.lru_cache(maxsize=2)  # drawing 25 million normal numbers takes a second, copying them a tenth
def _drawn(depth, num_classes, channels, seed, dtype, stem):
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):  # without PyTorch's own initial values, which would be overwritten
        model = ResNet(depth, num_classes, channels, stem).to(dtype).eval()
    model.to_empty(device="cpu")

    def fill(tensor, mean, std):
        with torch.no_grad():
            tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator, dtype=dtype))

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fill(module.weight, 0.0, (2.0 / module.weight[0].numel()) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.zero_()
            last = name.endswith("bn3" if depth >= 50 else "bn2")
            fill(module.weight, 0.3 if last else 1.0, 0.1)  # small, or deep sums would grow without bound
            fill(module.bias, 0.0, 0.1)
            fill(module.running_mean, 0.0, 0.1)
            fill(module.running_var, 1.0, 0.1)
            module.running_var.abs_()
        elif isinstance(module, nn.Linear):
            fill(module.weight, 0.0, module.in_features**-0.5)
            fill(module.bias, 0.0, 0.1)
    return model


def arrays(model):
    """Return the state dict of a model as NumPy arrays."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def relative_error(found, expected):
    """The largest of all tensors of a state dict."""
    norms = {name: np.linalg.norm(value) or 1.0 for name, value in expected.items()}
    return max(np.linalg.norm(found[name] - expected[name]) / norms[name] for name in expected)


def gathered(size, kernel, stride, padding):
    """For each row of a gather matrix the 1-based column of its 1, or 0 where the row is empty."""
    numbers = torch.arange(1.0, math.prod(size) + 1, dtype=torch.float64).reshape(size[0], 1, *size[1:])
    unfolded = functional.unfold(numbers, kernel, padding=padding, stride=stride)  # (N, K*K, pixels)
    return unfolded.transpose(1, 2).reshape(-1, 1).numpy()
