"""The engines that a process keeps: one for the same options, another one where the first is of no use."""

import os

import pytest
from refusals import message

from sysds_resnet.engine import Engine, of_process
from sysds_resnet.engine.of_process import engine_of_process

SMALL = {"heap": 2**29}


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """The engines that were opened; none from before, and none afterwards."""
    opened = []

    def open_engine(*options, **more):
        opened.append(Engine(*options, **more))
        return opened[-1]

    monkeypatch.setattr(of_process, "_engines", {})
    monkeypatch.setattr(of_process, "Engine", open_engine)
    yield opened
    for engine in opened:
        engine.close()


def product(engine):
    return engine.run("y = 6 * 7", {}, {"y": "int"})["y"]


def test_the_same_options_give_the_same_engine(opened):
    first = engine_of_process(**SMALL)
    assert engine_of_process(**SMALL) is first and opened == [first]
    assert product(first) == 42
    one_thread = engine_of_process(threads=1, **SMALL)
    assert (one_thread is first, one_thread.threads) == (False, 1)
    assert engine_of_process(**SMALL) is first


@pytest.mark.long
def test_another_engine_takes_the_place_of_one_that_is_closed_or_has_ended():
    closed = engine_of_process(**SMALL)
    closed.close()
    killed = engine_of_process(**SMALL)
    assert killed is not closed and product(killed) == 42
    killed._owned.process.kill()
    assert "JVM" in message(product, killed)
    third = engine_of_process(**SMALL)
    assert third is not killed and product(third) == 42


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_has_an_engine_of_its_own():
    parents = engine_of_process(**SMALL)
    child = os.fork()
    if not child:
        own = None
        try:
            own = engine_of_process(**SMALL)
            right = own is not parents and product(own) == 42 and engine_of_process(**SMALL) is own
        finally:
            if own is not None:
                own.close()
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert engine_of_process(**SMALL) is parents and product(parents) == 42


def test_options_that_the_engine_refuses_are_one_line_and_leave_nothing(opened):
    assert "heap: found 7, expected at least" in message(engine_of_process, heap=7)
    assert "precision: found 'half', expected" in message(engine_of_process, precision="half")
    assert opened == [] and of_process._engines == {}
