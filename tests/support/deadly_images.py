"""Data sets that kill the processes that read them.

Such a process imports this file, which therefore imports little.
"""

import os
import signal

import numpy as np


class Deadly:
    """Image 2 kills the process that reads it, once for each file in a folder, which it removes."""

    decodes, channels, image_size = True, 3, (4, 4)
    labels = np.zeros(4, np.int64)

    def __init__(self, lives):
        self.lives = lives

    def __len__(self):
        return 4

    def name(self, index):
        return f"image {index}"

    def image(self, index, epoch):
        left = sorted(self.lives.iterdir())
        if index == 2 and left:
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.full((4, 4, 3), index, np.uint8)


class KilledAtStart(Deadly):
    """Kills each process that gets it, as long as there are files in a folder, one of which it removes."""

    def __setstate__(self, state):
        self.__dict__ = state
        for path in sorted(self.lives.iterdir())[:1]:
            path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
