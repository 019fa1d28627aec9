"""py4j's way into the engine's JVM, by a Unix-domain socket (PrivateGateway.java)."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from pathlib import Path

from py4j.finalizer import ThreadSafeFinalizer
from py4j.java_gateway import GatewayClient, GatewayConnection, GatewayParameters, JavaGateway
from py4j.protocol import Py4JNetworkError

MAX_PATH = 107  # bytes in the name of such a socket, as Linux has it


class PrivateGateway(JavaGateway):
    """A py4j gateway.

    Args:
        path: Of the socket.
        token: What a connection must send first.
        process: Number of the JVM's process, by which py4j tells its objects from those of other JVMs.
    """

    def __init__(self, path: Path, token: bytes, process: int) -> None:
        self._place = path, token
        super().__init__(gateway_parameters=GatewayParameters(address=str(path), port=process))

    def _create_gateway_client(self) -> GatewayClient:
        return _Client(*self._place, self.gateway_parameters)

    def disown(self) -> None:
        """Lets go of all that a forked process has of it, without a word to the JVM."""
        self._gateway_client.disown()


class _Client(GatewayClient):
    """Connections to a JVM, as many as threads talk to it at a time."""

    def __init__(self, path: Path, token: bytes, parameters: GatewayParameters) -> None:
        super().__init__(gateway_parameters=parameters)
        self._path, self._token = path, token
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._pid = os.getpid()

    def garbage_collect_object(self, target_id: str) -> None:
        """Lets an object in the JVM go, unless a forked process lets go of its copy of the handle.

        Python may collect garbage there before it calls `disown`.
        """
        if os.getpid() == self._pid:
            super().garbage_collect_object(target_id)

    def _get_connection(self) -> GatewayConnection:
        if os.getpid() != self._pid:
            raise Py4JNetworkError("Gateway belongs to another process.")
        return super()._get_connection()

    def _create_connection(self) -> GatewayConnection:
        connection = _Connection(self._path, self._token, self.gateway_parameters, self.gateway_property)
        self._connections.add(connection)
        connection.start()
        return connection

    def disown(self) -> None:
        """As of `PrivateGateway`."""
        self.is_connected = False
        mine = f"{self.address}{self.port}"  # how py4j's names of its objects begin
        for name in [name for name in ThreadSafeFinalizer.finalizers if name.startswith(mine)]:
            del ThreadSafeFinalizer.finalizers[name]
        for connection in list(self._connections):
            connection.disown()


class _Connection(GatewayConnection):
    """A connection to a JVM."""

    def __init__(self, path: Path, token: bytes, parameters: GatewayParameters, properties: object) -> None:
        # py4j's own would look up a host
        self.gateway_parameters, self.gateway_property = parameters, properties
        self.address, self.port = parameters.address, parameters.port
        self.auto_close = parameters.auto_close
        self.is_connected = False
        self._path, self._token = path, token
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """Connects."""
        try:
            self.socket.connect(str(self._path))
            self.socket.sendall(self._token)
        except OSError as error:
            self.socket.close()
            raise Py4JNetworkError(f"cannot connect to {self._path}", error) from error
        self.stream = self.socket.makefile("rb")
        self.is_connected = True

    def disown(self) -> None:
        """Closes a forked process's copy, without ending the connection."""
        self.is_connected = False
        with contextlib.suppress(OSError):
            os.close(self.socket.detach())


if hasattr(os, "register_at_fork"):
    # a thread that held it when a process was forked would hold it there for ever
    lock = ThreadSafeFinalizer.lock
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
