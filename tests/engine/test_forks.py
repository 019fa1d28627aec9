"""Processes that are forked from one with an engine: what is open stays its own."""

import copy
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import psutil
import pytest
from py4j.protocol import Py4JNetworkError

from sysds_resnet import ResNet
from sysds_resnet.batches.readers import Readers
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.system import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
FOUND = (
    "engine: found a process forked from the one that opened it, expected that one; open it in each worker, "
)


@pytest.fixture(scope="module")
def model(engine):
    return ResNet(18, num_classes=3, engine=engine)


IMAGES = np.zeros((1, 32, 32, 3), np.uint8)


def in_child(work):
    """What a function gives in a forked process, which ends as Python does."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(text)


def error_of(call, *arguments):
    try:
        return repr(call(*arguments))
    except UserError as error:
        return str(error)


def test_a_child_gets_one_line_from_whatever_it_calls(model, engine):
    matrix = engine.from_numpy(np.ones((2, 2)))
    calls = [
        (model.logits, IMAGES),
        (model.predict, IMAGES),
        (model.state_dict,),
        (engine.run, "y = 1", {}, {"y": "int"}),
        (engine.from_numpy, IMAGES[0, 0]),
        (engine.to_numpy, matrix),
        (engine.make_list, [matrix]),
        (engine.heap_used,),
    ]
    for text in in_child(lambda: [error_of(*call) for call in calls]):
        assert text.startswith(FOUND) and "\n" not in text
    assert model.predict(IMAGES).shape == (1,)


def test_locks_that_other_threads_hold_at_the_fork_stop_no_child(model, engine):
    held, done = threading.Event(), threading.Event()

    def hold():
        with engine.alone(), engine._transfer._lock, engine._opener._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        text = in_child(lambda: [error_of(model.predict, IMAGES), error_of(engine.close)])
    finally:
        done.set()
        thread.join()
    assert text[0].startswith(FOUND) and text[1] == "None"


def test_what_a_child_closes_or_lets_go_stays(model, engine):
    matrix = engine.from_numpy(np.arange(4.0).reshape(2, 2))
    handles = [matrix]

    def work():
        handles.clear()
        engine.close()
        engine._owned.process.kill()
        return "done"

    assert in_child(work) == "done"
    assert engine._owned.folder.is_dir()
    np.testing.assert_array_equal(engine.to_numpy(matrix), [[0, 1], [2, 3]])


def test_garbage_of_a_child_is_not_collected_in_the_jvm(engine):
    """Python may collect it before it tells anybody that this is a child."""
    client, matrix = engine._gateway._gateway_client, engine.from_numpy(np.ones((2, 2)))

    def work():
        client.is_connected = True  # as if nobody had been told
        client.garbage_collect_object(matrix._target_id)
        try:
            client.send_command("c\n")
        except Py4JNetworkError as error:
            return str(error)

    assert in_child(work) == "Gateway belongs to another process."
    assert engine.to_numpy(matrix).sum() == 4


def predict(_):
    return MODELS[0].predict(IMAGES).tolist()


MODELS = []


def test_a_pool_of_forked_workers_says_what_is_wrong(model):
    MODELS[:] = [model]
    with multiprocessing.get_context("fork").Pool(2) as pool, pytest.raises(UserError, match=FOUND):
        pool.map_async(predict, range(4)).get(timeout=60)
    assert model.predict(IMAGES).shape == (1,)


@pytest.mark.long
def test_children_that_end_as_programs_do_leave_the_model_alone(narrow_package):
    """With finalizers, atexit and the garbage collector, which a test's own process must be spared."""
    program = """
        import gc, os, sys, numpy
        from sysds_resnet.engine import Engine
        from sysds_resnet import ResNet
        model = ResNet(18, num_classes=3, engine=Engine(heap=2**29))
        images = numpy.zeros((1, 32, 32, 3), numpy.uint8)
        before = model.logits(images)
        for end in (lambda: None, sys.exit, lambda: (globals().pop('model'), gc.collect())):
            child = os.fork()
            if not child:
                end()
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
            assert (model.logits(images) == before).all()
        with model.engine:
            if not os.fork():
                sys.exit()
            os.wait()
            assert (model.logits(images) == before).all()
        print("still there")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=narrow_package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("still there\n", "", 0)


def test_the_jvm_ends_with_its_parent_though_forked_children_live_on():
    program = """
        import json, os, time
        from sysds_resnet.engine import Engine
        engine = Engine(heap=2**29)
        child = os.fork()
        if child:
            print(json.dumps([engine._owned.process.pid, child, str(engine._owned.folder)]), flush=True)
        time.sleep(120)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    jvm, child, folder = json.loads(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs([psutil.Process(jvm)] if psutil.pid_exists(jvm) else [], timeout=20)
        assert not alive
        assert psutil.pid_exists(child)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
        subprocess.run(["rm", "-rf", folder], check=True)


def test_a_child_may_open_an_engine_of_its_own(model):
    def work():
        with Engine(heap=2**29, blas="none", fused=False) as own:
            return own.run("y = 6 * 7", {}, {"y": "int"})["y"]

    assert in_child(work) == 42
    assert model.predict(IMAGES).shape == (1,)


def test_a_child_leaves_readers_and_their_processes_alone(source):
    dataset = open_dataset(source, "train", image_size=32)
    with Readers([dataset], 1) as readers:

        def read():
            return len(readers.submit(dataset, np.arange(2), 0, False).result(timeout=60).images)

        assert read() == 2
        text, closed = in_child(lambda: [error_of(read), error_of(readers.close)])
        assert (
            text.startswith("readers: found a process forked from the one that opened it")
            and closed == "None"
        )
        assert read() == 2


def test_an_engine_cannot_be_sent_to_another_process(model):
    for call in (pickle.dumps, copy.deepcopy):
        with pytest.raises(UserError, match=r"^engine: found an attempt to copy it or to send it to another"):
            call(model)


def test_what_was_opened_is_told_of_a_fork_unless_it_is_gone():
    class Thing:
        told = 0

        def disown(self):
            self.told += 1

    thing, other = Thing(), Thing()
    forks.register(thing)
    forks.register(other)
    del other
    assert in_child(lambda: thing.told) == 1 and thing.told == 0
