"""The connection of py4j to the engine's JVM by a Unix-domain socket, where PrivateGateway.java listens."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from pathlib import Path

from py4j.finalizer import ThreadSafeFinalizer
from py4j.java_gateway import GatewayClient, GatewayConnection, GatewayParameters, JavaGateway
from py4j.protocol import Py4JNetworkError

MAX_PATH = 107  # bytes that the path of such a socket may have on Linux


class PrivateGateway(JavaGateway):
    """A py4j gateway at a Unix-domain socket.

    Args:
        path: The path of the socket.
        token: The bytes that a connection must send first.
        process: The number of the JVM's process, by which py4j tells this JVM's objects from those of others.
    """

    def __init__(self, path: Path, token: bytes, process: int) -> None:
        self._place = path, token
        super().__init__(gateway_parameters=GatewayParameters(address=str(path), port=process))

    def _create_gateway_client(self) -> GatewayClient:
        return _Client(*self._place, self.gateway_parameters)

    def disown(self) -> None:
        """Drops all copies that a forked process has of the gateway, and sends nothing to the JVM."""
        self._gateway_client.disown()


class _Client(GatewayClient):
    """The connections to a JVM, as many as threads that talk to it at a time."""

    def __init__(self, path: Path, token: bytes, parameters: GatewayParameters) -> None:
        super().__init__(gateway_parameters=parameters)
        self._path, self._token = path, token
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._pid = os.getpid()

    def garbage_collect_object(self, target_id: str) -> None:
        """Frees an object in the JVM, unless it is a forked process that drops its copy of the handle.

        Python may collect garbage in a forked process before it calls `disown`.
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
        """Drops the copies of connections and handles that a forked process has."""
        self.is_connected = False
        mine = f"{self.address}{self.port}"  # how py4j's names of this JVM's objects begin
        for name in [name for name in ThreadSafeFinalizer.finalizers if name.startswith(mine)]:
            del ThreadSafeFinalizer.finalizers[name]
        for connection in list(self._connections):
            connection.disown()


class _Connection(GatewayConnection):
    """A connection to a JVM."""

    def __init__(self, path: Path, token: bytes, parameters: GatewayParameters, properties: object) -> None:
        # py4j's own constructor would look up a host
        self.gateway_parameters, self.gateway_property = parameters, properties
        self.address, self.port = parameters.address, parameters.port
        self.auto_close = parameters.auto_close
        self.is_connected = False
        self._path, self._token = path, token
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """Connects to the socket and sends the token."""
        try:
            self.socket.connect(str(self._path))
            self.socket.sendall(self._token)
        except OSError as error:
            self.socket.close()
            raise Py4JNetworkError(f"cannot connect to {self._path}", error) from error
        self.stream = self.socket.makefile("rb")
        self.is_connected = True

    def disown(self) -> None:
        """Closes a forked process's copy of the socket, without ending the connection."""
        self.is_connected = False
        with contextlib.suppress(OSError):
            os.close(self.socket.detach())


if hasattr(os, "register_at_fork"):
    # otherwise, if a thread held the lock at a fork, it would be held in the forked process for ever
    lock = ThreadSafeFinalizer.lock
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
