"""The outcomes of an evaluation: scores, scores by class, the confusion matrix, and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sysds_resnet.errors import printable
from sysds_resnet.network.inference import log_softmax
from sysds_resnet.system.csv_cells import to_cell
from sysds_resnet.system.extras import extra
from sysds_resnet.system.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NAMED_CLASSES = 40
"""The most classes for which the picture of the confusion matrix has names and counts."""

WORST_PAIRS = 40
DOT_AREA = 60  # in square points, of the dot for all images of a class
NAME_LENGTH = 20


def rows_of(labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Tabulates the outcomes of N images: label, predicted, top5 (whether the label is among these) and loss.

    Of classes with equal scores, the first ranks highest.

    Args:
        labels: The labels from 0, of shape (N,).
        scores: The scores, of shape (N, K), as `Ensemble.scores` gives them.
    """
    import pandas as pd  # not at the top: commands start sooner without it

    ranking = np.argsort(-scores, axis=1, kind="stable")
    return pd.DataFrame(
        {
            "label": labels,
            "predicted": ranking[:, 0],
            "top5": (ranking[:, :5] == labels[:, None]).any(axis=1),
            "loss": -np.take_along_axis(log_softmax(scores), labels[:, None], axis=1)[:, 0],
        }
    )


class Outcomes:
    """The outcomes of the images of an evaluation: a few numbers for each image, without its scores.

    Args:
        classes: The names of the K classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self._parts: list[pd.DataFrame] = []

    def add(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """Adds images by their labels from 0, of shape (N,), and their scores, of shape (N, K)."""
        self.add_rows(rows_of(labels, scores))

    def add_rows(self, rows: pd.DataFrame) -> None:
        """Adds images by the outcomes that `rows_of` made of them."""
        self._parts.append(rows)

    def scores(self) -> dict[str, float]:
        """Gives the number of "images", their mean cross-entropy "loss", and the shares "top1" and "top5"."""
        table = self._table()
        means = {name: float(table[name].mean()) for name in ("loss", "top1", "top5")}
        return {"images": len(table), **means}

    def confusion(self) -> np.ndarray:
        """Counts the images of each class (rows) that were taken for each class (columns): int64 (K, K)."""
        k = len(self.classes)
        table = self._table()
        pairs = table["label"].to_numpy() * k + table["predicted"].to_numpy()
        return np.bincount(pairs, minlength=k * k).reshape(k, k)

    def by_class(self) -> pd.DataFrame:
        """Gives a table with a row for each class.

        Its columns are class; images, their number; top1 and top5, the shares of hits, which are missing if
        there are no images; mistaken_for, the class that it is most often mistaken for, which is missing if
        there is none; and mistakes, how often that happens.
        """
        groups = self._table().groupby("label")
        table = groups.agg(images=("loss", "size"), top1=("top1", "mean"), top5=("top5", "mean"))
        table = table.reindex(range(len(self.classes))).reset_index(drop=True)
        table["images"] = table["images"].fillna(0).astype(int)
        wrong = self.confusion()
        np.fill_diagonal(wrong, 0)
        mistakes = wrong.max(axis=1)
        names = [self.classes[i] if n else None for i, n in zip(wrong.argmax(axis=1), mistakes, strict=True)]
        table.insert(0, "class", self.classes)
        return table.assign(mistaken_for=names, mistakes=mistakes)

    def _table(self) -> pd.DataFrame:
        import pandas as pd  # not at the top: commands start sooner without it

        self._parts = [pd.concat(self._parts, ignore_index=True)]
        table = self._parts[0]
        return table.assign(top1=table["label"] == table["predicted"])


def write_report(folder: Path, outcomes: Outcomes, details: dict[str, Any]) -> None:
    """Writes scores.json, classes.csv, confusion.csv and confusion.png, all or none of them.

    Args:
        folder: The folder to write into, which is made if it is not there.
        outcomes: The outcomes of all images.
        details: Further entries of scores.json.
    """
    import pandas as pd  # not at the top: commands start sooner without it

    scores = json.dumps({**outcomes.scores(), **details}, indent=2) + "\n"
    matrix, by_class = outcomes.confusion(), outcomes.by_class()
    for name in ("class", "mistaken_for"):
        by_class[name] = by_class[name].map(to_cell, na_action="ignore")
    names = [to_cell(name) for name in outcomes.classes]
    counts = pd.DataFrame(matrix, names, names)
    write_whole(
        {
            folder / "scores.json": lambda path: path.write_text(scores),
            folder / "classes.csv": lambda path: by_class.to_csv(path, index=False),
            folder / "confusion.csv": lambda path: counts.to_csv(path, index_label="class"),
            folder / "confusion.png": lambda path: draw_confusion(matrix, outcomes.classes, path),
        }
    )


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix as a PNG file.

    For up to `NAMED_CLASSES` classes, it is a table of counts with the names of the classes. For more, it is
    dots whose areas are shares of the true class's images, with a list of the most frequent confusions.

    Args:
        matrix: The confusion matrix, of shape (K, K), as `Outcomes.confusion` gives it.
        classes: The names of the K classes.
        path: The file to write.
    """
    with extra("plots", "pictures"):
        from matplotlib.figure import Figure  # the import takes half a second, which --help can do without

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if len(classes) <= NAMED_CLASSES:
        side = 3 + 0.35 * len(classes)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        _draw_fields(axes, matrix, shares, [_short(name) for name in classes])
    else:
        figure = Figure(figsize=(13.5, 10), layout="constrained")
        axes, texts = figure.subplots(1, 2, width_ratios=(10, 3.5))
        _draw_dots(axes, shares)
        texts.axis("off")
        texts.text(0, 1, _worst(matrix, shares, classes), va="top", fontsize=9, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.savefig(path, format="png", dpi=120)


def _draw_fields(axes: Axes, matrix: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.colors import PowerNorm

    # colours follow the square root of the share: otherwise rare confusions could not be told from none
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class's images")
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    for row, column in np.argwhere(matrix):
        colour = "white" if shares[row, column] > 0.3 else "black"
        count = f"{matrix[row, column]}"
        axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=7)


def _draw_dots(axes: Axes, shares: np.ndarray) -> None:
    right = np.eye(len(shares), dtype=bool)
    for label, colour, chosen in (("right", "tab:blue", right), ("wrong", "tab:red", ~right)):
        rows, columns = np.nonzero((shares > 0) & chosen)
        areas = DOT_AREA * shares[rows, columns]
        axes.scatter(columns, rows, areas, colour, alpha=0.6, linewidths=0, label=label)
    for share in (0.02, 0.1, 0.5):
        axes.scatter([], [], DOT_AREA * share, "black", alpha=0.6, linewidths=0, label=f"{100 * share:.0f} %")
    axes.set_xlim(-1, len(shares))
    axes.set_ylim(len(shares), -1)
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, frameon=False)


def _worst(matrix: np.ndarray, shares: np.ndarray, classes: Sequence[str]) -> str:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:WORST_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order if wrong.flat[place]]
    lines = [
        f"{wrong[row, column]} ({100 * shares[row, column]:.0f} %)  "
        f"{_short(classes[row])} → {_short(classes[column])}"
        for row, column in pairs
    ]
    return "\n".join(["Most frequent confusions" if lines else "No confusions", "", *lines])


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
