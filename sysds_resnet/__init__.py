"""ResNet-50 trained with LARS on Apache SystemDS."""

__version__ = "0.1.0"
