"""What a step costs on a cluster: a model from measured constants, checked, and its prediction for ImageNet.

    python benchmarks/scaling_model.py [--bandwidth 1.25e9] [--out FILE.json]

reads what benchmarks/scaling.py has measured (scaling.json, scaling_parts.json and scaling_tree.json in
benchmarks/results) and benchmarks/scheduling.py (scheduling.json). docs/scaling.md explains the model.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from report import command_line

RESULTS = Path(__file__).parent / "results"
PARAMETERS = 25.6e6
BYTES = 4 * PARAMETERS  # of parameters, or of a worker's gradients, in single precision and bf16
IMAGES, VALIDATION = 1_281_167, 50_000  # ILSVRC 2012
EPOCHS = 90
FORWARD = 1 / 3  # of a step's arithmetic
FAN_IN = 8  # as in dml/cluster/sums.dml
LEAST = 8  # images in a micro-batch, for norms to take statistics of
CORES = 2  # of the machine that was measured


def runs(name: str) -> list[dict]:
    """Of a file of benchmarks/scaling.py."""
    return json.loads((RESULTS / name).read_text())["runs"]


def solve(rows: list[tuple[float, float]], seconds: list[float]) -> tuple[float, float]:
    """Two constants by least squares."""
    found, *_ = np.linalg.lstsq(np.array(rows), np.array(seconds), rcond=None)
    return float(found[0]), float(found[1])


def fit() -> dict:
    """The constants of the model, in seconds, from runs whose executors have a core each."""
    known = [run for run in runs("scaling.json") + runs("scaling_parts.json") if run["executors"] <= CORES]
    large, small = ({run["executors"]: run for run in known if run["size"] == size} for size in (224, 64))
    schedule = json.loads((RESULTS / "scheduling.json").read_text())
    broadcast, gather = ([run["parts_s"][name] for run in known] for name in ("broadcast_s", "gather_s"))
    counts = [(1, run["executors"]) for run in known]
    sent, received = solve(counts, broadcast)
    written, added = solve(counts, gather)
    alone = large[1]
    return {
        "image_s": alone["parts_s"]["compute_s"] / alone["batch"],
        "image_s_at_64": small[1]["parts_s"]["compute_s"] / small[1]["batch"],
        "contention": alone["parts_s"]["compute_s"] / large[2]["parts_s"]["compute_s"],
        "contention_at_64": small[1]["parts_s"]["compute_s"] / small[2]["parts_s"]["compute_s"],
        "send_s": sent,
        "receive_s": received,
        "write_s": written,
        "add_s": added,
        "update_s": float(np.median([run["parts_s"]["update_s"] for run in known])),
        "job_s": schedule["jobs_s"]["2"],
        "task_s": schedule["task_s"],
    }


def check(c: dict) -> list[dict]:
    """Steps as predicted for this machine, whose two cores all share, beside what was measured."""
    rows = []
    for run in runs("scaling_parts.json") + runs("scaling_tree.json"):
        executors, fan_in = run["executors"], run["fan_in"]
        parts, gather = executors, c["write_s"] * max(1, executors / CORES)
        while parts > fan_in // 2:
            parts = math.ceil(parts / fan_in)
            task = c["add_s"] + c["write_s"] / fan_in  # a slice of each
            gather += c["job_s"] + task * max(1, parts * fan_in / CORES)
        slow = max(1, executors / CORES) / (c["contention_at_64"] if executors > 1 else 1)
        predicted = {
            "broadcast_s": c["send_s"] + c["receive_s"] * executors,
            "compute_s": c["image_s_at_64"] * run["batch"] / executors * slow,
            "gather_s": gather + parts * c["add_s"],
            "update_s": c["update_s"],
        }
        rows.append(
            {
                "executors": executors,
                "fan_in": fan_in,
                "predicted_s": sum(predicted.values()),
                "measured_s": run["step_s"]["median"],
                "predicted": predicted,
                "measured": run["parts_s"],
            }
        )
    return rows


def step(c: dict, executors: int, batch: int, bandwidth: float) -> dict[str, float]:
    """Seconds of the parts of a step on a cluster.

    Args:
        c: The constants.
        executors: With a core each.
        batch: Images.
        bandwidth: Of each machine's network, in bytes a second.
    """
    moved = BYTES / bandwidth
    gather, parts = c["write_s"], executors
    while parts > FAN_IN // 2:
        parts = math.ceil(parts / FAN_IN)
        gather += c["job_s"] + c["task_s"] * parts * FAN_IN
        gather += c["add_s"] + moved + c["write_s"] / FAN_IN  # a slice of each
    return {
        "compute_s": c["image_s"] / c["contention"] * batch / executors,
        # Spark's executors hand on what they have: in and out once each
        "broadcast_s": c["send_s"] + c["receive_s"] + 2 * moved,
        "gather_s": gather + parts * (c["add_s"] + moved),
        "update_s": c["update_s"],
        # tasks that read images start while others compute
        "scheduling_s": executors * c["task_s"],
    }


def predict(c: dict, bandwidth: float) -> list[dict]:
    """Time of 90 epochs of ImageNet."""
    rows = []
    for executors in (16, 64, 256, 1024):
        for batch in (4096, 8192, 16384, 32768):
            if batch // executors < LEAST:
                continue
            parts = step(c, executors, batch, bandwidth)
            seconds = sum(parts.values())
            validation = VALIDATION * FORWARD * c["image_s"] / c["contention"] / executors
            hours = EPOCHS * (IMAGES // batch * seconds + validation) / 3600
            alone = EPOCHS * IMAGES * c["image_s"] / 3600
            rows.append(
                {
                    "executors": executors,
                    "batch": batch,
                    "core_hours": hours * executors,
                    "images_per_executor": batch // executors,
                    "parts_s": parts,
                    "step_s": seconds,
                    "hours": hours,
                    "efficiency": alone / hours / executors,
                }
            )
    return rows


def main() -> None:
    """Prints the tables, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bandwidth", type=float, default=1.25e9, help="of a machine, bytes a second")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    constants = fit()
    for name, value in constants.items():
        print(f"{name:24} {value:.4g}")
    checked = check(constants)
    print("\n| executors | sums of | predicted, s | measured, s | ratio |\n|---|---|---|---|---|")
    for row in checked:
        ratio = row["predicted_s"] / row["measured_s"]
        print(
            f"| {row['executors']} | {row['fan_in']} | {row['predicted_s']:.2f} | {row['measured_s']:.2f} | "
            f"{ratio:.2f} |"
        )
    predicted = predict(constants, args.bandwidth)
    print("\n| executors | batch | images each | step, s | of it compute | 90 epochs, h | efficiency |")
    print("|---|---|---|---|---|---|---|")
    for row in predicted:
        print(
            f"| {row['executors']} | {row['batch']} | {row['images_per_executor']} | {row['step_s']:.1f} | "
            f"{row['parts_s']['compute_s']:.1f} | {row['hours']:.1f} | {row['efficiency']:.2f} |"
        )
    if args.out:
        result = {
            "command": command_line(),
            "bandwidth": args.bandwidth,
            "constants": constants,
            "check": checked,
            "prediction": predicted,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
