"""The engine room: JVM, py4j, settings; the only door to SystemDS."""

from sysds_resnet.engine.session import Engine

__all__ = ["Engine"]
