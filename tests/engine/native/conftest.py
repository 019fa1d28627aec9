"""The native helper in each precision, for the tests that call it without a JVM."""

import pytest
from native_library import load

from sysds_resnet.engine.jvm import multiply


@pytest.fixture(params=["single", "bf16"])
def precision(request):
    if request.param == "bf16" and not multiply.has_bf16():
        pytest.skip("no bf16 in this CPU")
    return request.param


@pytest.fixture
def helper(precision):
    found = load(precision)
    yield found
    found.pins_that_fail = set()
