"""The native helper without a JVM: its functions by ctypes, with NumPy arrays in the place of Java's."""

import ctypes
import os
import shutil
import tempfile
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int32, c_int64, c_uint8, c_void_p
from dataclasses import astuple, dataclass
from functools import cache

import numpy as np

from sysds_resnet.engine.jvm import multiply

# Entries of JNI's function table, https://docs.oracle.com/en/java/javase/17/docs/specs/jni/functions.html
GET_OBJECT_CLASS, GET_METHOD_ID, CALL_OBJECT_METHOD = 31, 33, 36
GET_ARRAY_LENGTH, PIN, UNPIN = 171, 222, 223
ENTRIES = 233
PRECISION = "SYSDS_RESNET_PRECISION"
SANITIZED = "SYSDS_RESNET_SANITIZED_HELPER"  # a library to test in the place of the installed one
LIBRARY = os.environ.get(SANITIZED) or multiply.helper_library()


class _Env(ctypes.Structure):
    _fields_ = (("table", POINTER(c_void_p)),)


@dataclass
class Shape:
    """A convolution in the engine's terms: K filters of C x R x S, outputs P x Q."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    P: int = -1
    Q: int = -1

    def __post_init__(self):
        if self.P < 0:
            self.P = (self.H + 2 * self.pad_h - self.R) // self.stride_h + 1
            self.Q = (self.W + 2 * self.pad_w - self.S) // self.stride_w + 1


class Helper:
    """The functions of a compiled helper, which multiplies in `precision`.

    Handles of arrays are numbers from 1; 0 is null. `pins_that_fail` are handles for which the JVM, as it
    may, gives null in place of a pointer.
    """

    def __init__(self, path, precision="single"):
        ctypes.CDLL(str(multiply.onednn()), mode=ctypes.RTLD_GLOBAL)
        before = os.environ.get(PRECISION)
        os.environ[PRECISION] = precision  # is read as the library is loaded, so each needs a copy of its own
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._library = ctypes.CDLL(shutil.copy(path, folder))
        finally:
            if before is None:
                del os.environ[PRECISION]
            else:
                os.environ[PRECISION] = before
        self.arrays, self.pinned, self.pins_that_fail = [], [], set()
        entries = {
            GET_OBJECT_CLASS: CFUNCTYPE(c_void_p, c_void_p, c_void_p)(lambda env, thing: 1),
            GET_METHOD_ID: CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_char_p, c_char_p)(lambda *_: 1),
            CALL_OBJECT_METHOD: CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)(
                lambda env, thing, method, arguments: thing
            ),
            GET_ARRAY_LENGTH: CFUNCTYPE(c_int32, c_void_p, c_void_p)(
                lambda env, handle: self.arrays[handle - 1].size
            ),
            PIN: CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p)(self._pin),
            UNPIN: CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_int32)(self._unpin),
        }
        self._kept = entries
        table = (c_void_p * ENTRIES)(*(None for _ in range(ENTRIES)))
        for number, function in entries.items():
            table[number] = ctypes.cast(function, c_void_p).value
        self._table = table
        self._env = _Env(ctypes.cast(table, POINTER(c_void_p)))

    def _pin(self, _env, handle, _is_copy):
        if handle in self.pins_that_fail:
            return None
        self.pinned.append(handle)
        return self.arrays[handle - 1].ctypes.data

    def _unpin(self, _env, handle, _data, _mode):
        self.pinned.remove(handle)

    def call(self, name, *arguments):
        """Call a function of the engine's NativeHelper and give what it returns; no array stays pinned."""
        self.arrays = [argument for argument in arguments if isinstance(argument, np.ndarray)]
        handles = iter(range(1, len(arguments) + 1))  # of arrays, in their order
        passed = []
        for argument in arguments:
            if argument is None:
                passed.append(c_void_p(None))
            elif isinstance(argument, np.ndarray):
                assert argument.flags.c_contiguous
                passed.append(c_void_p(next(handles)))
            elif isinstance(argument, bool):
                passed.append(c_uint8(argument))
            else:
                passed.append(c_int32(argument))
        function = self._library[f"Java_org_apache_sysds_utils_NativeHelper_{name}"]
        function.restype = c_int64
        status = function(byref(self._env), None, *passed)
        assert not self.pinned
        return status

    def multiply(self, a, b, threads=2):
        """A %*% B of FP64."""
        out = np.full((a.shape[0], b.shape[1]), 7.0)
        return self.call("dmmdd", a, b, out, a.shape[0], a.shape[1], b.shape[1], threads), out

    def tsmm(self, x, left, threads=2):
        """t(X) %*% X, or X %*% t(X), of FP64."""
        size = x.shape[1] if left else x.shape[0]
        out = np.full((size, size), 7.0)
        return self.call("tsmm", x, out, *x.shape, left, threads), out

    def convolve(self, name, first, second, out_shape, shape, threads=2, bias=None):
        """One of the engine's convolutions on FP64 in its (N, C*H*W) layout."""
        out = np.full(out_shape, 7.0)
        arrays = (first, second) if bias is None else (first, bias, second)
        return self.call(name, *arrays, out, *astuple(shape), threads), out

    def pixels(self, images, gradient, filters, out_shape, shape, threads=2):
        """What the package's operators call, on FP32, pixel-major: the gradient of what is None."""
        out = np.full(out_shape, 7.0, np.float32)
        return self.call("sconv2dBiasAddDense", images, gradient, filters, out, *astuple(shape), threads), out

    def run_pass(self, number, operands, result, sizes, size, window=(1, 1), threads=2, numbers=()):
        """A pass (passes.h) over N x C x H x W values of `size` bytes, or a pool with window and stride."""
        given = (*operands, None, None)[:3]
        kernel, stride, *bits = [*window, 0, 0, 1, 1]
        if len(numbers):
            kernel, stride, *bits = np.asarray(numbers, np.float64).view(np.int32).tolist()
        shape = (*sizes, kernel, -1, number, size, stride, *bits)
        return self.call("sconv2dBiasAddDense", *given, result, *shape, threads)


load = cache(lambda precision: Helper(LIBRARY, precision))
