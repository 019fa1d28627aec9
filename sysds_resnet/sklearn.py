"""The estimator for scikit-learn: `ResNetClassifier`, a residual network for its pipelines and searches.

A fitted estimator holds its weights as arrays. The engine of the process (engine/of_process.py) has the
weights of the estimator that was used last, so that any number of them can be fitted in one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from sysds_resnet import Engine, ResNet
from sysds_resnet.engine.of_process import engine_of_process
from sysds_resnet.errors import WrongValue
from sysds_resnet.images.pixels.normalization import mean_and_std, normalized
from sysds_resnet.images.rows import shape_of_images, to_rows
from sysds_resnet.network.registry import MIN_SIZE
from sysds_resnet.report.display import epoch_line
from sysds_resnet.report.events import EpochEvent
from sysds_resnet.system.checks import whole
from sysds_resnet.system.console import say
from sysds_resnet.system.extras import extra
from sysds_resnet.system.forks import opening

with extra("sklearn", "scikit-learn"):
    from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import Tags, check_random_state, compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

AT_A_TIME = 256
"""The number of images that are normalized at a time to be scored."""

# The parameters of the estimator that `ResNet.fit` has under the same names.
_SETTINGS = (
    "epochs",
    "batch_size",
    "optimizer",
    "schedule",
    "base_lr",
    "warmup_epochs",
    "momentum",
    "weight_decay",
    "label_smoothing",
    "clip_norm",
    "ema_decay",
)

# The estimator that was used last, with the weights that it had then, and their model in the engine.
_last: WeakKeyDictionary[ResNetClassifier, tuple[Mapping[str, np.ndarray], ResNet]] = WeakKeyDictionary()


class ResNetClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):
    """A ResNet classifier (v1.5) as an estimator of scikit-learn, trained on SystemDS.

    Images `X` are numbers of any scale, such as uint8, or floating point from 0 to 1. Images that are scored
    must have the scale of those that were fitted. They come in one of these forms:

    - images of shape (n, H, W, C);
    - grey images of shape (n, H, W);
    - rows of shape (n, H*W*C), as most tools of scikit-learn take and give them. `image_shape` says how a
      row becomes an image.

    Labels `y` are of any type that scikit-learn's classifiers take. `transform` gives the features of images,
    the mean activations before the final layer.

    Parameters that are settings of the command train mean the same and have the same ranges. But for `heap`,
    they have the same defaults. `fit` checks them.

    All estimators of a process with the same `precision`, `heap` and `threads` share one engine. This is a
    JVM that starts when it is first needed and ends with the process. A pickled estimator takes no JVM along.

    Args:
        depth: The depth of the network: 18, 34, 50, 101 or 152.
        epochs: The number of passes over the training images.
        batch_size: The number of images in a training step; all images if there are fewer. Images that do not
            fill a batch are left out of an epoch, others in each epoch.
        optimizer: The optimizer: "lars", "sgd" or "nesterov". The default of `base_lr` is for "lars".
        base_lr: The highest learning rate.
        schedule: The schedule of the learning rate: "polynomial", "cosine", "constant", "onecycle" or
            "multistep".
        warmup_epochs: The epochs of the linear warm-up, at most `epochs`.
        momentum: The share of the velocity that each step keeps.
        weight_decay: The L2 weight decay of convolutions and of the final layer's weights.
        label_smoothing: The share of the target probability that is spread evenly over all classes.
        clip_norm: The bound to which the gradient's norm is clipped; 0 for none.
        ema_decay: The decay of a moving average of the weights, which is kept in their place; 0 for none.
        class_weight: The factor of each class's images in the training loss: a dict by label, or "balanced"
            for n / (classes * images of the class), or None for 1. The loss of a batch is the sum of its
            images' losses times their factors, divided by the number of images.
        image_shape: The shape (H, W) or (H, W, C) of the images in rows; one of the numbers may be -1, as in
            NumPy's reshape. By default rows are square grey images.
        image_size: The side, at least 32, of the squares to which images are resized, bilinearly by Pillow.
            By default they keep their size, except that a side of less than 32 pixels is enlarged to 32.
        random_state: The seed of the initial weights and of the order of the images: a number, a RandomState,
            or None for another one in each fit.
        precision: The precision of matrix multiplies: "single", "double" or "bf16".
        heap: The size of the JVM's heap, such as "2g"; None for half of the machine's memory.
        threads: How many threads the JVM computes with; by default as many as there are cores.
        verbose: Whether a line is printed after each epoch.

    Attributes:
        classes_: The labels of the classes in their order, of shape (K,).
        n_features_in_: The number of values of an image.
        feature_names_in_: The names of the columns of `X`, if it was a table whose columns have names.
        image_shape_: The shape (H, W, C) of the images that were fitted.
        image_size_: The height and width in pixels at which the network sees images.
        mean_, std_: The mean and standard deviation of each channel of the images that were fitted, of shape
            (C,), by which images are normalized.
        weights_: The parameters and running statistics by torchvision's names, in float64.
        history_: A table with a row for each epoch, and the columns of metrics.jsonl.
    """

    def __init__(
        self,
        depth: int = 18,
        *,
        epochs: int = 8,
        batch_size: int = 64,
        optimizer: str = "lars",
        base_lr: float = 10.0,
        schedule: str = "polynomial",
        warmup_epochs: float = 0.8,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        label_smoothing: float = 0.0,
        clip_norm: float = 0.0,
        ema_decay: float = 0.0,
        class_weight: Mapping[object, float] | str | None = None,
        image_shape: Sequence[int] | None = None,
        image_size: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        precision: str = "single",
        heap: int | str | None = "2g",
        threads: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.depth = depth
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.base_lr = base_lr
        self.schedule = schedule
        self.warmup_epochs = warmup_epochs
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.class_weight = class_weight
        self.image_shape = image_shape
        self.image_size = image_size
        self.random_state = random_state
        self.precision = precision
        self.heap = heap
        self.threads = threads
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> ResNetClassifier:
        """Trains a network with fresh weights on images `X` and their labels `y`, of shape (n,).

        Raises:
            ValueError: If the images or labels do not fit.
            UserError: If a parameter is out of its range, or the engine does not start, or ends.
        """
        rows, shape = to_rows(X)
        rows, y = validate_data(self, rows, y)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise WrongValue(
                f"y: found one class, {classes[0]!r}, expected at least two; there is nothing to tell apart"
            )
        factors = None
        if self.class_weight is not None:
            factors = compute_class_weight(self.class_weight, classes=classes, y=y)
        shape = shape_of_images(rows.shape[1], self.image_shape, shape)
        images = rows.reshape(-1, *shape)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with opening:
            _last.clear()  # training takes several times the memory of the weights
        scaling = self._size_in_network(shape), *mean_and_std(images)
        model = ResNet(self.depth, len(classes), shape[2], seed, engine=self._engine(), **_unscaled(shape[2]))
        self.history_ = model.fit(
            normalized(images, *scaling, self._dtype()),
            labels,
            class_weights=factors,
            on_epoch=self._print if self.verbose else None,
            seed=seed,
            **self._settings(len(images)),
        )
        self.classes_, self.weights_ = classes, model.state_dict()
        self.image_shape_, (self.image_size_, self.mean_, self.std_) = shape, scaling
        with opening:
            _last[self] = self.weights_, model
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Gives the label of the most probable class of each image, of shape (n,)."""
        found = self._compute("predict", X)
        return self.classes_[found]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Computes the probabilities of the classes, of shape (n, K), in the order of `classes_`."""
        return self._compute("predict_proba", X)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Computes the features of images, of shape (n, 512) at depths 18 and 34, and (n, 2048) at others."""
        return self._compute("features", X)

    def _compute(self, method: str, X: ArrayLike) -> np.ndarray:
        """Gives what a method of `ResNet` gives for images."""
        check_is_fitted(self, "weights_")
        rows, shape = to_rows(X)
        rows = validate_data(self, rows, reset=False)
        if shape not in (None, self.image_shape_):
            raise WrongValue(
                f"X: found images of shape {shape}, expected {self.image_shape_}, as in fit; give such images"
            )
        compute = getattr(self._model(), method)
        images = rows.reshape(-1, *self.image_shape_)
        scaling = self.image_size_, self.mean_, self.std_, self._dtype()
        parts = (images[i : i + AT_A_TIME] for i in range(0, len(images), AT_A_TIME))
        return np.concatenate([compute(normalized(part, *scaling)) for part in parts])

    def _model(self) -> ResNet:
        """Gives the model in the engine, which stays there until another estimator is used."""
        engine = self._engine()
        with opening:
            weights, model = _last.get(self, (None, None))
            if weights is self.weights_ and model.engine is engine:
                return model
            _last.clear()
        model = ResNet.from_state_dict(self.weights_, engine, **_unscaled(len(self.mean_)))
        with opening:
            _last[self] = self.weights_, model
        return model

    def _engine(self) -> Engine:
        return engine_of_process(self.precision, self.heap, self.threads)

    def _dtype(self) -> type:
        return np.float64 if self.precision == "double" else np.float32

    def _settings(self, n: int) -> dict[str, object]:
        """Gives the settings of `ResNet.fit` for n images, with Python's numbers in place of NumPy's."""
        values = {name: getattr(self, name) for name in _SETTINGS}
        values = {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}
        if isinstance(values["batch_size"], int):
            values["batch_size"] = min(values["batch_size"], n)
        return values

    def _size_in_network(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Gives the height and width at which the network sees images of a shape."""
        if self.image_size is None:
            return max(shape[0], MIN_SIZE), max(shape[1], MIN_SIZE)
        side = whole("image_size", self.image_size, MIN_SIZE)
        return side, side

    def _print(self, event: EpochEvent) -> None:
        say(epoch_line(event, self.epochs))

    @property
    def _n_features_out(self) -> int:
        """The number of features, for scikit-learn to name them."""
        return self.weights_["fc.weight"].shape[1]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _unscaled(channels: int) -> dict[str, np.ndarray]:
    """Gives the mean and std of a `ResNet` whose images are normalized before it gets them."""
    return {"mean": np.zeros(channels), "std": np.ones(channels)}
