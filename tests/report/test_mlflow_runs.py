"""Runs in MLflow with MLflow itself, in a folder: settings, metrics, files and the model."""

import io
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here
from mlflow import MlflowClient
from PIL import Image
from training_runs import SETTINGS

import sysds_resnet.mlflow
from sysds_resnet import ResNet
from sysds_resnet.batches.reading import read
from sysds_resnet.images.encoded import open_files
from sysds_resnet.report.metrics import read_lines, scalars
from sysds_resnet.report.mlflow_runs import EXPERIMENT, ID_FILE


@pytest.fixture
def store(folder, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    for name in ("ALLOW_FILE_STORE", "HTTP_REQUEST_MAX_RETRIES", "HTTP_REQUEST_TIMEOUT", "TRACKING_URI"):
        monkeypatch.setenv(f"MLFLOW_{name}", "1")  # so that they are as before when the test ends
        monkeypatch.delenv(f"MLFLOW_{name}")
    return (folder / "store").as_uri()


@pytest.fixture(scope="module")
def pictures():
    """Images of several sizes, as files."""
    rng = np.random.default_rng(0)
    files = []
    for height, width in ((48, 64), (100, 80), (33, 33), (64, 64), (40, 90)):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def test_a_run_is_kept_with_its_settings_metrics_files_and_model(
    shared, engine, capfd, folder, store, pictures, monkeypatch
):
    run = folder / "run"
    outcome = run_here(capfd, "train", *SETTINGS, "--mlflow", store, "--out", run)
    assert outcome.code == 0, outcome
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == (run / ID_FILE).read_text().strip()
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["optimizer"] == "sgd" and found.data.params["base_lr"] == "0.01"
    assert set(found.data.params) >= {"model", "micro_batch", "seed", "dataset"}
    lines = read_lines(run / "metrics.jsonl")
    for name in ("train/loss", "train/lr", "val/top1", "epoch/train_loss"):
        history = [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
        expected = [(line["step"], scalars(line["event"], line).get(name)) for line in lines]
        assert history == [(step, value) for step, value in expected if value is not None], name
    files = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"config.yaml", "results.md", "classes.txt"} <= files

    monkeypatch.setattr(sysds_resnet.mlflow, "engine_of_process", lambda *_: engine)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    model = mlflow.pyfunc.load_model(
        f"runs:/{found.info.run_id}/model", model_config={"engine_precision": "double"}
    )
    table = pd.DataFrame({"image": pictures}, index=range(10, 15))
    predicted = model.predict(table)
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(str(folder / f"{number}.png"))
        (folder / f"{number}.png").write_bytes(picture)
    images = read(open_files(paths, image_size=32), np.arange(5), 0, replace=False).images
    expected = ResNet.load(run / "weights.safetensors", engine=engine).predict_proba(images)
    np.testing.assert_allclose(np.stack(predicted["probabilities"]), expected, rtol=1e-9)
    assert predicted["class"].tolist() == expected.argmax(axis=1).tolist()
    assert predicted["label"].tolist() == [f"pattern{k}" for k in predicted["class"]]
    np.testing.assert_allclose(predicted["probability"], expected.max(axis=1), rtol=1e-9)
    assert len(model.predict(table[:0])) == 0
    with pytest.raises(Exception, match="in row 11: found"):
        model.predict(table.assign(image=[pictures[0], b"no image", *pictures[2:]]))


@pytest.mark.long
def test_a_resumed_run_goes_on_in_the_same_place(shared, capfd, folder, store):
    run = folder / "run"
    outcome = run_here(capfd, "train", *SETTINGS, "--mlflow", store, "--out", run)
    assert outcome.code == 0, outcome
    outcome = run_here(capfd, "train", "--resume", run, "--epochs", 3)
    assert outcome.code == 0, outcome
    client = MlflowClient(store)
    [found] = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert (found.data.params["epochs"], found.data.tags["changed.epochs"]) == ("2", "3")
    steps = [metric.step for metric in client.get_metric_history(found.info.run_id, "val/loss")]
    assert steps == [2, 4, 6] and found.info.status == "FINISHED"


def test_a_server_that_is_not_there_is_one_line_before_the_first_step(
    shared, capfd, folder, store, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outcome = run_here(capfd, "train", *SETTINGS, "--mlflow", "http://127.0.0.1:9", "--out", folder / "run")
    assert_one_line_error(outcome, "mlflow: http://127.0.0.1:9 cannot be used (", "check --mlflow")


def test_a_password_in_the_uri_is_refused(shared, capfd, folder):
    uri = "https://me:secret@host.example/mlflow"
    outcome = run_here(capfd, "train", *SETTINGS, "--mlflow", uri, "--out", folder / "run")
    assert_one_line_error(outcome, "mlflow: found a password or key in https://***@host.example")
    assert "secret" not in outcome.err and not (folder / "run").exists()


def test_without_mlflow_one_line_says_how_to_get_it(shared, capfd, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    outcome = run_here(capfd, "train", *SETTINGS, "--mlflow", str(folder), "--out", folder / "run")
    assert_one_line_error(outcome, "mlflow: found ", "run ", "mlflow-skinny")
