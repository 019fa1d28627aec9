"""What tests may not leave changed in their process, since other tests would meet it."""

import os
import signal
import sys

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


class Untouched:
    """The state of this process as it was when each part of it was first seen.

    Parts are the environment, the working folder, the search path, handlers of signals, what pyspark replaces
    in py4j, and all names in the modules of this package.
    """

    def __init__(self):
        self._environment = _environment()
        self._state = {}
        self.learn()

    def learn(self):
        """Takes modules that were imported since as they are now."""
        self._state = _state() | self._state

    def changes(self):
        """Names of what is another now than it was; each is told once."""
        environment, state = _environment(), _state()
        names = sorted(self._environment.items() ^ environment.items())
        changed = [f"the variable {name} of the environment" for name in dict(names)]
        changed += [name for name, value in self._state.items() if not _same(value, state.get(name))]
        self._environment, self._state = environment, state
        return changed


def _environment():
    return {name: value for name, value in os.environ.items() if name not in _SET_BY_OTHERS}


def _state():
    state = {
        "the working folder": os.getcwd(),
        "sys.path": tuple(folder for folder in sys.path if _OF_A_SESSION not in folder),
        "get_return_value of py4j": java_gateway.get_return_value,
        **{f"the handler of {number.name}": signal.getsignal(number) for number in _SIGNALS},
    }
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "sysds_resnet":
            state |= {f"{module_name}.{name}": value for name, value in vars(module).items()}
    return state


def _same(before, after):
    return before is after or (isinstance(before, (str, tuple)) and before == after)
