"""The model card of a Hugging Face folder: README.md, a header of YAML for programs and a text for people.

It says what is known of a network and of the run that trained it, and leaves out the rest. Names of data
sets, classes and files may come from anybody; they stand in code spans, in which Markdown means nothing.

Source: https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sysds_resnet.errors import UserError, one_line, printable
from sysds_resnet.report.metrics import FILE_NAME, read_lines
from sysds_resnet.report.result_tables import markdown
from sysds_resnet.settings.yaml_files import read_yaml

CARD_FILE = "README.md"

_MOST_NAMES = 20  # class names in the text; config.json has all of them
# The form of names on Hugging Face's hub; a header with another one would be refused there.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_FILES_OF_RUNS = {"weights.safetensors": "at the end of the run", "best.safetensors": "after its best epoch"}


@dataclass(frozen=True)
class Training:
    """What is known of the run that weights come from.

    Attributes:
        run: The name of the run folder.
        dataset: The name of the data set, without the folders that it lies in.
        started_from: The name of the weights that the run started from; None for fresh ones.
        settings: The settings of the run by name.
        epochs: The lines of its epochs in metrics.jsonl.
        images: The number of images for "training" and for "validation", where they are known.
        versions: The versions of the programs that trained, by name, where they are known.
    """

    run: str
    dataset: str
    started_from: str | None
    settings: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    images: Mapping[str, int]
    versions: Mapping[str, str]


def training_of(run: Path, names: Sequence[str], described: Mapping[str, Any]) -> Training:
    """Reads what a run folder says of the run.

    Args:
        run: The run folder.
        names: The names of the settings that decide what the weights become, in the order of the card.
        described: The description in a checkpoint of the run, which has numbers of images and versions; empty
            if there is none.

    Raises:
        UserError: If the settings or the metrics of the run cannot be read, or are no such.
    """
    config = read_yaml(run / "config.yaml")
    try:
        lines = read_lines(run / FILE_NAME)
    except OSError as error:
        raise UserError(
            f"{run / FILE_NAME}: found no readable file ({one_line(error)}), expected that of a run; check it"
        ) from error
    if not isinstance(config.get("dataset"), str):
        raise UserError(f"{run / 'config.yaml'}: found no data set, expected the settings of a run; check it")
    start, versions = config.get("init_from"), described.get("versions")
    return Training(
        run=run.name,
        dataset=_last_part(config["dataset"]),
        started_from=None if start is None else _last_part(str(start)),
        settings={name: config[name] for name in names if config.get(name) is not None},
        epochs=[line for line in lines if line["event"] == "epoch"],
        images=_counts(described),
        versions={str(k): str(v) for k, v in versions.items()} if isinstance(versions, Mapping) else {},
    )


def model_card(
    network: str,
    metadata: Mapping[str, Any],
    processor: Mapping[str, Any],
    source: str,
    written_by: str,
    training: Training | None,
) -> str:
    """Gives the text of a model card.

    Args:
        network: The network in words, such as "ResNet-18, 3 channels, 10 classes".
        metadata: The metadata of the weights, with the names of the classes where they have names.
        processor: The content of preprocessor_config.json.
        source: The name of the weights that were converted.
        written_by: The name and version of the program that writes the card.
        training: What is known of the run that trained the network; None if nothing is.
    """
    depth = network.partition(",")[0]
    title = f"{depth} for {code(training.dataset)}" if training else depth
    parts = [
        _header(training),
        f"# {title}",
        f"This is a ResNet v1.5 for image classification: {network}. Its weights come from "
        f"{code(source)}{_of_run(source) if training else ''}.",
        *_classes(metadata.get("classes")),
        "## Use",
        "The package `transformers` runs the network. The place of this folder, or the name of its "
        "repository, stands for `.`:",
        "```python\n"
        "from transformers import pipeline\n"
        "\n"
        'classify = pipeline("image-classification", model=".")\n'
        'print(classify("image.jpg"))\n'
        "```",
        _pixels(processor),
        *(_training(training) if training else []),
        f"This folder was written by {written_by}.",
    ]
    return "\n\n".join(parts) + "\n"


def code(text: str) -> str:
    """Gives a text as a code span of Markdown, on one line, in which no character has a meaning.

    Source: https://spec.commonmark.org/0.31.2/#code-spans.
    """
    text = printable(text)
    fence = "`" * (_longest_run(text) + 1)
    space = " " if text[:1] in ("", "`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{space}{text}{space}{fence}"


def _header(training: Training | None) -> str:
    """Gives the header, which leaves the license to those who publish the network."""
    values: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        "tags": ["resnet", "image-classification", "systemds"],
    }
    if training and _HUB_NAME.fullmatch(training.dataset):
        values["datasets"] = [training.dataset]
    if training and _validated(training):
        values["metrics"] = ["accuracy"]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=float("inf"))
    return f"---\n# license: for you to choose, such as apache-2.0\n{text}---"


def _classes(names: Sequence[str] | None) -> list[str]:
    if not names:
        return []
    listed = ", ".join(map(code, names[:_MOST_NAMES]))
    rest = len(names) - _MOST_NAMES
    return [f"Its classes are {listed}{f', and {rest} more, which are in config.json' if rest > 0 else ''}."]


def _pixels(processor: Mapping[str, Any]) -> str:
    """Says what is done to images, as the image processor does it."""
    size, shorter = processor["crop_size"], processor["size"]["shortest_edge"]
    mean, std = (
        ", ".join(f"{value:.4g}" for value in processor[name]) for name in ("image_mean", "image_std")
    )
    return (
        f"The image processor of this folder resizes the shorter side of an image to {shorter} pixels with "
        f"the bilinear filter, crops {size['height']} x {size['width']} pixels from the centre, divides them "
        f"by 255, subtracts the mean ({mean}) and divides by the standard deviation ({std}) of each channel."
    )


def _training(training: Training) -> list[str]:
    """Gives the paragraphs on the run."""
    counts = " and ".join(f"{n} {split} images" for split, n in training.images.items())
    data = f"The network was trained on the data set {code(training.dataset)}"
    data += f" ({counts})" if counts else ""
    start = f", from the weights {code(training.started_from)}" if training.started_from else ""
    recipe = training.settings.get("recipe")
    by = f", by the recipe {code(str(recipe))} with the settings below" if recipe else ""
    parts = ["## Training", f"{data}{start}{by}. The name of the run is {code(training.run)}."]
    if rows := _scores(training):
        heads = ["", "epoch", "validation loss", "top-1 accuracy", "top-5 accuracy"]
        if not any(row[-1] for row in rows):  # there are five classes or fewer
            heads, rows = heads[:-1], [row[:-1] for row in rows]
        parts += ["These are its scores on all validation images:", markdown(heads, rows)]
    if training.versions:
        versions = ", ".join(f"{name} {version}" for name, version in training.versions.items())
        parts.append(f"The run had these versions: {code(versions)}.")
    settings = yaml.safe_dump(dict(training.settings), sort_keys=False, allow_unicode=True)
    fence = "`" * max(3, _longest_run(settings) + 1)
    parts += ["These are the settings of the run:", f"{fence}yaml\n{settings}{fence}"]
    return parts


def _scores(training: Training) -> list[list[str]]:
    """Gives the rows of the table of scores: those of the best epoch and of the last one."""
    validated = _validated(training)
    if not validated:
        return []
    best = max(validated, key=lambda line: line["val_top1"])
    return [
        [
            name,
            _number(line.get("epoch"), "{}"),
            _number(line.get("val_loss"), "{:.4f}"),
            _number(line["val_top1"], "{:.2%}"),
            _number(line.get("val_top5"), "{:.2%}"),
        ]
        for name, line in (("best epoch", best), ("last epoch", validated[-1]))
    ]


def _validated(training: Training) -> list[Mapping[str, Any]]:
    return [line for line in training.epochs if isinstance(line.get("val_top1"), int | float)]


def _number(value: object, how: str) -> str:
    return how.format(value) if isinstance(value, int | float) else ""


def _counts(described: Mapping[str, Any]) -> dict[str, int]:
    """Gives the numbers of images that the description in a checkpoint has."""
    try:
        validation = sum(described["data"]["validation"]["counts"])
    except (KeyError, TypeError):  # older versions wrote it
        validation = None
    counts = {"training": described.get("training images"), "validation": validation}
    return {split: n for split, n in counts.items() if isinstance(n, int) and n > 0}


def _of_run(source: str) -> str:
    """Says when the run had the weights in a file of its folder, if the name of the file tells."""
    when = _FILES_OF_RUNS.get(_last_part(source))
    return f", those {when}" if when else ""


def _last_part(path: str) -> str:
    """Gives the name of a data set or file without its folders, which may tell of somebody's machine."""
    return path.rstrip("/").rpartition("/")[2] or path


def _longest_run(text: str) -> int:
    """Gives the length of the longest run of backticks in a text."""
    return max(map(len, re.findall("`+", text)), default=0)
