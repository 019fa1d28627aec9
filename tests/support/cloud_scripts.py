"""Running the scripts for AWS as a user of it, whose environment has nothing else of AWS."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import ROOT, finish

AWS = ROOT / "scripts" / "aws"
REGION = "eu-central-1"
ACCOUNT = "123456789012"  # moto's
IMAGE = "ami-785db401"  # one of Ubuntu that moto knows
REPOSITORY = "https://example.org/some/sysds_resnet.git"


def user_of(endpoint):
    """The environment of a user whose AWS is at an address."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def at_home(environment):
    """Meanwhile this process is a user's, with nothing of AWS in its environment but this."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        patch.delenv("AWS_REGION", raising=False)
        yield


def start(name, *arguments, cwd=None, **environment):
    """Run a script as its users do, with the aws of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", AWS / f"{name}.sh", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PATH": path, **environment},
    )
    return finish(process)
