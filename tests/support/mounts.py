"""Running a program where folders are mounted otherwise, as in a container; needs root."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@cache
def can_mount():
    """Whether this user may mount what only a process and its children see."""
    try:
        done = subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs root, to mount /dev/shm and /tmp")


def run_mounted(mounts, *command, **options):
    """Run a command with a tmpfs in each folder of `mounts`, which gives its mount options."""
    lines = "".join(f"mount -t tmpfs -o {how} none {folder} && " for folder, how in mounts.items())
    # the source stays where it is if it is in one of these folders
    keep = (
        f"exec 8<{ROOT} && {lines}mkdir -p {ROOT} && mount -c --bind /proc/self/fd/8 {ROOT} && cd {ROOT} && "
    )
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", f'{keep}exec "$@"', "bash", *map(str, command)],
        capture_output=True,
        text=True,
        **options,
    )
