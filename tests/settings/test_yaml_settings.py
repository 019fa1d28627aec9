"""Settings from YAML files: what they mean, what wins over them, and what is refused."""

import os

import pytest
import yaml
from command_line import assert_one_line_error, run_here

from sysds_resnet.settings.command_line import parse
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.run_folder import config_text


@pytest.fixture
def yaml_file(tmp_path):
    """Write a mapping, or a text, into a YAML file."""

    def write(content):
        path = tmp_path / "settings.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def test_flags_win_over_yaml_and_yaml_over_defaults(yaml_file):
    path = yaml_file({"epochs": 3, "base_lr": 1.5, "trust_clip": True, "model": "resnet18"})
    flags = ["--config", str(path), "--base-lr", "2.5", "--no-trust-clip"]
    settings = parse(TrainSettings, flags)
    assert (settings.epochs, settings.model) == (3, "resnet18")
    assert (settings.base_lr, settings.trust_clip) == (2.5, False)
    assert settings.batch_size == TrainSettings().batch_size
    assert parse(TrainSettings, [f"--config={path}"]).base_lr == 1.5


def test_what_is_written_to_config_yaml_is_read_back_the_same(yaml_file):
    settings = TrainSettings(epochs=2, image_size=64, heap="2g", lr_in_momentum=False, weight_decay=5e-5)
    path = yaml_file(config_text(settings))
    assert parse(TrainSettings, ["--config", str(path)]) == settings.model_copy(update={"config": path})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"learning_rate": 1}, "learning_rate: no such setting; expected one of config, debug, dataset"),
        ({"base-lr": 1}, "base-lr: no such setting"),
        (
            {"optimizer": "adam"},
            "optimizer: found adam, expected 'lars', 'sgd', 'nesterov', 'adamw' or 'lamb'",
        ),
        ({"epochs": "many"}, "epochs: found many, expected a valid integer"),
        ({"epochs": -3}, "epochs: found -3, expected greater than or equal to 1"),
        ({"trust_clip": "maybe"}, "trust_clip: found maybe, expected a valid boolean"),
        ({"base_lr": [1, 2]}, "base_lr: found [1, 2], expected a valid number"),
        ({"base_lr": float("nan")}, "base_lr: found nan, expected"),
        ({"base_lr": float("inf")}, "base_lr: found inf, expected"),
        ({7: 1}, "settings.yaml: found the name 7, expected names of settings"),
        ("- epochs\n- 3\n", "settings.yaml: found list, expected a mapping"),
        ("", "settings.yaml: found NoneType, expected a mapping"),
        ("epochs: [3", "settings.yaml: found no valid YAML"),
        ("!!python/object/apply:os.system [touch hacked]", "settings.yaml: found no valid YAML"),
        (
            "epochs: 3\nmodel: resnet18\nepochs: 4",
            "settings.yaml: found no valid YAML (found the name epochs twice",
        ),
        ("epochs: true", "epochs: found True, expected another value than true or false"),
        ("base_lr: no", "base_lr: found False, expected another value than true or false"),
        ("milestones: [true, 2]", "milestones: found [True, 2], expected another value"),
        ("micro_batch: yes", "micro_batch: found True, expected another value"),
        ("epochs: null", "epochs: found None, expected a valid integer"),
        ("epochs: 1:30", "epochs: found 1:30, expected a valid integer"),
        ("epochs: 2024-01-01", "epochs: found 2024-01-01, expected a valid integer"),
        ("out: 3", "out: found 3, expected a path, in quotes if it looks like a number"),
        ("epoch: 3", "; did you mean epochs?"),
        ("lr: 3", "; did you mean base_lr or end_lr?"),
        ("Epochs: 3", "; did you mean epochs?"),
        ("[" * 5000, "settings.yaml: found no valid YAML (too many brackets)"),
        ("epochs: " + "9" * 5000, "settings.yaml: found no valid YAML"),
        ("epochs: " + "x" * 5000, f"epochs: found {'x' * 200}..., expected a valid integer"),
        ("# " + "x" * 2**20, "settings.yaml: found more than 1048576 bytes, expected settings"),
    ],
)
def test_what_is_wrong_in_a_yaml_file_is_named(capfd, yaml_file, monkeypatch, tmp_path, content, found):
    monkeypatch.chdir(tmp_path)
    outcome = run_here(capfd, "train", "--config", yaml_file(content))
    assert_one_line_error(outcome, found)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.yaml"]


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("base_lr: 1e-4", "base_lr", 1e-4),  # a text in YAML 1.1
        ("base_lr: 1.5e+1", "base_lr", 15.0),
        ("epochs: 8.0", "epochs", 8),
        ("epochs: '8'", "epochs", 8),
        ("seed: 010", "seed", 10),  # 8 in YAML 1.1
        ("trust_clip: yes", "trust_clip", True),
        ("trust_clip: 1", "trust_clip", True),
        ("heap: null", "heap", None),
        ("dataset: 2024-01-01", "dataset", "2024-01-01"),
        ("dataset: 12:30", "dataset", "12:30"),
        ("\ufeffepochs: 3", "epochs", 3),
        ("dataset: gr\u00fcn", "dataset", "gr\u00fcn"),
    ],
)
def test_values_in_yaml_mean_what_people_mean(tmp_path, text, name, value):
    (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
    found = getattr(parse(TrainSettings, ["--config", str(tmp_path / "settings.yaml")]), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "dataset", ["1e3", "1:30", "010", "yes", "2024-01-01", "1_000", "0x1f", "null", "3", "~"]
)
def test_texts_that_look_like_something_else_come_back_from_config_yaml(yaml_file, dataset):
    path = yaml_file(config_text(TrainSettings(dataset=dataset)))
    assert parse(TrainSettings, ["--config", str(path)]).dataset == dataset


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "UTF-16"), ("latin-1", "ISO-8859-1")])
def test_yaml_in_another_encoding_is_refused_by_its_name(capfd, tmp_path, encoding, said):
    path = tmp_path / "settings.yaml"
    path.write_bytes("dataset: grün".encode(encoding))
    assert_one_line_error(run_here(capfd, "train", "--config", path), path, said, "expected UTF-8")


def test_a_config_that_is_no_file_is_named_and_not_waited_for(capfd, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, found in ((tmp_path, "a folder"), (tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device")):
        assert_one_line_error(run_here(capfd, "train", "--config", path), path, found)


def test_a_missing_yaml_file_is_named(capfd, tmp_path):
    outcome = run_here(capfd, "train", "--config", tmp_path / "none.yaml")
    assert_one_line_error(outcome, tmp_path / "none.yaml", "No such file")
