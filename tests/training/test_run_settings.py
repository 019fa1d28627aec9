"""The settings in a run's config.yaml: read, compared when it is resumed, and changed with the reason."""

import errno
import os
from pathlib import Path

import pytest
import yaml
from command_line import assert_one_line_error, run_here
from training_runs import started

from sysds_resnet.errors import UserError
from sysds_resnet.training.run_folder import (
    check_settings,
    config_text,
    read_config,
    update_config,
    write_config,
)
from sysds_resnet.training.settings import TrainSettings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_settings_are_read_with_a_byte_order_mark_or_without(encoding, tmp_path):
    (tmp_path / "config.yaml").write_bytes("dataset: Flügel/Äpfel\n".encode(encoding))
    assert read_config(tmp_path) == {"dataset": "Flügel/Äpfel"}


def test_another_batch_size_is_named_and_not_what_it_does_to_the_micro_batch(capfd, tmp_path):
    folder = started(tmp_path / "run", batch_size=12, micro_batch=6)
    outcome = run_here(capfd, "train", "--resume", folder, "--batch-size", 9)
    assert_one_line_error(
        outcome, f"batch_size: found 9, expected 12 as in {folder / 'config.yaml'}; resume with"
    )


def test_settings_that_change_nothing_may_be_others(tmp_path):
    folder = started(tmp_path / "run", dataset="a", micro_batch=6)
    check_settings(TrainSettings(dataset="b", micro_batch=3, heap="1g", workers=1), folder)
    with pytest.raises(UserError, match=r"^seed: found 1, expected 42"):
        check_settings(TrainSettings(seed=1), folder)


# Changes that are written down


def test_changes_are_written_down_with_their_reasons(tmp_path):
    folder = started(tmp_path / "run", dataset="a", micro_batch=8)
    write_config(folder, TrainSettings(dataset="a", micro_batch=4), "micro_batch 4: heap\nfull")
    update_config(folder, TrainSettings(dataset="b", micro_batch=2, heap="1g"), 7)
    update_config(folder, TrainSettings(dataset="b", micro_batch=2, heap="2g"), 9)  # nothing to write down
    text = (folder / "config.yaml").read_text()
    assert text.splitlines()[:2] == [
        "# micro_batch 4: heap full",
        "# dataset b in place of a, micro_batch 2 in place of 4 from step 7 on, as asked for",
    ]
    assert yaml.safe_load(text) | {"dataset": "a", "micro_batch": 8} == yaml.safe_load(
        config_text(TrainSettings(dataset="a", micro_batch=8))
    )


def test_settings_that_the_disk_does_not_take_are_an_error_that_leaves_the_old(tmp_path, monkeypatch):
    folder = started(tmp_path / "run")
    before = (folder / "config.yaml").read_text()

    def full(path, *_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"config.yaml: cannot be written \(no space left on device\)"):
        write_config(folder, TrainSettings(seed=3))
    assert (folder / "config.yaml").read_text() == before
