"""Which images of a data set in folders are found, and the error where it cannot be opened."""

from refusals import refusal
from small_layouts import CLASSES, COUNTS

from sysds_resnet.images.sources.layouts import open_source


def paths(root, split="train"):
    source = open_source(root, split)
    return [source.relative_name(i) for i in range(len(source.labels))]


def expected(split="train"):
    return [f"{split}/{name}/{c}_{i}.JPEG" for c, name in enumerate(CLASSES) for i in range(COUNTS[split])]


def error_of(root, split="train"):
    return refusal(open_source, root, split)
