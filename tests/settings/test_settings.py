"""Settings: flags, defaults, help, and what is refused."""

import re

import pytest
from command_line import assert_one_line_error, run_here
from command_settings import SETTINGS

from sysds_resnet.errors import UserError
from sysds_resnet.settings.command_line import build, parse
from sysds_resnet.settings.fields import facts_of, names_where
from sysds_resnet.settings.foreign_flags import FOREIGN
from sysds_resnet.train import TrainSettings

DOCUMENTED = {  # the list for train
    *["dataset", "model", "image_size", "epochs", "batch_size", "micro_batch", "optimizer", "base_lr"],
    *[
        "momentum",
        "weight_decay",
        "trust_coeff",
        "warmup_epochs",
        "seed",
        "precision",
        "heap",
        "out",
        "resume",
    ],
}


# Where values come from


def test_the_default_is_the_documented_run():
    settings = parse(TrainSettings, [])
    expected = dict(dataset="digits", model="resnet50", optimizer="lars", base_lr=10.0, epochs=8, power=2.0)
    expected |= dict(batch_size=64, momentum=0.9, trust_coeff=0.001, warmup_epochs=0.8, seed=42)
    assert {name: getattr(settings, name) for name in expected} == expected


def test_amp_is_bf16_and_nothing_else():
    assert parse(TrainSettings, ["--amp"]).precision == "bf16"
    assert parse(TrainSettings, ["--amp", "--precision", "bf16"]).precision == "bf16"
    assert parse(TrainSettings, ["--no-amp"]).precision == "single"
    with pytest.raises(UserError, match="expected only one of amp and precision double"):
        parse(TrainSettings, ["--amp", "--precision", "double"])


def test_a_list_takes_several_values():
    assert parse(TrainSettings, ["--milestones", "3", "6.5", "--gamma", "0.2"]).milestones == [3, 6.5]


def test_micro_batch_is_a_number_or_auto():
    assert parse(TrainSettings, []).micro_batch == parse(TrainSettings, ["--micro-batch", "auto"]).micro_batch
    assert parse(TrainSettings, ["--micro-batch", "16"]).micro_batch == 16
    for wrong in ("0", "some"):
        with pytest.raises(UserError, match="micro_batch: found"):
            parse(TrainSettings, ["--micro-batch", wrong])


def test_environment_variables_do_not_leak_in(monkeypatch, tmp_path):
    for name in TrainSettings.model_fields:
        monkeypatch.setenv(name.upper(), "7")
        monkeypatch.setenv(name, "7")
    (tmp_path / ".env").write_text("SEED=7\n")
    monkeypatch.chdir(tmp_path)
    assert parse(TrainSettings, []) == TrainSettings()
    assert TrainSettings().seed == 42


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().seed = 1


# Help


@pytest.mark.parametrize("command", SETTINGS)
def test_help_explains_every_setting(capfd, command):
    short = run_here(capfd, command, "--help")
    outcome = run_here(capfd, command, "--help-all") if "--help-all" in short.out else short
    assert (outcome.code, outcome.err) == (0, "")
    text = " ".join(outcome.out.split())
    assert text.startswith(f"usage: python -m sysds_resnet.{command} ")
    assert "%%" not in text and "==SUPPRESS==" not in text
    for name, field in SETTINGS[command].model_fields.items():
        flag = name.replace("_", "-")
        if not facts_of(SETTINGS[command], name)["positional"]:
            assert f" --{flag} " in text or f" --[no-]{flag} " in text
        assert " ".join(field.description.split()) in text.replace("- ", "-")


@pytest.mark.parametrize("command", SETTINGS)
def test_help_is_in_the_words_of_people(capfd, command):
    """No types of Python, no settings without a heading, and no more than fit a screen or two."""
    text = run_here(capfd, command, "--help").out
    assert not re.search(r"list\[|Path\b|\bstr\b|\bint\b|\bfloat\b|None", text)
    assert sum(line.startswith("  -") for line in text.splitlines()) <= 27
    wide = max(map(len, text.partition("examples:")[0].splitlines()))
    assert wide <= 80


def test_help_of_train_lists_what_people_change(capfd):
    short, every = (run_here(capfd, "train", flag).out for flag in ("--help", "--help-all"))
    listed = set(re.findall(r"^  (--[a-z-]+)", short, re.MULTILINE))
    assert {
        "--dataset",
        "--epochs",
        "--batch-size",
        "--base-lr",
        "--init-from",
        "--resume",
        "--out",
    } <= listed
    assert len(listed) <= 21 and "--trust-eps" not in listed
    assert "--trust-eps X" in every and "--[no-]trust-clip" in every and "Default: 0.001." in every


def test_train_has_the_documented_options():
    assert DOCUMENTED.issubset(TrainSettings.model_fields)


# Refusals


