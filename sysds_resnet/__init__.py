"""ResNet-50 trained with LARS on Apache SystemDS."""

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.resnet import ResNet

__all__ = ["Engine", "ResNet", "UserError"]
__version__ = "0.1.0"
