"""Image files in memory, such as those in the rows of a table, read to be scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sysds_resnet.batches.reading import Samples, read
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images.encoded import EncodedDataset
from sysds_resnet.images.sources.base import BytesSource
from sysds_resnet.images.views import View, seen_in
from sysds_resnet.network.inference import default_batch


def samples_of(
    names: Sequence[str],
    files: Sequence[Any],
    engine: Engine,
    sizes: dict[str, int | None],
    views: Sequence[View] = (View(),),
    skip: bool = False,
) -> Iterator[Samples]:
    """Reads image files in memory, in batches that fit the engine's heap.

    Args:
        names: The names of the images in errors.
        files: For each image its bytes, or a dict with its "bytes", or None, which cannot be read.
        engine: The engine that is to score the images.
        sizes: The sizes of the images, as `open_files` takes them.
        views: The views of each image; by default the one of validation.
        skip: Whether images that cannot be read are among the errors of their batch.

    Raises:
        UserError: If an image cannot be read, unless they are skipped.
    """
    contents = [file["bytes"] if isinstance(file, dict) else file for file in files]
    dataset = EncodedDataset(BytesSource(names, contents), **sizes)
    seen = seen_in(dataset, views)
    size = default_batch(engine, *seen.image_size)
    for start in range(0, len(contents), size):
        places = np.arange(start, min(start + size, len(contents)))
        samples = read(seen, places, 0, replace=False)
        if samples.errors and not skip:
            raise UserError(samples.errors[0][1])
        yield samples
