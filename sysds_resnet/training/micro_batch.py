"""How many images' gradients are computed at a time, to fit the memory, and how much memory that takes."""

from __future__ import annotations

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.training.settings import TrainSettings

STEP_SHARE = 0.45  # the share of the heap for what a step keeps

# What a heap holds beside a step's activations: so many times the parameters (themselves, gradients, moments,
# converted filters, and arrays that wait to be used again), by the depth of the network, and so many bytes.
_COPIES = 12
_PARAMETERS = {18: 11.7e6, 34: 21.8e6, 50: 25.6e6, 101: 44.5e6, 152: 60.2e6}
_REST = 2**30
# The room for a step's activations, relative to them. With 1.8, a step of ResNet-50 is no faster (in bf16, on
# 32 images of 224 x 224).
_ROOM = 1.3

# The number of values that a training step keeps for each pixel of the input, by depth: what forward_train
# caches (106, 157, 343, 550, 777 for two images of 128 x 128, fewer for more pixels), and the few matrices
# that are being computed.
_VALUES_PER_PIXEL = {18: 135, 34: 190, 50: 400, 101: 620, 152: 850}


GPU_SHARE = 0.85  # the share of a GPU's free memory for what a step keeps


# The number of values that a training step keeps on a GPU for each pixel of the input, by depth. That of
# ResNet-50 is measured (benchmarks/results/gpu.json: 142 MB an image of 224 x 224 in single precision, with
# the memory that is kept to be used again); the others are in the ratio of what forward_train caches.
_GPU_VALUES_PER_PIXEL = {18: 340, 34: 420, 50: 720, 101: 960, 152: 1260}


def choose_micro_batch(
    engine: Engine,
    depth: int,
    image_size: tuple[int, int],
    batch_size: int,
    asked: int | None,
    processes: int = 1,
) -> int:
    """Chooses how many images' gradients are computed at a time.

    Args:
        engine: The engine whose memory they must fit: its heap, or that of its GPU.
        depth: The depth of the network.
        image_size: The height and width of the images in pixels.
        batch_size: The number of images in a step.
        asked: The number that the user chose, or None for the largest one that fits, divides the batch, and
            leaves work for all processes.
        processes: The number of processes that share the micro-batches of a batch.

    Raises:
        UserError: If the batch size is no multiple of what the user chose.
    """
    if asked is not None:
        if batch_size % asked:
            raise UserError(
                f"micro_batch: found {asked} with batch_size {batch_size}, expected a divisor of the batch "
                "size; choose one"
            )
        return asked
    if engine.gpu:
        values = 8 if engine.multiply.precision == "double" else 4
        bytes_of_image = _GPU_VALUES_PER_PIXEL[depth] * values * image_size[0] * image_size[1]
        largest = max(1, int(GPU_SHARE * engine.gpu_memory()[0] / bytes_of_image))
    else:
        largest = largest_micro_batch(engine.heap, depth, image_size, engine.storage != "fp64")
    return _largest_divisor(batch_size, largest, processes)


def _largest_divisor(batch_size: int, most: int, processes: int) -> int:
    """Gives the largest micro-batch of at most so many images that divides a batch among all processes."""
    limit = min(most, max(1, batch_size // processes))
    return max(n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= limit)


def largest_micro_batch(heap: int, depth: int, image_size: tuple[int, int], fp32: bool) -> int:
    """Gives the number of images whose gradients can be computed at a time within a heap; at least 1.

    Args:
        heap: The size of the heap in bytes.
        depth: The depth of the network.
        image_size: The height and width of the images in pixels.
        fp32: Whether activations are kept in FP32.
    """
    return max(1, int(STEP_SHARE * heap / _bytes_of_image(depth, image_size, fp32)))


def expected_heap(settings: TrainSettings, heap: int, image_size: tuple[int, int], processes: int = 1) -> int:
    """Gives the bytes of heap that a run on the CPU is expected to need.

    Args:
        settings: The settings of the run.
        heap: The most bytes that the heap may have.
        image_size: The height and width of the images in pixels.
        processes: The number of processes that share the micro-batches of a batch.
    """
    fp32 = settings.precision != "double"
    if settings.micro_batch == "auto":
        largest = largest_micro_batch(heap, settings.depth, image_size, fp32)
        images = _largest_divisor(settings.batch_size, largest, processes)
    else:
        images = settings.micro_batch
    step = images * _bytes_of_image(settings.depth, image_size, fp32)
    parameters = _PARAMETERS[settings.depth] * (4 if fp32 else 8)
    return min(heap, int(_REST + _COPIES * parameters + _ROOM * step))


def _bytes_of_image(depth: int, image_size: tuple[int, int], fp32: bool) -> int:
    return _VALUES_PER_PIXEL[depth] * (4 if fp32 else 8) * image_size[0] * image_size[1]
