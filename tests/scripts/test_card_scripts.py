"""The scripts by number of cards: what they run, and a training by one of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import assert_one_line_error, finish
from PIL import Image

from sysds_resnet.report.metrics import read_metrics

SCRIPTS = Path(__file__).parents[2] / "scripts"
CARDS = {
    "fp32_1card": (1, []),
    "amp_1card": (1, ["--amp"]),
    "fp32_4cards": (4, []),
    "amp_4cards": (4, ["--amp"]),
    "fp32_8cards": (8, []),
    "amp_8cards": (8, ["--amp"]),
    "fp32_16cards": (16, []),
}


def start(name, *arguments, cwd=None, programs=None):
    """Run a script as its users do, with this Python where the repository has no .venv, and more programs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    path = path if programs is None else f"{programs}{os.pathsep}{path}"
    process = subprocess.Popen(
        ["bash", SCRIPTS / f"{name}.sh", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PATH": path},
    )
    return finish(process)


def words(line):
    """The arguments that bash makes of a line, without the program that it runs."""
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    return printed.stdout.decode().split("\0")[1:-1]


def test_there_is_a_script_for_each_kind_and_number_of_cards():
    assert {path.stem for path in SCRIPTS.glob("*card*.sh")} == {*CARDS, "cards"}


@pytest.mark.parametrize("name", CARDS)
def test_each_card_is_a_share_of_the_batch(name, tmp_path):
    cards, precision = CARDS[name]
    outcome = start(name, "--data-path", tmp_path, "--dry-run")
    assert outcome.code == 0
    expected = ["-m", "sysds_resnet.train", "--recipe", "torchvision-v1", "--dataset", str(tmp_path)]
    expected += [
        "--batch-size",
        str(256 * cards),
        "--micro-batch",
        "256",
        "--lr-scaling",
        "linear",
        *precision,
    ]
    assert outcome.out.count("\n") == 1 and words(outcome.out) == expected


@pytest.mark.parametrize(
    "name", ["a b", "it's", "$(touch here)", 'quo"te', "new\nline", "back\\slash", "ümlaut", "*"]
)
def test_odd_paths_are_printed_as_a_shell_takes_them(name, tmp_path):
    data = tmp_path / name
    data.mkdir()
    outcome = start("fp32_4cards", f"--data-path={data}", "--dry-run", "--out", name, cwd=tmp_path)
    assert outcome.code == 0
    arguments = words(outcome.out)
    assert arguments[arguments.index("--dataset") + 1] == str(data)
    assert arguments[-2:] == ["--out", name]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_options_are_passed_on_in_their_order(tmp_path):
    options = ["--acc-thresh", "75.9", "--epochs", "90", "--no-debug"]
    outcome = start("amp_8cards", *options, "--batch-per-card", 32, "--data-path", tmp_path, "--dry-run")
    expected = ["--micro-batch", "32", "--lr-scaling", "linear", "--amp", *options]
    assert words(outcome.out)[-len(expected) :] == expected
    assert "--batch-size 256 " in outcome.out


@pytest.mark.parametrize(
    ("name", "options", "taken"),
    [
        ("fp32_4cards", [], True),
        ("fp32_4cards", ["--processes", "2"], False),
        ("fp32_4cards", ["--gpus", "2"], False),
        ("fp32_8cards", [], False),
        ("fp32_1card", [], False),
    ],
)
def test_as_many_gpus_as_cards_are_used(name, options, taken, tmp_path):
    """On a machine with four."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\nfor i in 0 1 2 3; do echo "GPU $i: a card (UUID: $i)"; done\n')
    program.chmod(0o755)
    outcome = start(name, "--data-path", tmp_path, "--dry-run", *options, programs=tmp_path)
    assert ("--gpus 4" in outcome.out) == taken
    alone = "one after the other" in outcome.err
    assert alone == (name == "fp32_8cards")


@pytest.mark.parametrize("name", CARDS)
def test_help_says_what_a_card_is_and_where_sixteen_run(name):
    outcome = start(name, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "Otherwise a card is a worker" in outcome.out and f"{name}.sh --data-path" in outcome.out
    assert ("Spark engine" in outcome.out) == (name == "fp32_16cards")


def test_several_cards_on_one_machine_are_announced(tmp_path):
    for name, (cards, _) in CARDS.items():
        note = start(name, "--data-path", tmp_path, "--dry-run").err
        assert bool(re.match(rf"{cards} cards: .*one after the other", note)) == (cards > 1)
        assert ("Spark engine" in note) == (cards == 16)


# Refusals


def test_without_data_the_usage_is_shown():
    outcome = start("fp32_1card", "--epochs", 1)
    assert (outcome.code, outcome.out) == (2, "") and outcome.err.startswith("usage: bash ")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--data-path", "none"], "none: found nothing there"),
        (["--data-path"], "--data-path: found nothing"),
        (["--data-path", ".", "--batch-per-card", "0"], "--batch-per-card: found 0"),
        (["--data-path", ".", "--batch-per-card", "many"], "--batch-per-card: found many"),
        (["--data-path", ".", "--batch-size=64"], "--batch-size: found it here"),
        (["--data-path", ".", "--micro-batch", "8"], "--micro-batch: found it here"),
        (["--dataset", "."], "--dataset: found it here"),
    ],
)
def test_what_does_not_fit_is_named(options, found, tmp_path):
    outcome = start("fp32_4cards", *options, cwd=tmp_path)
    assert_one_line_error(outcome, found)
    assert outcome.out == ""


# A training


@pytest.mark.long
def test_four_cards_train_on_a_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for split, number in (("train", 16), ("val", 4)):
        for k in range(number):
            path = tmp_path / "my data" / split / "ab"[k % 2] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    small = ["--model", "resnet18", "--image-size", 32, "--epochs", 1, "--heap", "2g", "--workers", 1]
    data = ["--data-path", "my data", "--batch-per-card", 4]
    outcome = start("fp32_4cards", *data, *small, "--out", "run", cwd=tmp_path)
    assert outcome.code == 0, outcome
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["dataset"], config["batch_size"], config["micro_batch"]) == ("my data", 16, 4)
    assert (config["optimizer"], config["precision"]) == ("sgd", "single")
    steps = read_metrics(tmp_path / "run", "step")
    assert steps["lr"].tolist() == pytest.approx([0.1 * 16 / 256])
    assert (tmp_path / "run" / "weights.safetensors").exists()