@pytest.mark.parametrize("command", SETTINGS)
def test_unknown_flags_are_refused(capfd, command):
    outcome = run_here(capfd, command, "--learning-rate", "1")
    assert_one_line_error(outcome, f"--learning-rate: found no such flag, expected those of {command}")


def test_abbreviated_flags_are_refused(capfd):
    assert run_here(capfd, "train", "--batch", "32").code == 2


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--seed", "x"], "seed: found x, expected a valid integer"),
        (["--epochs", "1.5"], "epochs: found 1.5, expected a valid integer"),
        (["--base-lr", "fast"], "base_lr: found fast, expected a valid number"),
        (["--epochs", "0"], "epochs: found 0, expected greater than or equal to 1"),
        (["--momentum", "1"], "momentum: found 1, expected less than 1"),
        (["--base-lr", "-1"], "base_lr: found -1, expected greater than 0"),
        (["--image-size", "31"], "image_size: found 31, expected greater than or equal to 32"),
        (["--seed", "2147483648"], "seed: found 2147483648, expected less than 2147483648"),
        (["--label-smoothing", "1"], "label_smoothing: found 1, expected less than 1"),
        (["--heap", "much"], 'heap: found "much", expected a size such as 12g'),
        (["--heap", "10m"], "heap: found 10m, expected at least 512m"),
    ],
)
def test_values_out_of_range_are_named(capfd, tmp_path, flags, found):
    outcome = run_here(capfd, "train", "--dataset", "synthetic", "--out", tmp_path / "run", *flags)
    assert_one_line_error(outcome, found)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [["--model", "resnet20"], ["--optimizer", "adam"], ["--precision", "half"]])
def test_values_that_are_no_choice_are_refused(capfd, flags):
    outcome = run_here(capfd, "train", *flags)
    assert outcome.code == 2 and "Traceback" not in outcome.err
    last = outcome.err.splitlines()[-1]
    assert flags[1] in last and flags[0].removeprefix("--") in last


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--epoch", "3"], "--epoch: found no such flag, expected those of train; did you mean --epochs?"),
        (["--batch_size=3"], "; did you mean --batch-size?"),
        (["--zzz"], "--zzz: found no such flag, expected those of train; --help-all lists them"),
        (["--config"], "--config: found no value, expected one; add it"),
        (["--recipe"], "--recipe: found no value, expected one; add it"),
        (["--milestones"], "--milestones: found no value, expected one; add it"),
        (["--trust-clip", "yes"], "yes: found a word that belongs to no flag, expected flags of train"),
        (["--trust-clip=yes"], "--trust-clip: found the value 'yes', expected none; leave it out"),
    ],
)
def test_wrong_flags_are_named_in_one_line(capfd, flags, found):
    assert_one_line_error(run_here(capfd, "train", *flags), found)


@pytest.mark.parametrize(
    ("foreign", "own"),
    [
        ("lr", "base-lr"),
        ("data-path", "dataset"),
        ("arch", "model"),
        ("pretrained", "init-from"),
        ("j", "workers"),
    ],
)
def test_flags_of_other_programs_are_told_by_their_names_here(capfd, foreign, own):
    for flag in (f"--{foreign}", f"--{foreign.replace('-', '_')}"):
        outcome = run_here(capfd, "train", flag, "1")
        assert_one_line_error(outcome, f"{flag}: found no such flag", f"; did you mean --{own}?")


def test_foreign_flags_mean_settings_that_exist():
    known = {name for settings in SETTINGS.values() for name in settings.model_fields}
    for foreign, own in FOREIGN.items():
        assert set(own) <= known, foreign
        assert foreign.replace("-", "_") not in TrainSettings.model_fields, foreign


@pytest.mark.parametrize(("command", "missing"), [("evaluate", "weights"), ("predict", "weights")])
def test_a_missing_value_is_named(capfd, command, missing):
    expected = f"{missing}: found nothing, expected a value; add --{missing} WEIGHTS"
    assert_one_line_error(run_here(capfd, command), expected)


def test_values_from_python_are_checked_alike():
    with pytest.raises(UserError, match=r"^rate: no such setting"):
        build(TrainSettings, {"rate": 1})
    assert build(TrainSettings, {"epochs": 3}).epochs == 3


def test_help_lists_flags_under_headings(capsys):
    with pytest.raises(SystemExit):
        parse(TrainSettings, ["--help-all"])
    text = capsys.readouterr().out
    for heading, flag in (("schedule", "--base-lr"), ("optimizer", "--momentum"), ("hardware", "--heap")):
        assert flag in text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]


def test_every_setting_of_a_run_says_what_it_is():
    for name in TrainSettings.model_fields:
        facts = facts_of(TrainSettings, name)
        assert facts["group"] and facts["resume"] in ("same", "place", "free"), name
    assert names_where(TrainSettings, resume="place") == ("dataset", "layout", "val_split", "split_seed")
    assert "seed" in names_where(TrainSettings, resume="same", matters=True)
