"""The evaluate and predict commands against PyTorch with preprocessing of its own."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import assert_one_line_error, run_here
from dml_runner import assert_close
from narrow import narrow_resnet
from PIL import Image
from reference import arrays
from torch.nn import functional

from sysds_resnet.images import open_dataset
from sysds_resnet.network.weights.files import describe, write_weights

pytestmark = pytest.mark.usefixtures("shared")
SIZE, CLASSES = 64, 7


@pytest.fixture(scope="module")
def reference():
    return narrow_resnet(18, CLASSES)


@pytest.fixture(scope="module")
def weights(reference, tmp_path_factory):
    """A file of its weights, with nothing beside them."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_weights(path, arrays(reference))
    yield path
    path.unlink()


def preprocess(path):
    """Resize, crop and normalise as torchvision's weights expect it, to (3, SIZE, SIZE)."""
    image = Image.open(path).convert("RGB")
    short = round(SIZE * 256 / 224)
    scale = short / min(image.size)
    image = image.resize([int(side * scale + 1e-6) for side in image.size], Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255
    top, left = (round((side - SIZE) / 2) for side in pixels.shape[1:])
    pixels = pixels[:, top : top + SIZE, left : left + SIZE]
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def reference_logits(reference, paths):
    with torch.no_grad():
        return reference(torch.stack([preprocess(path) for path in paths])).numpy()


@pytest.fixture(scope="module")
def photos(reference, tmp_path_factory):
    """A folder for each class; the network is right about four of its nine images.

    Their shorter side is the one before the crop, since resizing may be a level of 255 from Pillow's.
    """
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(9):
        height, width = rng.permutation([round(SIZE * 256 / 224), rng.integers(73, 150)])
        coarse = rng.integers(0, 256, (5, 6, 4 if i == 3 else 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image = image.convert("L") if i == 5 else image
        path = folder / f"{i}.{'png' if i % 3 == 0 else 'JPEG'}"
        image.save(path)
        ranking = np.argsort(-reference_logits(reference, [path])[0])
        label = ranking[0] if i < 4 else ranking[i - 3]
        destination = folder / f"class{label}" / path.name
        destination.parent.mkdir(exist_ok=True)
        path.rename(destination)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(exist_ok=True)
        if not any((folder / f"class{label}").iterdir()):
            Image.new("RGB", (80, 90), (10 * label, 0, 0)).save(folder / f"class{label}" / "plain.png")
    return folder


@pytest.fixture(scope="module")
def paths(photos):
    return sorted(str(path) for path in photos.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def expected(reference, paths):
    return reference_logits(reference, paths)


def softmax(logits):
    return functional.softmax(torch.from_numpy(logits), dim=1).numpy()


# predict


@pytest.fixture
def predicted(photos, weights, capfd, folder):
    """The table and the logits that predict writes for the folder."""
    out, logits = folder / "preds.csv", folder / "logits.npy"
    outcome = run_here(
        capfd, "predict", "--weights", weights, "--input", photos, "--out", out, "--logits", logits,
        "--image-size", SIZE,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    return pd.read_csv(out), np.load(logits)


def test_predictions_are_pytorchs_in_sorted_order_of_paths(predicted, paths, expected):
    table, logits = predicted
    columns = ["path", *(f"class_{i}" for i in range(1, 6)), *(f"prob_{i}" for i in range(1, 6))]
    assert table.columns.tolist() == columns
    assert table["path"].tolist() == paths
    assert_close(logits, expected, 1e-9)
    ranking = np.argsort(-expected, axis=1)[:, :5]
    np.testing.assert_array_equal(table[columns[1:6]], ranking)
    np.testing.assert_allclose(table[columns[6:]], np.take_along_axis(softmax(expected), ranking, 1), 1e-7)


def test_a_single_image_can_be_predicted(weights, paths, expected, capfd, folder):
    out = folder / "one.csv"
    outcome = run_here(
        capfd, "predict", "--weights", weights, "--input", paths[4], "--out", out, "--image-size", SIZE
    )
    assert outcome.code == 0 and outcome.out == f"1 images: {out}\n"
    [row] = pd.read_csv(out).to_dict("records")
    assert row["path"] == paths[4] and row["class_1"] == expected[4].argmax()


def test_class_names_sizes_and_means_come_with_the_weights(reference, photos, paths, capfd, folder):
    """Weights of a network with fewer than five classes, trained on 32 x 32 images of another scale."""
    small = narrow_resnet(18, num_classes=3, seed=1)
    beside = {
        "mean": [100.0] * 3,
        "std": [50.0] * 3,
        "classes": ["ant", "bee", "cat"],
        "image_size": [32, 32],
    }
    write_weights(folder / "w.safetensors", arrays(small), metadata=describe(beside))
    outcome = run_here(
        capfd, "predict", "--weights", folder / "w.safetensors", "--input", paths[0],
        "--out", folder / "p.csv", "--logits", folder / "l.npy",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    table = pd.read_csv(folder / "p.csv")
    names = [f"{name}_{i}" for name in ("class", "prob", "label") for i in (1, 2, 3)]
    assert table.columns.tolist() == ["path", *names]
    for i in (1, 2, 3):
        assert table[f"label_{i}"][0] == ["ant", "bee", "cat"][table[f"class_{i}"][0]]
    image = open_dataset(photos, "val", image_size=32).image(0, 0).astype(np.float64)
    with torch.no_grad():
        logits = small(torch.from_numpy((image - 100) / 50).permute(2, 0, 1)[None]).numpy()
    assert_close(np.load(folder / "l.npy"), logits, 1e-9)


# evaluate


def test_evaluation_counts_what_pytorch_gets_right(weights, photos, paths, expected, capfd, folder):
    out = folder / "report"
    outcome = run_here(
        capfd, "evaluate", "--weights", weights, "--dataset", photos, "--image-size", SIZE, "--out", out
    )
    assert (outcome.code, outcome.err) == (0, "")
    labels = np.array([int(path.split("class")[-1][0]) for path in paths])
    ranking = np.argsort(-expected, axis=1)
    top1 = (ranking[:, 0] == labels).mean()
    top5 = (ranking[:, :5] == labels[:, None]).any(axis=1).mean()
    assert 0 < top1 < top5 < 1, "or this test shows little"
    loss = functional.cross_entropy(torch.from_numpy(expected), torch.from_numpy(labels)).item()
    scores = json.loads((out / "scores.json").read_text())
    expected = {"images": len(paths), "loss": pytest.approx(loss), "top1": top1, "top5": top5}
    assert {name: scores[name] for name in expected} == expected
    assert outcome.out == (
        f"{len(paths)} images: loss {loss:.4f}, top-1 {100 * top1:.2f} %, top-5 {100 * top5:.2f} %\n"
        f"scores: {out}\n"
    )


@pytest.mark.long
def test_evaluation_reads_huggingface_folders(reference, photos, capfd, folder, weights):
    write_weights(folder / "hf", arrays(reference), layout="huggingface")
    flags = ["--dataset", photos, "--image-size", SIZE]
    theirs = run_here(capfd, "evaluate", "--weights", folder / "hf", *flags)
    ours = run_here(capfd, "evaluate", "--weights", weights, *flags)
    assert theirs.code == 0 and theirs == ours


def test_evaluation_needs_the_classes_of_the_weights(weights, capfd):
    outcome = run_here(capfd, "evaluate", "--weights", weights, "--dataset", "digits")
    assert_one_line_error(outcome, "digits: found 10 classes, expected 7 as in", weights)
