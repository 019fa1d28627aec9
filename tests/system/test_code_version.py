"""The version of the code that runs, as a repository of git and an installation by pip tell it."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from sysds_resnet.system import code_version


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with one commit, in the place of this project's clone; gives a function that runs git."""

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "sysds_resnet").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    git("init", "-q")
    git("add", "pyproject.toml")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(code_version, "_PACKAGE", tmp_path / "sysds_resnet")
    return git


def test_in_a_clone_it_is_the_commit_of_git(clone, tmp_path):
    head = clone("rev-parse", "HEAD")
    clone("tag", "v1")
    assert code_version.commit() == head
    assert code_version.code_version().endswith(f", commit {head}")
    (tmp_path / "other").touch()
    assert code_version.commit() == head
    (tmp_path / "pyproject.toml").write_text("changed")
    assert code_version.commit() == f"{head}-dirty"


def installed(text):
    return lambda name: SimpleNamespace(version="1.2", read_text=lambda file: text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            json.dumps({"url": "https://e.example/r.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}),
            "ab12",
        ),
        (json.dumps({"url": "file:///r", "dir_info": {"editable": True}}), None),
        ("no JSON", None),
        (None, None),
    ],
)
def test_in_an_installation_it_is_what_pip_wrote_down(tmp_path, monkeypatch, text, found):
    monkeypatch.setattr(code_version, "_PACKAGE", tmp_path / "sysds_resnet")
    monkeypatch.setattr(code_version, "distribution", installed(text))
    assert code_version.commit() == found
    expected = "sysds-resnet 1.2, commit ab12" if found else "sysds-resnet 1.2"
    assert code_version.code_version() == expected
