"""The model of a run in MLflow: a pyfunc that classifies image files, also as a function of Spark's columns.

    model = mlflow.pyfunc.load_model("runs:/RUN_ID/model")
    model.predict(pd.DataFrame({"image": [Path("cat.jpg").read_bytes()]}))

`train --mlflow URI` logs it (report/mlflow_runs.py). Its weights are a .safetensors file, without pickle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sysds_resnet.engine.of_process import engine_of_process
from sysds_resnet.errors import UserError
from sysds_resnet.network.inference import log_softmax
from sysds_resnet.report.mlflow_runs import MODEL_CONFIG
from sysds_resnet.scoring.ensemble import load_ensemble
from sysds_resnet.scoring.files_in_memory import samples_of
from sysds_resnet.scoring.settings import PredictSettings
from sysds_resnet.settings.command_line import build


class ImageClassifier:
    """A network that classifies image files, for MLflow.

    The first prediction of a process starts a JVM, which all models of the process with the same
    configuration share, and which ends with the process.

    Args:
        weights: The path of a .safetensors file of a run.
        config: The configuration: "engine_precision", by default "single"; "engine_heap", the size of the
            JVM's heap, by default "2g"; "engine_threads", by default as many as there are cores.

    Raises:
        UserError: If a value does not fit, or the weights cannot be read.
    """

    def __init__(self, weights: str, config: dict[str, Any]) -> None:
        engine = {**MODEL_CONFIG, **config}
        values = {name: engine[f"engine_{name}"] for name in ("precision", "heap")}
        settings = build(PredictSettings, {"input": ["-"], "weights": [weights], **values})
        threads = engine["engine_threads"]
        self._engine = engine_of_process(settings.precision, settings.heap, threads)
        self._ensemble, self._sizes = load_ensemble(settings, self._engine)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classifies image files.

        Args:
            model_input: A table whose column "image" has the bytes of image files.
            params: Nothing; MLflow passes it.

        Returns:
            A table with a row for each image: the "label" of the most probable class, its number "class",
            counted from 0, its "probability", and the "probabilities" of all classes.

        Raises:
            UserError: If an image cannot be read.
        """
        if "image" not in model_input:
            raise UserError(
                f"input: found the columns {', '.join(map(str, model_input.columns))}, expected 'image' with "
                "the bytes of image files; rename the column"
            )
        names = [f"in row {index}" for index in model_input.index]
        parts = [
            self._ensemble.scores(samples.images)
            for samples in samples_of(names, model_input["image"].tolist(), self._engine, self._sizes)
        ]
        scores = np.concatenate([np.empty((0, self._ensemble.num_classes)), *parts])
        classes, probabilities = scores.argmax(axis=1), np.exp(log_softmax(scores))
        labels = self._ensemble.classes or [str(i) for i in range(self._ensemble.num_classes)]
        return pd.DataFrame(
            {
                "label": [labels[k] for k in classes],
                "class": classes,
                "probability": probabilities.max(axis=1, initial=0.0),
                "probabilities": probabilities.tolist(),
            }
        )


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> ImageClassifier:
    """Loads the model; MLflow calls this with the path of the weights, and a configuration if it has one."""
    return ImageClassifier(path, model_config or {})
