"""A run's model in MLflow as a function of Spark's columns, in Spark itself."""

import io

import numpy as np
import pytest
from command_line import run_here, share_engine
from mlflow.pyfunc import load_model, spark_udf
from PIL import Image
from training_runs import SETTINGS

import sysds_resnet.mlflow
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.session import spark_session
from sysds_resnet.report.mlflow_runs import ID_FILE


@pytest.mark.long
@pytest.mark.usefixtures("wide", "py4j_handler")  # executors have the real network
def test_columns_of_image_files_get_the_classes_of_the_model(wide_engine, capfd, folder, monkeypatch):
    share_engine(monkeypatch, wide_engine)
    store = (folder / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    for name, value in (
        ("ALLOW_FILE_STORE", "true"),
        ("HTTP_REQUEST_MAX_RETRIES", "1"),
        ("HTTP_REQUEST_TIMEOUT", "9"),
    ):
        monkeypatch.setenv(f"MLFLOW_{name}", value)  # which the run would set
    outcome = run_here(capfd, "train", *SETTINGS, "--mlflow", store, "--out", folder / "run")
    assert outcome.code == 0, outcome
    uri = f"runs:/{(folder / 'run' / ID_FILE).read_text().strip()}/model"
    rng, rows = np.random.default_rng(0), []
    for number in range(5):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(buffer, "PNG")
        rows.append((number, bytearray(buffer.getvalue())))
    monkeypatch.setattr(sysds_resnet.mlflow, "engine_of_process", lambda *_: wide_engine)
    with spark_session(Cluster("local[1]", 1, memory=2**30), {}) as spark:
        frame = spark.createDataFrame(rows, "number int, content binary")
        classify = spark_udf(spark, uri, env_manager="local")
        found = frame.select("number", classify("content").alias("p")).orderBy("number").collect()
        table = frame.toPandas().rename(columns={"content": "image"})[["image"]]
    expected = load_model(uri).predict(table.map(bytes))
    assert [row.p.label for row in found] == expected["label"].tolist()
    assert [row.p["class"] for row in found] == expected["class"].tolist()
    np.testing.assert_allclose(
        [row.p.probabilities for row in found], np.stack(expected["probabilities"]), rtol=1e-5
    )
