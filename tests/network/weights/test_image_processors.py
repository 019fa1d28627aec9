"""What networks see by Hugging Face's JSON files, against transformers' own processors."""

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers_reference import BESIDE, PROCESSOR, even_picture, theirs

from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.transforms import eval_transform
from sysds_resnet.network.weights.image_processors import from_pretrained_cfg, from_processor, to_processor

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def picture():
    return even_picture()


def ours(picture, metadata):
    """What this project's network sees, of shape (3, H, W)."""
    pixels = eval_transform(Picture(picture, "p"), metadata["image_size"][0], metadata["resize_size"])
    return ((pixels - np.array(metadata["mean"])) / metadata["std"]).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"shortest_edge": 64}, "resample": 2},
        {"size": {"shortest_edge": 70}, "crop_pct": 0.875, "resample": 2},
        PROCESSOR,
        PROCESSOR | {"do_normalize": False},
        PROCESSOR
        | {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 55.0, 60.0]},
        PROCESSOR | {"rescale_factor": 1 / 128},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 80},
            "crop_size": {"height": 64, "width": 64},
            "resample": 2,
        },
        to_processor(BESIDE, 3),
        to_processor({}, 3),
    ],
)
def test_images_are_those_of_transformers_processors(picture, config):
    metadata, notes = from_processor(config, 3, "p.json")
    assert not notes
    found, expected = ours(picture, metadata), theirs(picture, config)
    assert found.shape == expected.shape
    # resizing may be a level of 255 from Pillow's, and theirs is too
    assert np.abs(found - expected).max() <= 2.01 / min(metadata["std"])
    assert np.abs(found - expected).mean() <= 0.3 / min(metadata["std"])


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_images_that_need_no_resizing_are_the_same_to_rounding(picture, backend):
    small = picture[:80, :120]
    config = to_processor(BESIDE, 3)
    name = "BitImageProcessor" + ("Pil" if backend == "pil" else "")
    processor = getattr(transformers, name)(
        **{k: v for k, v in config.items() if k != "image_processor_type"}
    )
    expected = processor(Image.fromarray(small), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours(small, BESIDE), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (64, (64, 73)),
        ({"shortest_edge": 64}, (64, 73)),
        ({"shortest_edge": 224, "longest_edge": None}, (224, 256)),
    ],
)
def test_sizes_in_each_form(size, sizes):
    metadata, notes = from_processor(PROCESSOR | {"size": size}, 3, "p")
    assert (metadata["image_size"], metadata["resize_size"]) == ([sizes[0]] * 2, sizes[1]) and not notes


@pytest.mark.parametrize(
    ("change", "said", "sizes"),
    [
        ({"resample": 3}, "resample 3 is bicubic", (64, 73)),
        ({"size": {"height": 64, "width": 64}}, "squashed to 64 x 64", (64, 64)),
        ({"size": [64, 64]}, "squashed to 64 x 64", (64, 64)),
        ({"size": 384}, "squashed to 384 x 384", (384, 384)),
        ({"size": {"height": 64, "width": 96}}, "size is 64 x 96, and images are square here", None),
        ({"do_resize": False}, "do_resize is false", None),
        ({"do_pad": True}, "do_pad is True, which is not done here", (64, 73)),
        ({"do_sharpen": True, "do_blur": False}, "do_sharpen is True", (64, 73)),
        (
            {"image_processor_type": "BitImageProcessor", "do_center_crop": False},
            "do_center_crop is false",
            (64, 64),
        ),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 64}, "squashed to 64 x 64", (64, 64)),
        (
            {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "crop_size": [64, 32]},
            "64 x 32",
            None,
        ),
    ],
)
def test_what_cannot_be_followed_exactly_is_noted(change, said, sizes):
    metadata, [note] = from_processor(PROCESSOR | change, 3, "p.json")
    assert note.startswith("p.json: ") and said in note
    assert metadata["mean"] == [127.5] * 3 and metadata["std"] == [63.75] * 3
    if sizes is None:
        assert "image_size" not in metadata
    else:
        assert (metadata["image_size"], metadata["resize_size"]) == ([sizes[0]] * 2, sizes[1])


def test_timms_settings_are_followed():
    config = {
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "input_size": [3, 64, 64],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
    }
    metadata, [note] = from_pretrained_cfg(config, "c")
    assert metadata == {
        "mean": [127.5] * 3, "std": [63.75] * 3, "image_size": [64, 64], "resize_size": 67,
    }  # fmt: skip
    assert "interpolation is bicubic" in note
