"""Training steps of this checkout beside those of another version, in turns.

    git worktree add ../other VERSION
    python benchmarks/versions.py --other ../other [--pairs 5] [--steps 12] [--out FILE.json]

Each measurement is a `python -m sysds_resnet.train` in a process of its own, in the folder of one of the two
checkouts, on synthetic images. The two take turns, and the first of a pair is now the one and now the other,
so that what else the machine does meets both. A measurement is the median over its steps but the first ones:
Java compiles what they run for up to seven steps. The result is the ratio of each pair. Each checkout needs
its native helper, which `python -m pip install` builds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from report import origin, spread

HERE = Path(__file__).resolve().parents[1]


def step_seconds(checkout: Path, args: argparse.Namespace) -> float:
    """Gives the median time of a step of a checkout, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        flags = {
            "dataset": "synthetic",
            "num-images": args.batch * args.steps,
            "image-size": args.size,
            "num-classes": 1000,
            "model": "resnet50",
            "precision": args.precision,
            "batch-size": args.batch,
            "micro-batch": args.batch,
            "epochs": 1,
            "log-every": 1,
            "out": out,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "sysds_resnet.train", *words]
        subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line["event"] == "step"]
    return statistics.median(seconds[args.warmup :])


def main() -> None:
    """Measures, prints each pair, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--other", type=Path, required=True, help="folder of the other version's checkout")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="in a measurement")
    parser.add_argument("--warmup", type=int, default=7, help="steps that are not counted")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--precision", default="single")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    checkouts = {"this": HERE, "other": args.other.resolve()}
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    for pair in range(args.pairs):
        for name in sorted(checkouts, reverse=pair % 2 == 0):
            seconds[name].append(step_seconds(checkouts[name], args))
        print(
            f"pair {pair + 1}: {seconds['this'][-1]:.3f} s here, {seconds['other'][-1]:.3f} s there",
            flush=True,
        )
    ratios = [there / here for here, there in zip(*seconds.values(), strict=True)]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=checkouts["other"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = {
        **origin(),
        "other": commit.stdout.strip(),
        "batch": args.batch,
        "size": args.size,
        "precision": args.precision,
        "step_s": seconds,
        "speed_ratio": spread(ratios),  # above 1 where this version is the faster one
    }
    print(f"speed of this version, of the other's: {result['speed_ratio']}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
