"""The engine that tests of operators share."""

import pytest

from sysds_resnet.engine import Engine


@pytest.fixture(scope="module")
def engine_bf16():
    """An engine that keeps activations in bf16, on any processor; its products are FP32."""
    with Engine("single", heap=2**30) as engine:
        if engine.storage != "fp32":
            pytest.skip("no native helper")
        engine._programs.storage = "bf16"
        yield engine
