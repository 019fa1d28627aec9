"""Evaluates weights on a data set: python -m sysds_resnet.evaluate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import Field

from sysds_resnet.convert import read_any
from sysds_resnet.engine import Engine
from sysds_resnet.engine.blas import Blas, Precision
from sysds_resnet.engine.memory import parse_size
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.loop import evaluate
from sysds_resnet.model import ResNet
from sysds_resnet.readers import Readers
from sysds_resnet.settings import Settings, run


class EngineSettings(Settings):
    """Settings of commands that run a trained network."""

    weights: Path = Field(description="Weights: .safetensors, .pth, a run folder, a Hugging Face folder, ...")
    image_size: int | None = Field(
        None, ge=32, description="Side of the images in pixels; by default what the weights say, or 224."
    )
    precision: Precision = Field("single", description="Of matrix multiplies.")
    blas: Blas = Field("auto", description="The fastest, or openblas, or none for plain Java.")
    heap: str | None = Field(None, description="JVM heap, such as 12g; by default half of the memory.")
    workers: int | None = Field(None, ge=1, description="Processes that read images; by default all cores.")

    def open_engine(self) -> Engine:
        """The engine that these settings ask for."""
        return Engine(self.precision, self.heap and parse_size(self.heap), self.blas)


class EvaluateSettings(EngineSettings):
    """Computes loss, top-1 and top-5 of weights on the validation images of a data set."""

    dataset: str = Field("digits", description="digits, synthetic, or a folder with val/ or class folders.")
    out: Path | None = Field(None, description="JSON file for the result.")


def load_model(weights: Path, engine: Engine) -> tuple[ResNet, dict]:
    """A model from weights in any form, and what stands beside the weights."""
    state_dict, metadata = read_any(weights, engine)
    return ResNet.from_state_dict(state_dict, engine, str(weights), **metadata), metadata


def command(settings: EvaluateSettings) -> None:
    """Evaluates and prints."""
    with settings.open_engine() as engine:
        model, metadata = load_model(settings.weights, engine)
        size = settings.image_size or metadata.get("image_size", [None])[0]
        dataset = open_dataset(settings.dataset, "val", image_size=size)
        if dataset.num_classes != model.network.num_classes:
            raise UserError(
                f"{settings.dataset}: found {dataset.num_classes} classes, expected "
                f"{model.network.num_classes} as in {settings.weights}; evaluate on its own kind of data"
            )
        with Readers([dataset], settings.workers) as readers:
            scores = evaluate(model, dataset, readers)
    result = {"images": len(dataset), **scores}
    print(
        f"{len(dataset)} images: loss {scores['loss']:.4f}, top-1 {100 * scores['top1']:.2f} %, "
        f"top-5 {100 * scores['top5']:.2f} %"
    )
    if settings.out:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(result, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(EvaluateSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
