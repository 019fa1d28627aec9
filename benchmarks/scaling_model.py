"""What a step of many processes costs: a model from measured constants, and 90 epochs of ImageNet by it.

    python benchmarks/scaling_model.py [--out FILE.json]

reads what benchmarks/scaling.py and benchmarks/collective.py have measured (benchmarks/results/scaling.json,
scaling_224.json and collective.json), and prints the tables of docs/scaling.md, which explains the model.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

from collective import GRADIENTS
from report import command_line

from sysds_resnet.training.processes.group import MESSAGE

RESULTS = Path(__file__).parent / "results"
BYTES = 4 * GRADIENTS  # of ResNet-50's gradients in FP32
IMAGES, VALIDATION, EPOCHS = 1_281_167, 50_000, 90  # ILSVRC 2012
FORWARD = 1 / 3  # of a step's arithmetic
UPPER = 17_013_736 / GRADIENTS  # of the gradients: those that are summed early
MEANWHILE = 1 / 2  # of a step's arithmetic, rounded down: the backward pass before the last stage
LEAST = 8  # images in a micro-batch, for norms to take statistics of
WIRE_S = 50e-6  # assumed: of a message between two machines, beside what both compute
UPDATE_CORES = 4  # assumed: how many cores' worth of memory an executor of 24 cores has for an update


class Constants(NamedTuple):
    """Seconds of one core, unless said otherwise.

    Attributes:
        image: Of an image of 224 x 224.
        beside: The speed of a core beside others that compute, relative to one alone.
        pause, deviation: The standard deviation of a process's computing from step to step: some seconds, and
            a share of its mean.
        copy: Of taking gradients out of the engine, and of putting them back.
        byte: Of a byte that a process passes on in a sum.
        message: Of a message, beside its bytes.
        update: Of an update.
    """

    image: float
    beside: float
    pause: float
    deviation: float
    copy: float
    byte: float
    message: float
    update: float


def measured(name: str) -> dict:
    """A file of results."""
    return json.loads((RESULTS / name).read_text())


def constants() -> Constants:
    """The constants, from the measurements."""
    alone, two = measured("scaling_224.json")["runs"]
    sums = measured("collective.json")
    small = measured("scaling.json")["runs"][1]
    pair, *_, many = sums["sums"]
    parts = small["parts_s"]
    # the line through what was measured with images of 64 x 64 and of 224 x 224
    (mean, own), (mean_small, own_small) = (
        (run["compute_each_s"]["median"], run["compute_each_s"]["deviation"]) for run in (two, small)
    )
    deviation = (own - own_small) / (mean - mean_small)
    return Constants(
        image=(alone["step_s"]["median"] - two["parts_s"]["update_s"]) / alone["batch"],
        beside=min(1.0, two["ceiling"]),
        pause=own - deviation * mean,
        deviation=deviation,
        copy=parts["take_s"] + parts["put_s"],
        byte=pair["gradients_f4_s"]["median"] / passed(2),
        message=many["message_s"] * sums["machine"]["cores"] / many["processes"] + WIRE_S,
        update=parts["update_s"],
    )


def passed(executors: int) -> float:
    """The bytes that each of so many processes passes on in a sum, as emulated networks show."""
    return BYTES * (1 + (executors - 1) / executors)


def step(c: Constants, executors: int, cores: int, batch: int, bandwidth: float) -> dict[str, float]:
    """The seconds of the parts of a step.

    Args:
        c: The constants.
        executors: The number of executors.
        cores: The cores of each.
        batch: The number of images.
        bandwidth: Of a machine's network, in bytes a second. Executors of a machine are neighbours in the
            ring, so that one sum at a time is on it, however many they are.
    """
    computing = c.image * batch / executors / cores / c.beside
    # the expected largest of so many normal numbers (Blom 1958), in standard deviations
    slowest = NormalDist().inv_cdf((executors - 0.375) / (executors + 0.25))
    # messages of full size are in the seconds of a byte
    messages = 2 * (executors - 1) if executors * MESSAGE > BYTES else 0
    handling, travel = passed(executors) * c.byte, passed(executors) / bandwidth + messages * c.message
    # one core cannot pass bytes on while it computes
    early = UPPER * (travel if cores == 1 else travel + handling)
    hidden = min(early, MEANWHILE * computing)
    return {
        "compute": computing,
        "straggler": (c.pause + c.deviation * computing) * slowest,
        "copy": c.copy,
        "sum": handling + travel - hidden,
        "update": c.update / min(cores, UPDATE_CORES),
    }


def predictions(c: Constants) -> list[dict]:
    """The time of 90 epochs of ImageNet."""
    rows = []
    for cores, gigabits, executors, batch in product((1, 24), (10, 100), (16, 64, 256, 1024), (8192, 32768)):
        if batch // executors < LEAST:
            continue
        parts = step(c, executors, cores, batch, gigabits / 8 * 1e9)
        validation = VALIDATION * FORWARD * c.image / c.beside / executors / cores
        seconds = EPOCHS * (IMAGES // batch * sum(parts.values()) + validation)
        alone = EPOCHS * (IMAGES // batch) * (c.image / c.beside / cores * batch + parts["update"])
        rows.append(
            {
                "cores": cores,
                "gigabits": gigabits,
                "executors": executors,
                "batch": batch,
                "parts_s": parts,
                "step_s": sum(parts.values()),
                "hours": seconds / 3600,
                "efficiency": alone / seconds / executors,
            }
        )
    return rows


def main() -> None:
    """Prints the tables, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    c = constants()
    for name, value in c._asdict().items():
        print(f"{name:10} {value:.3g}")
    rows = predictions(c)
    print(
        "\n| cores each | Gbit/s | executors | batch | step, s | of it compute | 90 epochs, h | efficiency |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['cores']} | {row['gigabits']} | {row['executors']} | {row['batch']} | "
            f"{row['step_s']:.2f} | {row['parts_s']['compute']:.2f} | {row['hours']:.1f} | "
            f"{row['efficiency']:.2f} |"
        )
    if args.out:
        result = {"command": command_line(), "constants": c._asdict(), "predictions": rows}
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
