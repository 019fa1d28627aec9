"""How fast images come in, from JPEG files and prepared shards, against Pillow with torchvision's transforms.

    python benchmarks/loader.py [--rounds 7] [--out FILE.json]

One process on one core reads 500 x 375 JPEGs into augmented images of 224 x 224, in turns: Pillow with the
training transforms of torchvision's classification reference, this project, and this project from shards of
256 x 256. Then all cores do, as a stream of batches, beside torch's DataLoader with as many processes; the
memory of reading 20,000 images; and how long a training run in bf16 waits for its batches. torchvision is
needed, which is among the packages that the tests use.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from report import origin, spread

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from torchvision_reference import transforms

from sysds_resnet import prepare
from sysds_resnet.batches.readers import Readers, default_workers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.images import IMAGENET_MEAN, IMAGENET_STD, Dataset, open_dataset
from sysds_resnet.images.sources.photos import PHOTOS, open_photo
from sysds_resnet.report.metrics import read_metrics

WIDTH, HEIGHT, SIZE = 500, 375, 224
IMAGES = 240
QUALITY = 98  # some 110 kB an image: ImageNet's training images have 108 kB on average
BATCH = 64
MANY = 20_000


def write_images(folder: Path) -> float:
    """Writes IMAGES photographs in class folders and gives their mean size in kB."""
    rng = np.random.default_rng(0)
    sizes = []
    for i in range(IMAGES):
        photo = open_photo(PHOTOS[i % len(PHOTOS)]).convert("RGB")
        share = 0.6 + 0.4 * rng.random()
        width = min(share * photo.width, share * photo.height * WIDTH / HEIGHT)
        height = width * HEIGHT / WIDTH
        left, top = rng.random() * (photo.width - width), rng.random() * (photo.height - height)
        box = (left, top, left + width, top + height)
        for split in ("train", "val"):
            path = folder / split / PHOTOS[i % len(PHOTOS)].name / f"{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size / 1000)
    return statistics.mean(sizes)


class Reference(torch.utils.data.Dataset):
    """Pillow and torchvision's training transforms."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIZE),
                transforms.RandomHorizontalFlip(),
                transforms.PILToTensor(),
                transforms.ConvertImageDtype(torch.float),
                transforms.Normalize((IMAGENET_MEAN / 255).tolist(), (IMAGENET_STD / 255).tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with open(self._paths[index], "rb") as file:
            return self._transform(Image.open(file).convert("RGB"))


def rate(read: Callable[[int], object]) -> float:
    """Images per second of reading all, one after the other."""
    began = time.perf_counter()
    for index in range(IMAGES):
        read(index)
    return IMAGES / (time.perf_counter() - began)


def stream_rate(dataset: Dataset, readers: Readers, images: int) -> float:
    """Images per second of a stream of batches, from its second batch on."""
    with BatchStream(dataset, shuffled, BATCH, readers, drop_last=True) as stream:
        next(stream)
        began = time.perf_counter()
        for _ in range(images // BATCH):
            next(stream)
        return images // BATCH * BATCH / (time.perf_counter() - began)


def shuffled(epoch: int) -> np.ndarray:
    """The order of an epoch."""
    return np.random.default_rng(epoch).permutation(IMAGES)


def loader_rate(dataset: Reference, workers: int, images: int) -> float:
    """Images per second of torch's DataLoader, from its second batch on."""
    repeated = torch.utils.data.ConcatDataset([dataset] * (images // IMAGES + 1))
    loader = iter(torch.utils.data.DataLoader(repeated, BATCH, shuffle=True, num_workers=workers))
    next(loader)
    began = time.perf_counter()
    count = sum(len(batch) for batch in loader)
    return count / (time.perf_counter() - began)


def memory(dataset: Dataset, readers: Readers) -> list[float]:
    """Resident MB of this process and its workers after each 1,000 of MANY images."""
    found = []
    process = psutil.Process()
    with BatchStream(dataset, shuffled, BATCH, readers, drop_last=True) as stream:
        for step in range(1, MANY // BATCH + 1):
            next(stream)
            if step % (1000 // BATCH) == 0:
                family = [process, *process.children(recursive=True)]
                found.append(sum(p.memory_info().rss for p in family) / 1e6)
    return found


def waits() -> dict[str, object]:
    """Seconds that each step of a training run took, and waited for its batch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sysds_resnet.train", "--dataset", "photos", "--precision", "bf16"]
        command += ["--epochs", "1", "--batch-size", "32", "--out", f"{folder}/run"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        steps = read_metrics(Path(folder) / "run", "step")
    return {
        "command": shlex.join(["python", *command[1:-1], "RUN"]),
        "seconds": steps["seconds"].tolist(),
        "data_wait_s": steps["data_wait_s"].tolist(),
    }


def summary(values: list[float]) -> dict[str, object]:
    """Median, least, most and how many."""
    found = spread(values)
    return {"images_per_s": found.pop("median"), **found}


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        **origin(),
    }
    with tempfile.TemporaryDirectory() as folder:
        result["jpeg_kb"] = write_images(Path(folder) / "jpeg")
        prepare.main(["--dataset", f"{folder}/jpeg", "--out", f"{folder}/shards", "--shard-images", "100"])
        files, shards = (open_dataset(f"{folder}/{name}", "train") for name in ("jpeg", "shards"))
        reference = Reference([files.name(i) for i in range(IMAGES)])
        one, all_cores = {}, {}
        for epoch in range(-1, args.rounds):
            for name, read in (
                ("torchvision", lambda i: reference[i]),
                ("files", lambda i, epoch=epoch: files.image(i, epoch + 1)),
                ("shards", lambda i, epoch=epoch: shards.image(i, epoch + 1)),
            ):
                found = rate(read)
                if epoch >= 0:  # the first round is for warm-up
                    one.setdefault(name, []).append(found)
        workers = default_workers()
        with Readers([files, shards], workers) as readers:
            for _ in range(args.rounds):
                all_cores.setdefault("files", []).append(stream_rate(files, readers, 2000))
                all_cores.setdefault("shards", []).append(stream_rate(shards, readers, 2000))
                all_cores.setdefault("DataLoader", []).append(loader_rate(reference, workers, 2000))
            result["memory_mb"] = memory(files, readers)
    result["one_process"] = {name: summary(values) for name, values in one.items()}
    result["all_cores"] = {name: summary(values) for name, values in all_cores.items()} | {"workers": workers}
    peer = statistics.median(one["torchvision"])
    result["ratios"] = {
        "files / torchvision, one process (bar 1.5)": statistics.median(one["files"]) / peer,
        "shards / torchvision, one process (bar 3)": statistics.median(one["shards"]) / peer,
        "files / DataLoader, all cores": statistics.median(all_cores["files"])
        / statistics.median(all_cores["DataLoader"]),
    }
    result["training"] = waits()
    for name in ("jpeg_kb", "one_process", "all_cores", "ratios"):
        print(json.dumps({name: result[name]}))
    print("MB after each 1,000 images:", *(round(value) for value in result["memory_mb"]))
    print("seconds waited for each batch:", *(round(value, 3) for value in result["training"]["data_wait_s"]))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
