"""Running pieces of DML on NumPy arrays, and the engine's layouts."""

import numpy as np

from sysds_resnet.engine.program import Program


class Dml:
    """Runs DML in one of three modes.

    Sizes that the compiler does not know (inputs) or knows (literals) give different programs: rewrites
    and operators are chosen by size where it is known. Fused, the operators over activations are the
    package's own, and nothing else is planned by size.
    """

    def __init__(self, engine, mode="sizes_unknown"):
        self.engine = engine
        self.mode = mode

    def __call__(self, program, outputs, **inputs):
        """Return the outputs, named in one string ("out loss:double"), as arrays or numbers."""
        kinds = dict([*item.split(":"), "matrix"][:2] for item in outputs.split())
        if self.mode == "sizes_known":
            literals = ""
            for name, value in list(inputs.items()):
                if isinstance(value, np.ndarray):
                    rows, cols = value.shape
                    inputs[f"{name}_in"] = inputs.pop(name)
                    literals += f"{name} = matrix({name}_in, rows={rows}, cols={cols})\n"
                elif isinstance(value, (bool, int, float)):
                    inputs.pop(name)
                    literals += f"{name} = {repr(value).upper()}\n"  # TRUE, 1E-05
            program = literals + program
        results = self.engine.run(
            Program(program, kinds, "host" if self.mode == "fused" else "plain"), inputs
        )
        values = [
            self.engine.to_numpy(results[name]) if kind == "matrix" else results[name]
            for name, kind in kinds.items()
        ]
        return values[0] if len(values) == 1 else values


def pixel_major(images):
    """(N, C, H, W) to (N*H*W, C)."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(images), 1, 3)).reshape(-1, images.shape[1])


def to_engine(array):
    """A tensor of a state dict in the engine's layout."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T if array.ndim == 2 else array.reshape(1, -1)


def assert_close(actual, expected, tolerance=1e-12):
    """Check that no element is off by more than the tolerance times the largest expected magnitude."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max() or 1.0
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f"off by {error:.2e} of the largest element, more than {tolerance:.0e}"
