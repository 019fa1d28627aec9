"""What the native helper computes, in NumPy, and the layouts of its arrays."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def floats(array):
    return np.ascontiguousarray(array, np.float32)


def assert_near(result, expected, bound):
    status, found = result
    assert status >= 0
    assert np.abs(found - expected.reshape(found.shape)).max(initial=0) <= bound * np.abs(expected).max(
        initial=1
    )


def to_pairs(values):
    """bf16 values in pairs, as the helper takes them, with room for whole vectors."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    halves = np.zeros(-(-bits.size // 32) * 32, np.uint16)
    halves[: bits.size] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return halves.view(np.float32)


def from_pairs(pairs, shape):
    """The values of `to_pairs`, in FP32."""
    halves = pairs.view(np.uint16)[: np.prod(shape)]
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(shape)


def windows(x, s):
    """What each output of a convolution sees, of shape (N, P, Q, C, R, S)."""
    after = [(s.P - 1) * s.stride_h + s.R - s.H - s.pad_h, (s.Q - 1) * s.stride_w + s.S - s.W - s.pad_w]
    padded = np.pad(x, [(0, 0), (0, 0), (s.pad_h, max(after[0], 0)), (s.pad_w, max(after[1], 0))])
    seen = sliding_window_view(padded, (s.R, s.S), (2, 3))[:, :, :: s.stride_h, :: s.stride_w]
    return seen[:, :, : s.P, : s.Q].transpose(0, 2, 3, 1, 4, 5)


def convolution(s, seed=0):
    """Images, filters, gradient wrt the outputs; the outputs, gradients wrt filters and images."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((s.N, s.C, s.H, s.W))
    f = rng.standard_normal((s.K, s.C, s.R, s.S))
    d = rng.standard_normal((s.N, s.K, s.P, s.Q))
    out = np.einsum("npqcrs,kcrs->nkpq", windows(x, s), f)
    df = np.einsum("npqcrs,nkpq->kcrs", windows(x, s), d)
    size = (s.H + s.pad_h + s.R + s.stride_h * s.P, s.W + s.pad_w + s.S + s.stride_w * s.Q)
    dx = np.zeros((s.N, s.C, *size))
    for r in range(s.R):
        for c in range(s.S):
            rows = slice(r, r + s.stride_h * s.P, s.stride_h)
            columns = slice(c, c + s.stride_w * s.Q, s.stride_w)
            dx[:, :, rows, columns] += np.einsum("nkpq,kc->ncpq", d, f[:, :, r, c])
    return x, f, d, out, df, dx[:, :, s.pad_h : s.pad_h + s.H, s.pad_w : s.pad_w + s.W]


def pixel_major(images):
    return floats(images.transpose(0, 2, 3, 1).reshape(-1, images.shape[1]))


def filters(f):
    return floats(f.transpose(2, 3, 1, 0).reshape(-1, f.shape[0]))
