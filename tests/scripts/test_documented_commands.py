"""Every command in the documents works as written, or stands here with the reason why it is not tried."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from command_line import ROOT, run_here
from command_settings import SETTINGS
from documents import Command, commands
from PIL import Image
from reference import random_resnet

from sysds_resnet import plot, prepare, spark_command
from sysds_resnet.settings.command_line import parse

NOT_TRIED = {  # pattern of a command: why
    r"(\.venv/bin/)?(python -m )?pip install ['\"]?[a-z].*": "an index of packages is asked",
    r"apt-get install .*": "needs root",
    r"curl -LO https://\S+": "asks a server; torchvision's files are tried with ones of their form",
    r"aws .*": "AWS's own command, which needs an account",
    r"ssh .*": "an instance that there is not",
    r"bash scripts/test\.sh.*": "runs these tests",
    r"bash scripts/build_wheels\.sh": "asks an index of packages; tried in test_build_wheels.py",
    r"bash scripts/quickstart\.sh": "installs; the same with --out is tried as far as it trains",
    r"bash scripts/aws/\S+ .*": "tried against a stand-in of AWS in test_cloud.py",
    r"bash scripts/spark_cluster\.sh .*": "tried in test_spark.py, which starts such a cluster",
    r"(bash )?scripts/gpu_check\.sh.*": "needs a GPU; test_benchmarks.py tries what it runs",
    r"scripts/\w+cards?\.sh.*": "tried in test_card_scripts.py",
    r"scripts/systemds SCRIPT\.dml": "tried with programs",
    r".*scripts/systemds dml/\w+\.dml -gpu .*": "needs a GPU; test_gpu_commands.py has one in software",
    r"\.venv/bin/tensorboard .*": "another package's, a server; test_tensorboard.py reads what it would",
    r"(\.venv/bin/)?pytest .*": "these tests",
    r"\.venv/bin/venv-pack -o environment\.tar\.gz": "for machines without this one's disk",
}
PLACES = {"URL": "spark://master:7077", "PORT": "7077", "RUN": "runs/a"}  # that stand in documents

ALL = commands()
OURS = [command for command in ALL if command.module]
OTHERS = ("spark_command", "systemds")  # whose words are not settings


def name(command):
    return f"{command.document}: {command.text}"


def reason(command):
    return next((why for pattern, why in NOT_TRIED.items() if re.fullmatch(pattern, command.text)), None)


def filled_in(options):
    """Options with values for the words in capitals, and without the brackets of what may be left out."""
    words = " ".join(map(shlex.quote, options)).replace("'[RUN'", "RUN").replace("'...]'", "")
    words = re.sub(r"'?\[(--\w+)'?", r"\1", words).replace("'RUN]'", "RUN")
    return [
        PLACES.get(word, re.sub(r"\bPORT$", PLACES["PORT"], word))
        for word in shlex.split(words)
        if word.strip()
    ]


def kind(command):
    """How a command is tried."""
    if command.module:
        return "ours"
    if re.search(r"(^| )scripts/systemds dml/\w+\.dml -nvargs ", command.text):
        return "program"
    if re.fullmatch(r"python benchmarks/\w+\.py.*", command.text):
        return "benchmark"
    if re.fullmatch(r"""(\.venv/bin/)?pip install (-e )?["']?\.(\[[\w,]+\])?["']?""", command.text):
        return "extra"
    return None


def test_every_command_is_tried_or_has_a_reason():
    assert len(ALL) > 60
    tried = {text for text, _ in SEQUENCE}
    unknown = [name(c) for c in ALL if not (kind(c) or reason(c) or c.text in tried)]
    assert unknown == []


def test_no_reason_is_left_over():
    texts = [command.text for command in ALL]
    assert [pattern for pattern in NOT_TRIED if not any(re.fullmatch(pattern, text) for text in texts)] == []
    assert [text for text, _ in SEQUENCE if text not in texts] == []


@pytest.mark.parametrize("command", [c for c in OURS if c.fenced], ids=name)
def test_commands_to_copy_name_the_python_that_has_the_package(command):
    assert ".venv/bin/python -m" in command.text


@pytest.mark.parametrize("command", [c for c in OURS if c.options and c.module not in OTHERS], ids=name)
def test_options_are_those_of_the_command(command):
    options = filled_in(command.options)
    if command.module == "plot" and "--schedule" in options:
        options = [word for word in options if word not in ("--schedule", "cosine")]
        assert parse(plot.ScheduleSettings, options)
        return
    settings = plot.PlotSettings if command.module == "plot" else SETTINGS[command.module]
    options = (
        [{"--x": "--x-axis"}.get(word, word) for word in options] if command.module == "plot" else options
    )
    assert parse(settings, options)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set with the blocks that the documents speak of."""
    folder = tmp_path_factory.mktemp("data") / "PREPARED"
    flags = ["--dataset", "synthetic", "--blocks", "8", "--workers", "1"]
    assert prepare.main([*flags, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("command", [c for c in OURS if c.module == "spark_command"], ids=name)
def test_lines_for_spark_submit_are_printed(command, prepared, capfd, monkeypatch):
    monkeypatch.chdir(prepared.parent)
    outcome = run_here(capfd, "spark_command", *filled_in(command.options))
    assert outcome.code == 0, outcome.err
    words = shlex.split(outcome.out)
    assert words[0] == "env" and any(Path(word).name == "spark-submit" for word in words)


@pytest.mark.parametrize("command", [c for c in ALL if kind(c) == "program"], ids=name)
def test_programs_have_the_arguments_that_documents_give_them(command):
    words = command.words
    program = (ROOT / words[1]).read_text()
    given = [word.partition("=")[0] for word in words[words.index("-nvargs") + 1 :]]
    assert given and set(given) <= set(re.findall(r"ifdef\(\$(\w+)", program))


@pytest.mark.parametrize("command", [c for c in ALL if kind(c) == "benchmark"], ids=name)
def test_benchmarks_have_the_options_that_documents_give_them(command):
    script = ROOT / command.words[1]
    known = set(re.findall(r'"(--[\w-]+)"', "".join(p.read_text() for p in script.parent.glob("*.py"))))
    known |= {f"--no-{option[2:]}" for option in known}  # argparse.BooleanOptionalAction
    assert script.is_file()
    assert {word for word in command.words if word.startswith("--")} <= known


@pytest.mark.parametrize("command", [c for c in ALL if "pip install" in c.text], ids=name)
def test_extras_are_of_this_project_and_it_is_asked_of_no_index(command):
    project = (ROOT / "pyproject.toml").read_text()
    assert "sysds-resnet" not in command.text  # which no index has
    if extras := re.search(r"\[([\w,]+)\]", command.text):
        for extra in extras[1].split(","):
            assert f"\n{extra} = [" in project.partition("[project.optional-dependencies]")[2]


@pytest.mark.parametrize("script", sorted({w for c in ALL for w in c.words if w.startswith("scripts/")}))
def test_scripts_are_there_and_can_be_called_as_documents_do(script):
    if script == "scripts/nn":  # SystemDS's
        return
    path = ROOT / script
    assert path.exists()
    if any(command.words[0] == script for command in ALL) and path.suffix != ".py":
        assert path.stat().st_mode & 0o100


TINY = "--model resnet18 --epochs 1 --warmup-epochs 0 --batch-size 4 --heap 2g --workers 1"
PY = ".venv/bin/python -m sysds_resnet."
SCORED = "--heap 2g --workers 1"
# In this order, with what keeps them small: more options, or a function that changes the words.
SEQUENCE = [
    ("bash scripts/quickstart.sh --out runs/digits", f"{TINY} --batch-size 64"),
    (f"{PY}train --resume runs/digits", ""),
    (f"{PY}plot runs/digits", ""),
    (f"{PY}train --dataset DATA --out runs/mine", f"{TINY} --image-size 64"),
    (f"{PY}evaluate --weights runs/mine --dataset DATA", SCORED),
    (f"{PY}predict --weights runs/mine --input DATA/val --out predictions.csv", SCORED),
    (f"{PY}verify DATA", ""),
    (f"{PY}show --dataset DATA --policy randaugment --out images.png", "--images 4 --workers 1"),
    (f"{PY}prepare --dataset DATA --out PREPARED --matrices", "--image-size 64 --workers 1"),
    (f"{PY}convert resnet50.pth resnet50.safetensors", ""),
    (f"{PY}convert microsoft-resnet-50/ resnet50.safetensors", ""),
    (f"{PY}convert runs/mine mine-hf --to huggingface", ""),
    (f"{PY}convert runs/mine mine-dml --to systemds", ""),
    (f"{PY}convert runs/mine mine.onnx", ""),
    (f"{PY}convert runs/mine checked.onnx --check --dataset DATA", ""),
    (f"{PY}doctor", ""),
    (
        f"{PY}train --dataset photos --image-size 64 --init-from runs/digits --freeze layer1 --optimizer sgd "
        "--base-lr 0.01 --epochs 4 --out runs/photos",
        "--dry-run",
    ),
    (
        "scripts/systemds dml/train.dml -nvargs X=X.csv Y=Y.csv format=csv depth=18 C=3 epochs=2 "
        "batch_size=8 out=model",
        "base_lr=0.1",
    ),
    ("scripts/systemds dml/evaluate.dml -nvargs weights=model X=X.csv Y=Y.csv format=csv", ""),
    (
        "scripts/systemds dml/train.dml -nvargs X=PREPARED/matrices/train_X Y=PREPARED/matrices/train_Y "
        "mean_std=PREPARED/matrices/mean_std depth=18 epochs=1 batch_size=16 out=model",
        "base_lr=0.1",
    ),
    (f"{PY}evaluate --weights runs/a --dataset photos --tta ten", SCORED),
    (f"{PY}evaluate --weights runs/a runs/b --dataset photos", SCORED),
    (f"{PY}predict --weights runs/a --input DATA/val --out predictions.csv --top 2", SCORED),
    (
        f"find DATA/val/ -name '*.JPEG' | {PY}predict --weights runs/a --input - --out - --format jsonl "
        "--top 1",
        SCORED,
    ),
    (
        f"{PY}predict --weights runs/a runs/b --input list.txt --out predictions.parquet --logits logits.npy "
        "--tta flip",
        SCORED,
    ),
    (f"{PY}plot runs/mine", ""),
    (f"{PY}plot runs/a runs/b --x epoch --out compare", ""),
    (f"{PY}plot --schedule --recipe mlperf-4096 --images 1281167 --out pictures", ""),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a clone of this project, with small data under the names in the documents."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("dml", "scripts", "sysds_resnet", "pyproject.toml"):
        (folder / part).symlink_to(ROOT / part)
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"  # a link would lose where its packages are
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)
    rng = np.random.default_rng(0)
    for split, images in (("train", 8), ("val", 2)):
        for c, kind in enumerate(("red", "green")):
            place = folder / "DATA" / split / kind
            place.mkdir(parents=True)
            for i in range(images):
                pixels = rng.integers(0, 120, (70, 80, 3), dtype=np.uint8)
                pixels[..., c] += 100
                Image.fromarray(pixels).save(place / f"{i}.JPEG")
    (folder / "list.txt").write_text("DATA/val/red/0.JPEG\n")
    np.savetxt(folder / "X.csv", rng.integers(0, 255, (8, 3 * 32 * 32)), fmt="%d", delimiter=",")
    np.savetxt(folder / "Y.csv", np.arange(8) % 3 + 1, fmt="%d")
    torch.save(random_resnet(18, 10).state_dict(), folder / "resnet50.pth")
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder / "microsoft-resnet-50")
    return folder


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_commands_run_one_after_the_other(clone):
    for text, small in SEQUENCE:
        line = text.replace("bash scripts/quickstart.sh", f"{PY}train")
        if "evaluate" in text:
            line = line.replace("--dataset photos", "--dataset DATA")  # hundreds of photographs
        if line.endswith("out=model"):
            shutil.rmtree(clone / "model", ignore_errors=True)
        done = subprocess.run(
            ["bash", "-c", f"{line} {small}"], cwd=clone, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, (line, done.stdout[-1000:], done.stderr[-1000:])
        if "--out runs/mine" in text:
            for copy in ("a", "b"):
                shutil.copytree(clone / "runs" / "mine", clone / "runs" / copy)
    for path in ("runs/digits/curves.html", "predictions.parquet", "mine-hf/config.json", "model/tensors"):
        assert (clone / path).exists(), path


def test_what_prepare_prints_are_commands_that_work(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--dataset", "synthetic", "--matrices", "--blocks", "8", "--workers", "1", "--out", "a b"]
    outcome = run_here(capfd, "prepare", *options)
    assert outcome.code == 0, outcome.err
    *_, program, line = outcome.out.splitlines()
    words = shlex.split(program)
    assert words[1:5] == ["-m", "sysds_resnet.systemds", "dml/train.dml", "-nvargs"]
    given = dict(word.split("=", 1) for word in words[5:])
    for argument in ("X", "Y", "mean_std"):
        assert Path(f"{given[argument]}.mtd").is_file()
    printed = Command(line, "", True)
    assert "python" in Path(shlex.split(line)[0]).name
    options = [PLACES.get(word, {"K": "2"}.get(word, word)) for word in printed.options]
    assert isinstance(spark_command.dml_line(parse(spark_command.DmlSettings, options[1:])), list)
