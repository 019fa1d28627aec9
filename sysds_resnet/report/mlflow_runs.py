"""A run in MLflow: its settings, its metrics, its pictures and its model.

Source: https://mlflow.org/docs/latest/ml/tracking/.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.report.callbacks import Callback, Run
from sysds_resnet.report.metrics import scalars
from sysds_resnet.system.code_version import commit
from sysds_resnet.system.command_lines import DISTRIBUTION
from sysds_resnet.system.extras import extra
from sysds_resnet.system.files import write_whole

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.models import ModelSignature

EXPERIMENT = DISTRIBUTION
"""The name of the experiment, unless the environment has MLFLOW_EXPERIMENT_NAME."""

ID_FILE = "mlflow_run.txt"
"""The file of a run folder with the id of the run in MLflow, which a resumed run goes on with."""

LOADER = "sysds_resnet.mlflow"
"""The module by which MLflow loads the model."""

MODEL_CONFIG = {"engine_precision": "single", "engine_heap": "2g", "engine_threads": None}
"""The configuration of the model, unless another is given where it is loaded.

MLflow keeps these as parameters of the run, among which are the settings of training.
"""

_FILES = ("config.yaml", "curves.png", "curves.html", "results.md", "results.json", "classes.txt")
_LONGEST_VALUE = 6000  # characters of a parameter that MLflow takes
_INTERVAL_S = 2.0  # seconds between messages with metrics of steps
_MOST = 500  # metrics in a message, of which MLflow takes 1,000


class MlflowCallback(Callback):
    """A callback that keeps a run in MLflow.

    The name of the run is that of the run folder. Its parameters are the settings, and its metrics have
    TensorBoard's names, such as train/loss and val/top1. When the run is finished, it gets config.yaml, the
    curves and the results, and the model, which is a pyfunc (sysds_resnet/mlflow.py).

    A name and a password for the server are taken from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
    as MLflow does itself.

    Args:
        uri: The tracking server, such as http://localhost:5000, or a folder.

    Raises:
        UserError: If MLflow is not installed.
    """

    def __init__(self, uri: str) -> None:
        with extra("mlflow", "mlflow"):
            import mlflow  # noqa: F401 - so that a run does not begin without it
        if urlsplit(uri).scheme in ("", "file"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else MLflow 3.7 and later refuses it
        # MLflow waits for minutes on a server that is not there
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        self._uri = uri
        self._metrics: list[Metric] = []
        self._sent = time.monotonic()

    def begin(self, run: Run) -> None:
        """Begins a run in MLflow, or goes on with the one of a resumed run.

        Raises:
            UserError: If the server cannot be reached, or refuses.
        """
        from mlflow import MlflowClient

        self._folder = run.folder
        try:
            self._client = MlflowClient(tracking_uri=self._uri)
            self._id = self._known() or self._new(run)
            self._tell_settings(run.settings)
        except Exception as error:
            raise UserError(
                f"mlflow: {self._uri} cannot be used ({one_line(error)}), expected a tracking server or a "
                "folder; check --mlflow"
            ) from error

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Sends metrics: those of an epoch at once, others every two seconds."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = scalars(event, values)
        self._metrics += [Metric(name, value, now, values["step"]) for name, value in found.items()]
        waited = time.monotonic() - self._sent
        if event == "epoch" or waited > _INTERVAL_S or len(self._metrics) > _MOST:
            self._send()

    def end(self, finished: bool) -> None:
        """Sends the last metrics, the files, and the model of a finished run, and ends the run in MLflow."""
        self._send()
        for name in _FILES:
            if (self._folder / name).exists():
                self._client.log_artifact(self._id, str(self._folder / name))
        if finished:
            self._log_model_and_finish(self._folder / "weights.safetensors")
        else:
            self._client.set_terminated(self._id, "KILLED")

    def _known(self) -> str | None:
        """Gives the id of a resumed run in MLflow, and says there that it goes on."""
        file = self._folder / ID_FILE
        if not file.exists():
            return None
        found = file.read_text("utf-8").strip()
        self._client.update_run(found, status="RUNNING")
        return found

    def _new(self, run: Run) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        tags = {"mlflow.source.name": "sysds_resnet.train", "mlflow.source.type": "LOCAL"}
        if found := commit():
            tags["mlflow.source.git.commit"] = found
        made = self._client.create_run(number, tags=tags, run_name=run.folder.resolve().name).info.run_id
        write_whole({run.folder / ID_FILE: lambda path: path.write_text(f"{made}\n", "utf-8")})
        return made

    def _tell_settings(self, settings: Mapping[str, Any]) -> None:
        """Sends the settings; one that has changed, such as the epochs, becomes a tag, as MLflow demands."""
        from mlflow.entities import Param, RunTag

        texts = {name: str(value)[:_LONGEST_VALUE] for name, value in settings.items()}
        known = self._client.get_run(self._id).data.params
        new = [Param(name, text) for name, text in texts.items() if name not in known]
        tags = [
            RunTag(f"changed.{name}", text) for name, text in texts.items() if known.get(name, text) != text
        ]
        for start in range(0, len(new), 100):
            self._client.log_batch(self._id, params=new[start : start + 100])
        self._client.log_batch(self._id, tags=tags)

    def _send(self) -> None:
        """Sends the metrics that wait; those that the server does not take are lost."""
        metrics, self._metrics, self._sent = self._metrics, [], time.monotonic()
        if metrics:
            self._client.log_batch(self._id, metrics=metrics)

    def _log_model_and_finish(self, weights: Path) -> None:
        """Sends the model within a `with` statement, after which MLflow knows the run as finished."""
        import mlflow

        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        mlflow.set_tracking_uri(self._uri)
        try:
            with mlflow.start_run(run_id=self._id), warnings.catch_warnings():
                # it asks for an example of an image, though the signature says what an input is
                warnings.filterwarnings("ignore", ".*An input example was not provided")
                mlflow.pyfunc.log_model(
                    name="model",
                    loader_module=LOADER,
                    data_path=str(weights),
                    signature=_signature(),
                    model_config=MODEL_CONFIG,
                    pip_requirements=[f"{DISTRIBUTION}=={version(DISTRIBUTION)}"],
                )
        finally:
            mlflow.set_tracking_uri(before)


def _signature() -> ModelSignature:
    """Gives what the model takes and gives, as sysds_resnet/mlflow.py does it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, DataType

    outputs = [
        ColSpec("string", "label"),
        ColSpec("long", "class"),
        ColSpec("double", "probability"),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
    return ModelSignature(Schema([ColSpec("binary", "image")]), Schema(outputs))
