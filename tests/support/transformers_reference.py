"""Transformers' networks and processors, and folders as it writes them, which ours are compared with."""

import json

import numpy as np
import transformers
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_sample_image

from sysds_resnet.network.names import STAGES

BESIDE = {
    "mean": [100.0, 110.0, 120.0],
    "std": [50.0, 55.0, 60.0],
    "classes": ["red ant", "bée", "cat"],
    "image_size": [64, 64],
    "resize_size": 80,
}
CONFIG = {"model_type": "resnet", "id2label": {"0": "ant", "1": "bee", "2": "cat"}}
PROCESSOR = {
    "size": {"shortest_edge": 64},
    "crop_pct": 0.875,
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
}


def even_picture():
    """A photograph whose sides are even at all sizes of the tests, so that crops agree to the pixel."""
    return np.ascontiguousarray(load_sample_image("china.jpg")[:426, :568])


def theirs(picture, config):
    name = config.get("image_processor_type", "ConvNextImageProcessor")
    processor = getattr(transformers, name)(
        **{k: v for k, v in config.items() if k != "image_processor_type"}
    )
    return processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]


def write_folder(folder, weights, config, processor=PROCESSOR):
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(
            processor if isinstance(processor, str) else json.dumps(processor)
        )
    return folder


def hf_model(depth, num_classes=3, channels=3):
    kind, counts = STAGES[depth]
    hidden = [(256 if kind == "bottleneck" else 64) << i for i in range(4)]
    config = transformers.ResNetConfig(
        num_channels=channels, depths=counts, hidden_sizes=hidden, layer_type=kind, num_labels=num_classes
    )
    return transformers.ResNetForImageClassification(config)
