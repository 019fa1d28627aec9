"""The URLs by which files on file systems that machines share are named."""

from __future__ import annotations

import os

from sysds_resnet.system.files import user_path

KINDS = ("file", "s3", "s3a", "hdfs", "viewfs")
"""The kinds of URLs that are read, by what stands before ://."""


def is_url(name: str) -> bool:
    """Tells whether a name is the URL of a file or folder, rather than a path of this machine."""
    return "://" in name


def absolute(name: str) -> str:
    """Gives a URL as it is, and any other path as an absolute one, which holds wherever a process runs."""
    return name if is_url(name) else os.path.abspath(user_path(name))
