"""The package's only interface to SystemDS: it starts the JVM, runs DML programs, and moves matrices."""

from sysds_resnet.engine.session import Engine

__all__ = ["Engine"]
