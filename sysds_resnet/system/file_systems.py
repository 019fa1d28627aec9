"""The file systems behind paths and URLs, as Arrow opens them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.system.arrow import arrow
from sysds_resnet.system.urls import KINDS, is_url

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def open_system(name: str) -> tuple[FileSystem, str]:
    """Opens the file system of a path or URL, and gives it with the name of the file in it.

    Raises:
        OSError, ArrowException: If there is no such file system.
        UserError: If a URL holds a password, which would be written down with it.
    """
    fs = arrow(name).fs
    if not is_url(name):
        return fs.LocalFileSystem(), name
    kind, _, rest = name.partition("://")
    login, at, place = rest.partition("/")[0].rpartition("@")
    if at and ":" in login:
        raise UserError(
            f"{kind}://...@{place}: found a password in the URL, expected none, since URLs are written into "
            "files and messages: leave it out, and set it in the environment, such as AWS_SECRET_ACCESS_KEY"
        )
    if kind not in KINDS:  # Arrow knows more kinds, but waits for a network or ends the process with them
        raise OSError(f"{kind}: is none of the kinds of URLs that are read: {', '.join(KINDS)}")
    try:
        # Arrow calls Hadoop's s3a by the name s3
        return fs.FileSystem.from_uri(name.replace("s3a://", "s3://", 1))
    except OSError as error:
        if not any(library in str(error) for library in ("libhdfs", "libjvm")):
            raise
        raise OSError(
            "no Hadoop client that works here: set HADOOP_HOME or ARROW_LIBHDFS_DIR to where libhdfs is, "
            "JAVA_HOME, and CLASSPATH to what `hadoop classpath --glob` prints; Arrow says: "
            f"{one_line(error)[:100]}"
        ) from error
