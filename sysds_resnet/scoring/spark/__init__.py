"""The scoring on a Spark cluster, whose executors each hold the networks.

It adds no way of scoring of its own.
"""

from sysds_resnet.scoring.spark.driver import predictor

__all__ = ["predictor"]
