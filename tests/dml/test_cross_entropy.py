"""The loss and the hits in DML against PyTorch and NumPy, in every way that they run."""

import numpy as np
import pytest
import torch
from dml_runner import assert_close
from torch.nn import functional

LOSS = 'source("dml/layers/cross_entropy.dml") as loss\n'


def random(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("n", "classes", "scale"), [(1, 2, 1.0), (7, 10, 1.0), (64, 1000, 1.0), (5, 10, 1e3)]
)
def test_cross_entropy_and_its_gradient(dml, n, classes, scale, label_smoothing):
    logits = (random(n, classes) * scale).requires_grad_()
    y = torch.from_numpy(np.random.default_rng(1).integers(0, classes, n))
    y[0], y[-1] = 0, classes - 1
    expected = functional.cross_entropy(logits, y, label_smoothing=label_smoothing, reduction="sum")
    expected.backward()
    log_p, loss, d_logits = dml(
        LOSS
        + """Y = loss::targets(y, num_classes, label_smoothing)
        log_p = loss::log_softmax(logits)
        loss = loss::forward(log_p, Y)
        d_logits = loss::backward(log_p, Y)
        """,
        "log_p loss:double d_logits",
        logits=logits.detach().numpy(),
        y=y.numpy()[:, None] + 1.0,
        num_classes=classes,
        label_smoothing=label_smoothing,
    )
    assert_close(log_p, logits.detach().log_softmax(dim=1))
    assert_close(loss, expected.item())
    assert_close(d_logits, logits.grad)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_of_mixed_labels(dml, label_smoothing):
    rng = np.random.default_rng(1)
    logits = random(40, 10).requires_grad_()
    own, other, share = rng.integers(0, 10, 40), rng.integers(0, 10, 40), rng.random(40)
    own[:3], share[:3] = other[:3], (0, 1, 0.5)
    identity = np.eye(10)
    mixed = torch.from_numpy(identity[own] * share[:, None] + identity[other] * (1 - share[:, None]))
    expected = functional.cross_entropy(logits, mixed, label_smoothing=label_smoothing, reduction="sum")
    expected.backward()
    loss, d_logits, hits = dml(
        LOSS
        + """Y = loss::targets(y, 10, label_smoothing)
        log_p = loss::log_softmax(logits)
        loss = loss::forward(log_p, Y)
        d_logits = loss::backward(log_p, Y)
        h = loss::hits(logits, y, 1)
        """,
        "loss:double d_logits h:double",
        logits=logits.detach().numpy(),
        y=np.column_stack([own + 1, other + 1, share]),
        label_smoothing=label_smoothing,
    )
    assert_close(loss, expected.item())
    assert_close(d_logits, logits.grad)
    assert hits == (logits.argmax(dim=1) == mixed.argmax(dim=1)).sum()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_of_weighted_images(dml, label_smoothing):
    rng = np.random.default_rng(1)
    logits = random(40, 10).requires_grad_()
    y, weights = torch.from_numpy(rng.integers(0, 10, 40)), torch.from_numpy(rng.exponential(size=40))
    weights[:3] = torch.tensor([0.0, 1.0, 1000.0])
    each = functional.cross_entropy(logits, y, label_smoothing=label_smoothing, reduction="none")
    (each * weights).sum().backward()
    loss, d_logits, hits = dml(
        LOSS
        + """Y = loss::targets(y, 10, label_smoothing)
        log_p = loss::log_softmax(logits)
        loss = loss::forward(log_p, Y)
        d_logits = loss::backward(log_p, Y)
        h = loss::hits(logits, y, 1)
        """,
        "loss:double d_logits h:double",
        logits=logits.detach().numpy(),
        y=np.column_stack([y + 1, weights]),
        label_smoothing=label_smoothing,
    )
    assert_close(loss, (each * weights).sum().item())
    assert_close(d_logits, logits.grad)
    assert hits == (logits.argmax(dim=1) == y).sum()


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (200, 10), (300, 1000)])
def test_hits_are_those_of_a_stable_ranking(dml, n, classes, k, ties):
    """Of equal scores the class with the lower number comes first, as with argmax."""
    logits = random(n, classes).numpy()
    if ties:
        logits = np.round(2 * logits)
    y = np.random.default_rng(1).integers(0, classes, n)
    y[::2] = np.argsort(-logits, axis=1, kind="stable")[::2, min(k, classes) - 1]  # on the edge
    first = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    hits = dml(
        LOSS + "h = loss::hits(logits, y, k)\n",
        "h:double",
        logits=logits,
        y=y[:, None] + 1.0,
        k=k,
    )
    assert hits == (first == y[:, None]).any(axis=1).sum()
    if k == 1:
        assert hits == (logits.argmax(axis=1) == y).sum()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_no_hits(dml, value):
    logits = np.full((3, 10), value)
    logits[2] = np.arange(10)
    hits = dml(LOSS + "h = loss::hits(logits, y, 5)\n", "h:double", logits=logits, y=np.full((3, 1), 10.0))
    assert hits == 1
