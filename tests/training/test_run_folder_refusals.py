"""Folders that cannot be a run's, and those that hold none to resume: refused with the cause, in one line."""

import errno
import os
from pathlib import Path

import pytest
from command_line import assert_one_line_error, run_here


def long_name(folder):
    return folder / ("x" * 300)


def a_file(folder):
    (folder / "file").write_text("")
    return folder / "file"


def below_a_file(folder):
    return a_file(folder) / "run"


def a_dead_link(folder):
    (folder / "link").symlink_to(folder / "nothing")
    return folder / "link"


def foreign_files(folder):
    (folder / "thesis.tex").write_text("")
    return folder


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (long_name, "cannot be made (file name too long)"),
        (a_file, "found a file there"),
        (below_a_file, "cannot be made (a file is in its way)"),
        (a_dead_link, "found a file there"),
        (foreign_files, "found files there, expected a new or empty run folder"),
    ],
)
def test_a_folder_that_cannot_be_a_runs_is_an_error_with_its_cause(make, found, capfd, tmp_path):
    out = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outcome = run_here(capfd, "train", "--dataset", "digits", "--out", out)
    assert_one_line_error(outcome, f"{out}: {found}", "--out")
    assert "--resume" not in outcome.err  # there is no run to continue
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_folder_is_an_error_with_its_cause(code, capfd, monkeypatch, tmp_path):
    def refuse(path, *_args, **_kwargs):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    outcome = run_here(capfd, "train", "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"{tmp_path / 'run'}: cannot be made ({os.strerror(code).lower()})")


@pytest.mark.parametrize("flag", ["--out", "--resume", "--dataset", "--init-from"])
def test_an_empty_name_is_refused(flag, capfd):
    outcome = run_here(capfd, "train", flag, "")
    name = flag.strip("-").replace("-", "_")
    assert_one_line_error(outcome, f"{name}: found nothing, expected a value that is not empty")


def no_config(folder):
    return folder


def damaged(folder):
    (folder / "config.yaml").write_bytes(b"model: [resnet18\n\0")
    return folder


def empty_config(folder):
    (folder / "config.yaml").touch()
    return folder


def latin(folder):
    (folder / "config.yaml").write_bytes("dataset: fl\xfcgel".encode("latin-1"))
    return folder


def newer(folder):
    (folder / "config.yaml").write_text("model: resnet18\nquantum: true\n")
    return folder


def impossible(folder):
    (folder / "config.yaml").write_text("model: resnet18\nepochs: -3\n")
    return folder


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (long_name, ": cannot be read (file name too long)"),
        (a_file, ": found a file, expected the folder of a run"),
        (no_config, ": found no config.yaml, expected the folder of a run that has begun"),
        (damaged, "/config.yaml: found bytes that are no text, expected text in UTF-8"),
        (empty_config, "/config.yaml: found NoneType, expected a mapping"),
        (latin, "/config.yaml: found text that seems to be in ISO-8859-1, expected UTF-8"),
        (newer, "/config.yaml: found the setting quantum, which this version"),
        (impossible, "/config.yaml: epochs: found -3"),
    ],
)
def test_what_is_no_run_is_not_resumed(make, found, capfd, tmp_path):
    folder = make(tmp_path)
    assert_one_line_error(run_here(capfd, "train", "--resume", folder), f"{folder}{found}")
