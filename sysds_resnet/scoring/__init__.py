"""The scoring of images by one or several networks: evaluations and predictions.

It never changes a weight.
"""

from sysds_resnet.scoring.ensemble import Ensemble
from sysds_resnet.scoring.outcomes import Outcomes, write_report

__all__ = ["Ensemble", "Outcomes", "write_report"]
