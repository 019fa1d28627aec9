"""The estimator for Spark ML with Spark itself: in a pipeline, saved and loaded, and what it refuses."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import StringIndexer
from scipy.special import softmax
from striped_images import striped_images

from sysds_resnet import Engine, ResNet
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.session import spark_session
from sysds_resnet.errors import UserError
from sysds_resnet.images.encoded import open_files
from sysds_resnet.images.sources.layouts import open_source
from sysds_resnet.spark_ml import ResNetClassificationModel, ResNetClassifier
from sysds_resnet.training.spark.frames import collect_images

NAMES = ("across", "down")  # StringIndexer sorts names that are as frequent
SMALL = {"model": "resnet18", "imageSize": 32, "epochs": 2, "batchSize": 8, "valSplit": 0.25, "seed": 3}


@pytest.fixture(scope="module")
def spark():
    conf = {"spark.sql.shuffle.partitions": "1", "spark.sql.execution.arrow.maxRecordsPerBatch": "64"}
    with spark_session(Cluster("local[1]", 1, memory=2**30), conf) as session:
        yield session


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The paths of images of stripes in two directions, and the names of their classes."""
    folder = tmp_path_factory.mktemp("files")
    images, labels = striped_images(32, classes=2)
    found = []
    for number, (pixels, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        found.append((str(path), NAMES[label]))
    return found


@pytest.fixture(scope="module")
def frame(spark, files):
    rows = [(path, bytearray(Path(path).read_bytes()), name) for path, name in files]
    return spark.createDataFrame(rows, "path string, content binary, kind string").repartition(2).cache()


@pytest.fixture(scope="module")
def indexed(frame):
    return StringIndexer(inputCol="kind", outputCol="label").fit(frame).transform(frame)


def vectors(rows, name):
    return np.array([row[name].toArray() for row in rows])


@pytest.mark.long
@pytest.mark.usefixtures("py4j_handler", "wide")  # as are the networks of Spark's workers
def test_it_is_a_stage_of_pipelines_that_are_saved_and_loaded(spark, frame, tmp_path):
    estimator = ResNetClassifier(
        embeddingCol="embedding", runFolder=str(tmp_path / "run"), settings={"ema_decay": 0.5}, **SMALL
    )
    estimator.write().save(str(tmp_path / "estimator"))
    estimator = ResNetClassifier.load(str(tmp_path / "estimator"))
    pipeline = Pipeline(stages=[StringIndexer(inputCol="kind", outputCol="label"), estimator])
    fitted = pipeline.fit(frame)
    assert (tmp_path / "run" / "curves.png").exists()
    assert "ema_decay: 0.5" in (tmp_path / "run" / "config.yaml").read_text()
    rows = fitted.transform(frame).orderBy("path").collect()
    assert len(rows) == 32
    logits = vectors(rows, "rawPrediction")
    np.testing.assert_allclose(vectors(rows, "probability"), softmax(logits, axis=1), rtol=1e-12)
    assert [row.prediction for row in rows] == logits.argmax(axis=1).tolist()
    trained = fitted.stages[-1]
    assert trained.classes == list(NAMES) and trained.numClasses == 2

    # what the same weights give outside of Spark
    trained.saveWeights(str(tmp_path / "weights.safetensors"))
    with Engine("single", heap=2**31) as engine:
        alone = ResNet.load(tmp_path / "weights.safetensors", engine)
        data = open_files([row.path for row in rows], image_size=32)
        images = np.stack([data.image(i, 0) for i in range(len(data))])
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(alone.logits(images), logits, **close)
        np.testing.assert_allclose(alone.features(images), vectors(rows, "embedding"), **close)

    fitted.write().overwrite().save(str(tmp_path / "model"))
    again = PipelineModel.load(str(tmp_path / "model"))
    assert (
        vectors(again.transform(frame).orderBy("path").collect(), "rawPrediction").tolist() == logits.tolist()
    )
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy")
    assert 0 <= accuracy.evaluate(again.transform(frame)) <= 1

    # paths in place of bytes, and files that are none
    damaged = spark.createDataFrame(
        [(rows[0].path, "across"), ("/nowhere.png", "down")], "content string, kind string"
    )
    trained.setParams(handleInvalid="skip", embeddingCol="")
    [row] = trained.transform(damaged).collect()
    np.testing.assert_allclose(row.rawPrediction.toArray(), logits[0], rtol=1e-6)
    assert "embedding" not in row
    with pytest.raises(UserError, match="prediction: found this column in the data frame"):
        trained.transform(trained.transform(damaged))
    trained.setParams(handleInvalid="error")
    with pytest.raises(Exception, match=r"image /nowhere\.png: found no bytes"):
        trained.transform(damaged).collect()


def test_parameters_are_those_of_train_by_spark_s_manner_of_names():
    estimator = ResNetClassifier(baseLr=1, **SMALL)
    assert estimator.getOrDefault("baseLr") == 1.0 and estimator.getOrDefault("precision") == "single"
    copied = estimator.copy({estimator.epochs: 7})
    assert copied.getOrDefault("epochs") == 7 and estimator.getOrDefault("epochs") == 2
    assert "learning rate" in estimator.explainParam("baseLr")
    with pytest.raises(UserError, match=r"base_lr: found no such parameter.*baseLr"):
        ResNetClassifier(base_lr=1)
    with pytest.raises(TypeError):
        ResNetClassifier(epochs="many")


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"labelCol": "kind"}, "labelCol: found a column 'kind' of string.*StringIndexer"),
        ({"labelCol": "none"}, "labelCol: found no column 'none'"),
        ({"labelCol": "half"}, "labelCol: found 32 labels in 'half' that are no whole numbers"),
        ({"labelCol": "same"}, "labelCol: found one class in 'same'"),
        ({"imageCol": "none"}, "imageCol: found no column 'none'"),
        ({"imageCol": "label"}, "imageCol: found a column 'label' of double"),
        ({"epochs": 0}, "epochs: found 0"),
        ({"settings": {"epoch": 3}}, "epoch"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(indexed, change, found):
    frame = indexed.withColumns({"half": indexed.label + 0.5, "same": indexed.label * 0})
    with pytest.raises(UserError, match=found):
        ResNetClassifier(**{**SMALL, **change}).fit(frame)


@pytest.mark.long
def test_a_row_without_an_image_is_refused(spark):
    frame = spark.createDataFrame([(None, 0), (bytearray(b"x"), 1)], "content binary, label int")
    with pytest.raises(UserError, match="imageCol: found a row without an image"):
        ResNetClassifier(**SMALL).fit(frame)


@pytest.mark.long
def test_a_model_of_no_weights_is_refused(spark):
    with pytest.raises(UserError, match="weights"):
        ResNetClassificationModel(b"no weights").numClasses  # noqa: B018


@pytest.mark.long
def test_tables_that_spark_writes_are_data_sets(frame, tmp_path):
    for split in ("train", "val"):
        frame.selectExpr("content as image", "kind as label").write.parquet(str(tmp_path / split))
    source = open_source(tmp_path, "val")
    assert source.classes == list(NAMES) and np.bincount(source.labels).tolist() == [16, 16]
    assert {bytes(source.read(i)) for i in range(32)} == {bytes(row.content) for row in frame.collect()}
    assert source.notes == []


@pytest.mark.long
def test_names_of_classes_go_into_the_table(indexed, tmp_path):
    collect_images(indexed, indexed.content, "label", tmp_path / "train.parquet")
    table = pq.read_table(tmp_path / "train.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"]["names"] == list(NAMES)
    expected = {bytes(row.content).hex(): row.label for row in indexed.collect()}
    found = dict(
        zip([image.hex() for image in table["image"].to_pylist()], table["label"].to_pylist(), strict=True)
    )
    assert found == expected
    assert Image.open(io.BytesIO(table["image"][0].as_py())).size == (32, 32)
