"""Where training on digits ends in each precision: ResNet-50 with LARS, the tour's run, from several seeds.

    python benchmarks/digits.py [--precisions single double bf16] [--seeds 41 42 43] [--out FILE.json]

Other options go to `python -m sysds_resnet.train`. The file holds top-1 and loss on the validation images
after each epoch of each run, and the mean over the seeds of the last epoch's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import origin

from sysds_resnet.report.metrics import read_metrics


def run(precision: str, seed: int, options: list[str]) -> dict[str, object]:
    """A training run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "sysds_resnet.train", "--precision", precision, "--seed", str(seed)]
        start = time.perf_counter()
        subprocess.run([*command, "--out", str(out), *options], stdout=subprocess.DEVNULL, check=True)
        minutes = (time.perf_counter() - start) / 60
        epochs = read_metrics(out, "epoch")
    return {
        "precision": precision,
        "seed": seed,
        "val_top1": epochs["val_top1"].tolist(),
        "val_loss": epochs["val_loss"].tolist(),
        "minutes": minutes,
    }


def main() -> None:
    """Runs them one after the other and writes the file after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--precisions", nargs="+", default=["single", "double", "bf16"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[41, 42, 43])
    parser.add_argument("--out", type=Path)
    args, options = parser.parse_known_args()
    result = {
        **origin(),
        "runs": [],
    }
    for seed in args.seeds:
        for precision in args.precisions:
            done = run(precision, seed, options)
            result["runs"].append(done)
            last = {
                name: [r["val_top1"][-1] for r in result["runs"] if r["precision"] == name]
                for name in args.precisions
            }
            result["mean_top1"] = {name: statistics.mean(found) for name, found in last.items() if found}
            top1 = 100 * done["val_top1"][-1]
            print(f"{precision}, seed {seed}: {top1:.2f} %, {done['minutes']:.1f} minutes", flush=True)
            if args.out:
                args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, value in result["mean_top1"].items():
        print(f"mean of {name}: {100 * value:.2f} %")


if __name__ == "__main__":
    main()
