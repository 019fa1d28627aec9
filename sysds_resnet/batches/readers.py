"""Workers that read samples: processes where images must be decoded, threads where they lie in memory."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor

import loky
import numpy as np
from loky.process_executor import ShutdownExecutorError

from sysds_resnet.batches.reading import Samples, read
from sysds_resnet.errors import NotAsAsked, UserError, one_line
from sysds_resnet.images.datasets import Dataset
from sysds_resnet.system.forks import Opener
from sysds_resnet.system.machine import cores

MAX_DEFAULT_WORKERS = 16
THREAD_NAME = "sysds-resnet-readers"
# The errors of tasks that are lost because their process, or another one of the pool, was killed.
LOST = (BrokenExecutor, ShutdownExecutorError)


class Readers:
    """Workers that live as long as this object, over epochs and data sets.

    They end with their parent, however that ends, and do not see the terminal's Ctrl-C. A `with` statement or
    `close` ends them. Several threads and streams may submit at the same time.

    If a process is killed, at work or idle, all tasks that are not done are lost: their futures end with one
    of `LOST`. The next `submit` starts new processes.

    Args:
        datasets: The data sets that they can read. If any must be decoded (`Dataset.decodes`), all are sent
            to processes, once.
        workers: The number of workers; None means `default_workers()`.

    Raises:
        UserError: If there is less than one worker.
    """

    def __init__(self, datasets: Sequence[Dataset], workers: int | None = None) -> None:
        self.workers = default_workers() if workers is None else workers
        if self.workers < 1:
            raise UserError(f"workers: found {workers}, expected at least 1: choose a larger number")
        self._opener = Opener("readers", "open them in each worker, after the fork")
        self._datasets = list(datasets)
        self._pool: Executor | None = None
        self._lock = threading.Lock()  # held where the pool changes
        self._stop = threading.Event()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, dataset: Dataset, indices: np.ndarray, epoch: int, replace: bool) -> Future[Samples]:
        """Has some samples of one of the data sets read.

        Args:
            dataset: The data set, one of those given at first.
            indices: The positions of the samples in it, of shape (k,).
            epoch: The epoch in which they are seen.
            replace: Whether the next good sample of the data set takes the place of one that cannot be read;
                otherwise it is left out.

        Returns:
            A future of the samples. If processes are killed as soon as they start, it ends with one of
            `LOST`.

        Raises:
            UserError: If the system starts no more processes.
        """
        self._opener.check()
        number = next(i for i, known in enumerate(self._datasets) if known is dataset)
        task = (number, indices, epoch, replace)
        with self._lock:
            try:
                return self._submit(task)
            except LOST:  # a process was killed since the last task, perhaps while all were idle
                self._end()
            try:
                return self._submit(task)
            except LOST as error:
                failed: Future[Samples] = Future()
                failed.set_exception(error)
                return failed

    def close(self) -> None:
        """Ends the workers, each thread after the sample it is at; `submit` starts new ones."""
        if not self._opener.here:
            return  # the workers are those of the process that this one was forked from
        with self._lock:
            self._end()

    def _submit(self, task: tuple[int, np.ndarray, int, bool]) -> Future[Samples]:
        try:
            if self._pool is None:
                self._pool = self._start()
            if isinstance(self._pool, ThreadPoolExecutor):
                number, *how = task
                return self._pool.submit(read, self._datasets[number], *how, self._stop)
            return self._pool.submit(_read, *task)
        except OSError as error:
            raise UserError(
                f"workers: found no room for {self.workers} reading processes ({one_line(error)}), expected "
                "that the system starts them: lower --workers, or end other programs"
            ) from error

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if isinstance(pool, ThreadPoolExecutor):
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._stop = threading.Event()
        elif pool is not None:
            pool.shutdown(wait=True, kill_workers=True)

    def _start(self) -> Executor:
        if any(dataset.decodes for dataset in self._datasets):
            # Multiprocessing's own pool would run the main module again in each process.
            try:
                return loky.ProcessPoolExecutor(
                    self.workers, initializer=_set_up, initargs=(self._datasets, os.getpid())
                )
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOMEM):
                    raise  # the system starts no more processes
                # Otherwise there is no room for semaphores, which processes share.
                warnings.warn(
                    f"reads images with threads in place of processes, which is slower: /dev/shm has no room "
                    f"({one_line(error)}); free some there, or give the container more with --shm-size",
                    NotAsAsked,
                    stacklevel=2,
                )
        return ThreadPoolExecutor(self.workers, thread_name_prefix=THREAD_NAME)


def default_workers() -> int:
    """Gives the number of workers: one for each core that this process may use, at most 16."""
    return min(cores(), MAX_DEFAULT_WORKERS)


# What follows runs in the reading processes.

_datasets: list[Dataset] = []


def _set_up(datasets: list[Dataset], parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _datasets[:] = datasets


def _end_with(parent: int) -> None:
    """Ends this process when its parent was killed: a pool that waits for work would wait for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _read(number: int, indices: np.ndarray, epoch: int, replace: bool) -> Samples:
    return read(_datasets[number], indices, epoch, replace)
