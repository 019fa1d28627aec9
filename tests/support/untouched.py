"""What tests may not leave changed in their process, since other tests would meet it."""

import functools
import os
import signal
import sys
from operator import is_

from py4j import java_gateway

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Set by pytest for each test, by scikit-learn when it is imported, as by the data set digits, and by pyspark
# while a session runs; so is a folder of the session's in the search path.
_SET_BY_OTHERS = {
    *("PYTEST_CURRENT_TEST", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),
    *("SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE"),
    *("TF_CPP_MIN_LOG_LEVEL", "TPU_SKIP_MDS_QUERY"),  # by JAX, which optax imports
}
_OF_A_SESSION = "userFiles-"
_COMING = (_OF_A_SESSION, "setuptools/_vendor")  # the second when setuptools is imported, as pyspark does


class Untouched:
    """The state of this process as it was when each part of it was first seen.

    Parts are the environment, the working folder, the search path, handlers of signals, what pyspark replaces
    in py4j, and all names in the modules of this package.
    """

    def __init__(self):
        self._state = _state()
        self._modules = {}
        self.learn()

    def learn(self):
        """Takes modules, and names in them, that are new since as they are now."""
        for module_name, module in _modules():
            if len(self._modules.get(module_name, ())) != len(vars(module)):
                self._modules[module_name] = vars(module) | self._modules.get(module_name, {})

    def changes(self):
        """Names of what is another now than it was; each is told once."""
        state = _state()
        names = [name for name in sorted(state | self._state) if state.get(name) != self._state.get(name)]
        self._state = state
        for module_name, module in _modules():
            before, now = self._modules.get(module_name, {}), vars(module)
            # object by object in C: thousands of names are looked at after each of thousands of tests
            if len(before) == len(now) and all(map(is_, before.values(), now.values())):
                continue
            names += [
                f"{module_name}.{name}" for name in before if not _same(before[name], now.get(name, self))
            ]
            self._modules[module_name] = dict(now)
        return names


@functools.lru_cache(maxsize=1)
def _module_names(_count):
    return [name for name in sys.modules if name.partition(".")[0] == "sysds_resnet"]


def _modules():
    # thousands of modules are imported in a run of all tests, most of them PyTorch's
    names = _module_names(len(sys.modules))
    return [(name, sys.modules[name]) for name in names if name in sys.modules]


def _state():
    return {
        "the working folder": os.getcwd(),
        "sys.path": tuple(folder for folder in sys.path if not any(part in folder for part in _COMING)),
        "get_return_value of py4j": java_gateway.get_return_value,
        **{f"the handler of {number.name}": signal.getsignal(number) for number in _SIGNALS},
        **{
            f"the variable {name} of the environment": value
            for name, value in os.environ.items()
            if name not in _SET_BY_OTHERS
        },
    }


def _same(before, after):
    return before is after or (isinstance(before, (str, tuple)) and before == after)
