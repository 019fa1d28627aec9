"""The estimator for Spark ML: `ResNetClassifier`, a residual network in pipelines of data frames.

An estimator trains in the process that calls `fit`, on images that it collects from the data frame. The model
scores images on the executors, each with an engine of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sysds_resnet.errors import UserError
from sysds_resnet.network.weights.forms import file_of_run
from sysds_resnet.scoring.settings import PredictSettings
from sysds_resnet.scoring.spark.driver import Scorer
from sysds_resnet.scoring.spark.tables import files_of, names_of
from sysds_resnet.settings.command_line import build
from sysds_resnet.system.extras import extra
from sysds_resnet.system.similar_names import did_you_mean
from sysds_resnet.training.run import train
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark.frames import collect_images

with extra("spark", "Spark ML"):
    from pyspark.ml import Estimator, Model
    from pyspark.ml.functions import array_to_vector
    from pyspark.ml.param import Param, Params, TypeConverters
    from pyspark.ml.param.shared import (
        HasHandleInvalid,
        HasLabelCol,
        HasPredictionCol,
        HasProbabilityCol,
        HasRawPredictionCol,
    )
    from pyspark.ml.util import (
        DefaultParamsReadable,
        DefaultParamsReader,
        DefaultParamsWritable,
        DefaultParamsWriter,
        MLReadable,
        MLReader,
        MLWritable,
        MLWriter,
    )

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PART = 2**24
"""The bytes of the weights in a row of a saved model."""


def _param(name: str, text: str, convert: Any = TypeConverters.toString) -> Param:
    return Param(Params._dummy(), name, text, convert)


def _setting(name: str, convert: Any = TypeConverters.toString) -> Param:
    """Makes a parameter of a setting of train: base_lr is called baseLr."""
    first, *others = name.split("_")
    field = TrainSettings.model_fields[name]
    return _param(first + "".join(map(str.capitalize, others)), field.description, convert)


class _Columns(HasPredictionCol, HasProbabilityCol, HasRawPredictionCol, HasHandleInvalid):
    """What an estimator and its model have in common: the columns that they read and add."""

    imageCol = _param("imageCol", "The column of image files: bytes, structs with a field bytes, or paths.")
    embeddingCol = _param(
        "embeddingCol", "The column for the features of images; without a name there is none."
    )
    precision = _setting("precision")
    heap = _setting("heap")

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(
            imageCol="content", embeddingCol="", handleInvalid="error", precision="single", heap="2g"
        )

    def setParams(self, **params: Any) -> Any:
        """Sets parameters by name, and gives the object itself; those that are None stay as they are."""
        for name in params:
            if not self.hasParam(name):
                known = [param.name for param in self.params]
                question = did_you_mean(name, known) or f": {', '.join(known)}"
                raise UserError(
                    f"{name}: found no such parameter, expected one of those that exist{question}"
                )
        return self._set(**params)


class ResNetClassifier(Estimator, _Columns, HasLabelCol, DefaultParamsReadable, DefaultParamsWritable):
    """A ResNet classifier (v1.5) as an estimator of Spark ML, trained on SystemDS.

    `fit` takes a data frame with a column of image files and one of labels, which are numbers from 0, as
    StringIndexer makes them. If the label's column has the names of its classes in its metadata, which
    StringIndexer leaves there, the model has them too.

    The images are collected by the process that calls `fit`, into a table in its temporary folder, and that
    process trains by itself, as the command train does. To train on the executors, prepare the
    images by spark-submit and train there (docs/spark.md).

    Args:
        imageCol: The column of image files: bytes, structs with a field "bytes", or paths that executors see.
        labelCol: The column of labels.
        predictionCol, probabilityCol, rawPredictionCol: The columns that the model adds: the class as a
            number, the probabilities of all classes, and the logits.
        embeddingCol: The column for the features of images, the means over the last activations; none without
            a name.
        handleInvalid: What the model does with an image that cannot be read: "error" stops, "skip" leaves its
            row out.
        model, imageSize, epochs, batchSize, optimizer, baseLr, schedule, warmupEpochs, weightDecay: Settings
            of train. Those that are not set are chosen by the number and size of the images.
        labelSmoothing, classWeights, initFrom, seed, workers: More of them.
        valSplit: The share of the images that is for validation, by default 0.1.
        precision, heap: The precision, by default "single", and the size of each JVM's heap, by default "2g",
            of the training and in the executors.
        settings: A dict of other settings of train by name, such as {"ema_decay": 0.999}.
        runFolder: The folder of the run, with its curves, metrics and checkpoints; by default none stays.
    """

    model = _setting("model")
    imageSize = _setting("image_size", TypeConverters.toInt)
    epochs = _setting("epochs", TypeConverters.toInt)
    batchSize = _setting("batch_size", TypeConverters.toInt)
    optimizer = _setting("optimizer")
    baseLr = _setting("base_lr", TypeConverters.toFloat)
    schedule = _setting("schedule")
    warmupEpochs = _setting("warmup_epochs", TypeConverters.toFloat)
    weightDecay = _setting("weight_decay", TypeConverters.toFloat)
    labelSmoothing = _setting("label_smoothing", TypeConverters.toFloat)
    classWeights = _setting("class_weights")
    initFrom = _setting("init_from")
    valSplit = _setting("val_split", TypeConverters.toFloat)
    seed = _setting("seed", TypeConverters.toInt)
    workers = _setting("workers", TypeConverters.toInt)
    settings = _param("settings", "Other settings of train by name.", TypeConverters.identity)
    runFolder = _param("runFolder", "The folder of the run; by default none stays.")

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(valSplit=0.1, settings={})
        self.setParams(**params)

    def _fit(self, dataset: DataFrame) -> ResNetClassificationModel:
        with tempfile.TemporaryDirectory(prefix="sysds_resnet_") as folder:
            data = Path(folder, "data")
            data.mkdir()
            values = self._values_of_train()  # which are checked before images are collected
            run = Path(self.getOrDefault("runFolder")) if self.isDefined("runFolder") else Path(folder, "run")
            settings = build(TrainSettings, {**values, "dataset": str(data), "out": run})
            image, label = files_of(dataset, self.getOrDefault("imageCol")), self.getOrDefault("labelCol")
            collect_images(dataset, image, label, data / "train.parquet")
            train(settings)
            weights = file_of_run(run)
            if weights is None:
                raise UserError(
                    f"{run}: found a run that was stopped, expected one that has ended; fit again"
                )
            return self._copyValues(ResNetClassificationModel(weights.read_bytes()))

    def _values_of_train(self) -> dict[str, Any]:
        values = dict(self.getOrDefault("settings"))
        for name in TrainSettings.model_fields:
            first, *others = name.split("_")
            param = first + "".join(map(str.capitalize, others))
            if param != "settings" and self.hasParam(param) and self.isDefined(param):
                values[name] = self.getOrDefault(param)
        return values


class ResNetClassificationModel(Model, _Columns, MLReadable, MLWritable):
    """A trained network as a transformer of Spark ML; `ResNetClassifier.fit` and `load` make it.

    `transform` adds the columns that the parameters of `ResNetClassifier` name. Each Python worker of an
    executor starts a JVM of its own, with a heap of the size of the parameter `heap`.

    Spark gives a worker up to 10,000 rows at a time. For images that is too much memory: set
    spark.sql.execution.arrow.maxRecordsPerBatch to 64 in the session.

    Args:
        weights: The bytes of a .safetensors file that training or `ResNet.save` has written.
    """

    def __init__(self, weights: bytes) -> None:
        super().__init__()
        self.weights = weights
        self._scorer: tuple[tuple[str, ...], Scorer] | None = None

    @property
    def numClasses(self) -> int:
        """The number of classes."""
        return self._scorer_of().num_classes

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes in their order, if they have names."""
        return self._scorer_of().classes

    def saveWeights(self, path: str) -> None:
        """Writes the weights as a .safetensors file on this machine, for the other commands and tools."""
        Path(path).write_bytes(self.weights)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        names = {
            "prediction": self.getOrDefault("predictionCol"),
            "logits": self.getOrDefault("rawPredictionCol"),
            "probabilities": self.getOrDefault("probabilityCol"),
            "features": self.getOrDefault("embeddingCol"),
        }
        names = {field: name for field, name in names.items() if name}
        taken = [name for name in names.values() if name in dataset.columns]
        if taken:
            raise UserError(
                f"{taken[0]}: found this column in the data frame, expected to add it; drop it, or choose "
                "another name for the model's"
            )
        scored = f"{self.uid}_scored"
        function = self._scorer_of().function(dataset.sparkSession, "features" in names)
        image = self.getOrDefault("imageCol")
        files = files_of(dataset, image)
        frame = dataset.withColumn(scored, function(names_of(dataset, image), files))
        if self.getOrDefault("handleInvalid") == "skip":
            frame = frame.filter(f"`{scored}`.error is null")
        for field, name in names.items():
            value = frame[scored][field]
            frame = frame.withColumn(name, value if field == "prediction" else array_to_vector(value))
        return frame.drop(scored)

    def _scorer_of(self) -> Scorer:
        """Gives what scores images with the parameters of now, read once."""
        how = tuple(self.getOrDefault(name) for name in ("precision", "heap", "handleInvalid"))
        if self._scorer is None or self._scorer[0] != how:
            precision, heap, invalid = how
            with tempfile.TemporaryDirectory(prefix="sysds_resnet_") as folder:
                file = Path(folder, "weights.safetensors")
                file.write_bytes(self.weights)
                options = {"precision": precision, "heap": heap}
                options["on_error"] = "skip" if invalid == "skip" else "raise"
                settings = build(PredictSettings, {"input": ["-"], "weights": [str(file)], **options})
                self._scorer = how, Scorer(settings)
        return self._scorer[1]

    def write(self) -> MLWriter:
        """Gives the writer of the model, of which `save` is a short form."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader:
        """Gives the reader of models, of which `load` is a short form."""
        return _Reader()


class _Writer(MLWriter):
    def __init__(self, model: ResNetClassificationModel) -> None:
        super().__init__()
        self._model = model

    def saveImpl(self, path: str) -> None:
        DefaultParamsWriter.saveMetadata(self._model, path, self.sc)
        rows = list(self._parts())
        frame = self.sparkSession.createDataFrame(rows, "part int, content binary")
        frame.repartition(1).write.parquet(f"{path}/weights")

    def _parts(self) -> Iterator[tuple[int, bytearray]]:
        weights = self._model.weights
        for part, start in enumerate(range(0, len(weights), PART)):
            yield part, bytearray(weights[start : start + PART])


class _Reader(MLReader):
    def load(self, path: str) -> ResNetClassificationModel:
        metadata = DefaultParamsReader.loadMetadata(path, self.sc)
        parts = self.sparkSession.read.parquet(f"{path}/weights").orderBy("part").collect()
        model = ResNetClassificationModel(b"".join(row.content for row in parts))
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model
