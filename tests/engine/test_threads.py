"""One model, and several on one engine, used by several threads at a time."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sysds_resnet import ResNet
from sysds_resnet.errors import UserError

CLASSES = 3
N = 24


@pytest.fixture(scope="module")
def models(engine):
    """Two models of other weights and another normalization; no test changes them."""
    return [
        ResNet(18, CLASSES, seed=1, engine=engine),
        ResNet(18, CLASSES, seed=2, engine=engine, mean=[90, 100, 110], std=[50, 60, 70]),
    ]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)


def at_once(threads, tasks):
    """Results of functions without arguments, in their order, computed by as many threads."""
    barrier = threading.Barrier(threads)

    def work(tasks):
        barrier.wait()
        return [task() for task in tasks]

    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(work, [tasks[i::threads] for i in range(threads)]))
    return [shares[i % threads][i // threads] for i in range(len(tasks))]


@pytest.mark.parametrize("threads", [2, 8])
def test_each_thread_gets_the_scores_of_its_own_images(models, images, threads):
    expected = [models[i % 2].logits(images[i : i + 1]) for i in range(N)]
    tasks = [lambda i=i: models[i % 2].logits(images[i : i + 1]) for i in range(N)]
    for found, right in zip(at_once(threads, tasks), expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_other_calls_may_be_made_at_the_same_time(models, images, engine):
    model, labels = models[0], np.arange(4) % CLASSES
    sent = model.send(images[:4])
    array = np.arange(12.0).reshape(3, 4)

    def double():
        return engine.to_numpy(engine.run("Y = X * 2", {"X": array}, {"Y": "matrix"})["Y"])

    tasks = [
        lambda: model.evaluate(images[:4], labels),
        lambda: model.evaluate(sent, labels),
        lambda: model.predict(images[4:7], batch_size=2),
        lambda: models[1].state_dict()["fc.bias"],
        double,
        lambda: [engine.to_numpy(item) for item in engine.list_items(engine.make_list([array, array + 1]))],
        lambda: ResNet(18, CLASSES, seed=3, engine=engine).state_dict()["conv1.weight"],
    ]
    expected = [task() for task in tasks]
    for found, right in zip(at_once(4, 4 * tasks), 4 * expected, strict=True):
        np.testing.assert_equal(found, right)


def test_a_model_that_is_asked_for_the_first_time_by_several_threads_answers_all(engine, images):
    model = ResNet(18, CLASSES, seed=4, engine=engine)
    tasks = [lambda i=i: model.logits(images[i : i + 1 + i % 2]) for i in range(4)]
    found = at_once(4, tasks)
    for task, scores in zip(tasks, found, strict=True):
        np.testing.assert_array_equal(scores, task())


@pytest.mark.long
def test_predictions_during_training_are_those_of_weights_it_had(models, images):
    model = copy.copy(models[0])
    model._fitting = threading.Lock()
    labels, settings = np.arange(N) % CLASSES, dict(batch_size=8, warmup_epochs=0, base_lr=0.1, seed=1)
    seen, known = [], [model.weights]
    begun, trained = threading.Event(), threading.Event()

    class Watched(ResNet):
        @property
        def weights(self):
            return ResNet.weights.fget(self)

        @weights.setter
        def weights(self, weights):
            ResNet.weights.fset(self, weights)
            known.append(weights)
            begun.set()

    model.__class__ = Watched

    def predict():
        begun.wait()
        while not trained.is_set():
            seen.append(model.logits(images[:3]))

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        table = model.fit(images, labels, epochs=2, **settings)
    finally:
        trained.set()
        thread.join()
    alone = copy.copy(models[0])
    np.testing.assert_array_equal(
        alone.fit(images, labels, epochs=2, **settings)["train_loss"], table["train_loss"]
    )
    possible = []
    for weights in known:
        alone.weights = weights
        possible.append(alone.logits(images[:3]))
    assert seen
    for scores in seen:
        assert any(np.array_equal(scores, one) for one in possible)


def test_a_model_is_trained_by_one_thread_at_a_time(models, images):
    model = copy.copy(models[0])
    with model._fitting, pytest.raises(UserError, match=r"^fit: found another thread training this model"):
        model.fit(images, np.arange(N) % CLASSES, epochs=1, batch_size=8)


def test_what_belongs_together_is_not_interrupted_by_other_threads(engine):
    with engine.alone():
        thread = threading.Thread(target=engine.run, args=("y = 1", {}, {"y": "int"}))
        thread.start()
        # what another thread sends and fetches is not kept waiting
        [array] = at_once(1, [lambda: engine.to_numpy(engine.from_numpy(np.ones((2, 2))))])
        assert array.sum() == 4 and engine.run("y = 2", {}, {"y": "int"})["y"] == 2
        assert thread.is_alive()
    thread.join()


def test_a_program_that_failed_or_was_interrupted_leaves_nothing_to_the_next(engine, monkeypatch):
    program = "if (sum(X) > 4) { stop('too much') }\nY = X + 1"
    ones = np.ones((2, 2))
    with pytest.raises(UserError, match="too much"):
        engine.run(program, {"X": 2 * ones}, {"Y": "matrix"})
    assert engine.to_numpy(engine.run(program, {"X": ones}, {"Y": "matrix"})["Y"]).sum() == 8

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine._device, "_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.run(program, {"X": ones}, {"Y": "matrix"})
    # the JVM may still be at it: its variables are not given to the next run
    assert program not in {key[0] for key in engine._programs.compiled}
    assert engine.to_numpy(engine.run(program, {"X": ones}, {"Y": "matrix"})["Y"]).sum() == 8
