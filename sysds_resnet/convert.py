"""The command that converts weights between forms: python -m sysds_resnet.convert SRC DST."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError, printable
from sysds_resnet.network.model import Model
from sysds_resnet.network.names import Weights, check_tensors, infer_backbone, is_body
from sysds_resnet.network.preprocessing import of_a_model
from sysds_resnet.network.registry import Network
from sysds_resnet.network.weights.files import describe, write_weights
from sysds_resnet.network.weights.forms import (
    READING_HEAP,
    checked_network,
    file_of_run,
    load_weights,
    write_systemds,
)
from sysds_resnet.network.weights.image_processors import to_processor
from sysds_resnet.network.weights.onnx_files import SUFFIX as ONNX_SUFFIX
from sysds_resnet.network.weights.onnx_files import OnnxInput, onnx_package, write_onnx
from sysds_resnet.report.model_card import CARD_FILE, Training, model_card, training_of
from sysds_resnet.scoring.agreement import Form, compare, images_for, scores_of_forms
from sysds_resnet.scoring.consumers import onnxruntime_package
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.settings.fields import names_where, setting
from sysds_resnet.system.code_version import code_version
from sysds_resnet.system.console import note
from sysds_resnet.system.files import new_folder, write_whole
from sysds_resnet.training.checkpoints import last_description
from sysds_resnet.training.run_folder import CHECKPOINTS_FOLDER, run_of
from sysds_resnet.training.settings import TrainSettings

_FORMS_BY_SUFFIX: dict[str, Form] = {".safetensors": "torchvision", ONNX_SUFFIX: "onnx"}
# The settings of a run that a model card lists: those that decide what the weights become.
_SETTINGS_IN_CARD = ("recipe", *names_where(TrainSettings, resume="same"), "micro_batch")


class ConvertSettings(Settings):
    """Converts weights. SRC may have any of the forms below but onnx, or be a .pth file or a run folder."""

    source: Path = setting(positional=True, group="input", value="SRC", description="The weights to read.")
    destination: Path = setting(
        positional=True, group="output", value="DST", description="The file or folder to write."
    )
    to: Form | None = setting(
        None,
        group="output",
        description="The form to write. torchvision: a .safetensors file; huggingface: a new folder for "
        "ResNetForImageClassification and its image processor, with a model card; systemds: a new folder of "
        "matrices for the DML programs; onnx: an .onnx file for inference. By default torchvision if DST "
        "ends in .safetensors, and onnx if it ends in .onnx.",
    )
    dtype: Literal["float16", "float32", "float64"] | None = setting(
        None,
        group="output",
        description="The type of the numbers; by default float32. systemds is always float64, with the "
        "numbers of SRC unless this rounds them; onnx is always float32.",
    )
    key: str | None = setting(
        None,
        group="input",
        description="The entry or prefix of the network to take from a file with several ones; by default "
        "that of the averaged weights.",
    )
    onnx_input: OnnxInput = setting(
        "pixels",
        group="output",
        description="The input of an .onnx file: pixels from 0 to 255, which are normalized in the file, or "
        "normalized pixels, as torchvision's transforms give them.",
    )
    check: bool = setting(
        False,
        group="output",
        description="Whether to score images with SRC and with what was written, the latter by ONNX Runtime "
        "or transformers, print the differences, and end with 1 if they are more than rounding.",
    )
    dataset: str | None = setting(
        None,
        group="output",
        description="The data set whose validation images --check scores; by default it generates images.",
    )


def to_dtype(weights: Weights, dtype: str, source: str) -> Weights:
    """Converts weights to another floating-point type; counters, which are integers, stay as they are.

    Raises:
        UserError: If a finite number would become infinite.
    """
    converted = dict(weights)
    for name, array in weights.items():
        if np.issubdtype(array.dtype, np.floating):
            with np.errstate(over="ignore"):
                converted[name] = array.astype(dtype)
            if np.isinf(converted[name]).any() and np.isfinite(array).all():
                raise UserError(
                    f"{source}: found {np.abs(array).max():g} in {name}, expected at most "
                    f"{np.finfo(dtype).max:g}, the largest number of {dtype}; choose a wider --dtype"
                )
    return converted


def command(settings: ConvertSettings) -> int:
    """Converts the weights, prints what was written, and gives 1 if a check finds that the scores differ."""
    source, destination = settings.source, settings.destination
    to = _form(settings)
    dtype = settings.dtype or ("float64" if to == "systemds" else "float32")
    with Engine(heap=None if settings.check else READING_HEAP) as engine:
        weights, metadata, notes = load_weights(source, engine, settings.key)
        for text in notes:
            note(text)
        if to == "torchvision" and all(map(is_body, weights)):  # a backbone, from which training can start
            what, network = _check_backbone(weights, engine, settings), None
        else:
            network = checked_network(weights, engine, str(source))
            what = f"ResNet-{network.depth}, {network.channels} channels, {network.num_classes} classes"
        converted = to_dtype(weights, dtype, str(source))
        if to == "systemds":
            write_systemds(destination, converted, network, metadata)
        elif to == "onnx":
            name = _name_of(source)
            write_onnx(destination, converted, network, metadata, name, settings.onnx_input)
        elif to == "huggingface":
            card = _card(source, what, metadata, network)
            with new_folder(destination) as folder:
                write_weights(folder, converted, layout=to, metadata=describe(metadata))
                write_whole({folder / CARD_FILE: lambda path: path.write_text(card, encoding="utf-8")})
        else:
            write_weights(destination, converted, metadata=describe(metadata))
        written = len(network.tensors) if to == "onnx" else len(weights)
        print(printable(f"{destination}: {what}, {written} tensors ({to})"))
        return 0 if not settings.check else _check(settings, to, dtype, weights, metadata, engine)


def _form(settings: ConvertSettings) -> Form:
    """Gives the form to write.

    Raises:
        UserError: If it is not known, options do not fit it, or a package is missing that it needs.
    """
    destination = settings.destination
    to = settings.to or _FORMS_BY_SUFFIX.get(destination.suffix.lower())
    if to is None:
        raise UserError(
            f"{destination}: found no form for it, expected a name ending in "
            f"{' or '.join(_FORMS_BY_SUFFIX)}, or --to {'|'.join(get_args(Form))}; add one"
        )
    if to == "onnx":
        onnx_package(destination)
        if settings.check:
            onnxruntime_package(destination)
        if settings.dtype not in (None, "float32"):
            raise UserError(
                f"dtype: found {settings.dtype} for onnx, expected float32, which all programs that run such "
                "files compute with; leave --dtype out"
            )
    elif settings.onnx_input != "pixels":
        raise UserError(
            f"onnx_input: found {settings.onnx_input} for {to}, expected it with onnx alone; leave it out"
        )
    if settings.dataset is not None and not settings.check:
        raise UserError(f"dataset: found {settings.dataset} without check, expected both; add --check")
    return to


def _check_backbone(weights: Weights, engine: Engine, settings: ConvertSettings) -> str:
    """Checks weights without a final layer, and describes their network."""
    source = str(settings.source)
    found = infer_backbone(weights, source)
    if settings.check:
        raise UserError(
            f"{source}: found a backbone without a final layer, expected one that scores images to --check; "
            "leave --check out"
        )
    network = Network(engine, found.depth, found.channels, 2)
    tensors = {tensor.name: tensor.shape for tensor in network.tensors if is_body(tensor.name)}
    check_tensors(weights, tensors, source)
    return f"ResNet-{found.depth}, {found.channels} channels, no final layer"


def _name_of(source: Path) -> str:
    """Names weights by their file and its run, without the folders that these lie in."""
    name, folder = (file_of_run(source) or source.resolve()).name, run_of(source)
    return name if folder is None else f"{folder.name}/{name}"


def _card(source: Path, what: str, metadata: Mapping[str, Any], network: Network) -> str:
    """Gives the text of the model card for weights."""
    processor = to_processor(metadata, network.channels)
    training: Training | None = None
    if (folder := run_of(source)) is not None:
        try:
            described = last_description(folder / CHECKPOINTS_FOLDER)
            training = training_of(folder, _SETTINGS_IN_CARD, described)
        except UserError as error:
            note(f"{error}; the model card says nothing of the run")
    return model_card(what, metadata, processor, _name_of(source), code_version(), training)


def _check(
    settings: ConvertSettings,
    to: Form,
    dtype: str,
    weights: Weights,
    metadata: Mapping[str, Any],
    engine: Engine,
) -> int:
    """Prints how far the scores of the source and of what was written differ; gives 1 if that is too far."""
    source, destination = settings.source, settings.destination
    model = Model.from_state_dict(weights, engine, str(source), **of_a_model(metadata))
    images, what = images_for(metadata, model.network.channels, settings.dataset, str(source))
    found = scores_of_forms(source, weights, model, destination, to, dtype, images)
    lines, agree = compare(found)
    height, width = images.shape[1:3]
    verdict = "agree" if agree else f"differ by more than is allowed; do not use {destination}"
    for line in (f"check: {what} of {height} x {width} pixels", *lines, f"check: the scores {verdict}"):
        print(printable(line))
    return 0 if agree else 1


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(ConvertSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
