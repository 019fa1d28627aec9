"""ResNet-50 trained with LARS on Apache SystemDS."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sysds_resnet.errors import UserError

if TYPE_CHECKING:
    from sysds_resnet.engine import Engine
    from sysds_resnet.report.callbacks import Callback
    from sysds_resnet.resnet import ResNet

__all__ = ["Callback", "Engine", "ResNet", "UserError"]
__version__ = "0.1.0"

_MODULES = {
    "Callback": "sysds_resnet.report.callbacks",
    "Engine": "sysds_resnet.engine",
    "ResNet": "sysds_resnet.resnet",
}


def __getattr__(name: str) -> type:
    """Imports a class when it is first asked for: processes that read images start sooner without it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_MODULES[name]), name)
    return found
