"""The scripts for AWS as far as they come without it: dry runs, usage, and options that do not fit."""

import shlex
import subprocess

import pytest
from cloud_scripts import AWS, REPOSITORY, at_home, start, user_of
from command_line import assert_one_line_error

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _user():
    with at_home(user_of("http://127.0.0.1:9")):  # where nobody answers
        yield


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        (["launch", "--key-name", "a b", "--repo", REPOSITORY], ["ec2 run-instances", "--key-name a\\ b"]),
        (["emr", "--key-name", "key", "--idle", "30"], ["Name=Spark", "IdleTimeout=1800"]),
        (["stop", "i-1", "j-1", "--terminate"], ["ec2 terminate-instances", "emr terminate-clusters"]),
        (["stop", "--list"], ["ec2 describe-instances"]),
    ],
)
def test_a_dry_run_prints_commands_and_needs_no_account(command, changes, tmp_path):
    """There is no aws on the path: nothing can have been run."""
    for name in ("bash", "dirname", "mktemp", "cat", "wc", "git"):
        (tmp_path / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    arguments = ["bash", str(AWS / f"{command[0]}.sh"), *command[1:], "--dry-run", "--region", "eu-north-1"]
    environment = {"PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    commands = [line for line in done.stdout.splitlines() if line.startswith("aws ")]
    assert commands and all("--region eu-north-1" in line for line in commands)
    for text in changes:
        assert any(text in line for line in commands), done.stdout
    for line in commands:
        assert shlex.split(line)[0] == "aws"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (["launch", "--type", "tpu"], "--type: found tpu"),
        (["launch", "--repo", "git@example.org:a/b.git"], "--repo: found none or one of another kind"),
        (
            ["launch", "--repo", "https://name:word@example.org/b.git"],
            "--repo: found none or one of another kind",
        ),
        (["launch", "--data", "bucket"], "--data: found bucket"),
        (["launch", "--data", "s3://bucket"], "--instance-profile: found none"),
        (["launch", "--at-end", "terminate"], "--at-end: found terminate without --results"),
        (["launch", "--disk", "10G"], "--disk: found 10G"),
        (["launch", "--disk"], "--disk: found nothing"),
        (["launch", "--nonsense", "1"], "--nonsense: found an option that there is not"),
        (["launch", "--repo", REPOSITORY, "--ssh-from", "0.0.0.0/0"], "--ssh-from: found 0.0.0.0/0"),
        (["emr", "--release", "emr-6.15.0"], "--release: found emr-6.15.0"),
        (["emr", "--instance-type", "m5.xlarge,Market=SPOT"], "--instance-type: found m5.xlarge,Market=SPOT"),
        (["stop", "vol-1"], "vol-1: found neither an option nor an id"),
    ],
)
def test_what_does_not_fit_is_named(command, found, tmp_path):
    name, *options = command
    key = [] if name == "stop" else ["--key-name", "key"]
    assert_one_line_error(start(name, *key, *options, "--dry-run", TMPDIR=str(tmp_path)), found)


@pytest.mark.parametrize("name", ["launch", "emr", "stop"])
def test_usage_is_shown_for_help_and_for_nothing(name):
    helped, empty = start(name, "--help"), start(name)
    assert (helped.code, helped.err) == (0, "") and helped.out.startswith("usage: bash ")
    assert (empty.code, empty.out, empty.err) == (2, "", helped.out)
