"""The package pyarrow, which reads and writes parquet files and files under URLs."""

from __future__ import annotations

from types import ModuleType

from sysds_resnet.system.extras import extra


def arrow(what: object) -> ModuleType:
    """Gives pyarrow with its modules `parquet` and `fs`; processes that need none start sooner without it.

    Args:
        what: The file that is to be read or written.

    Raises:
        UserError: If it is not installed.
    """
    with extra("parquet", str(what)):
        import pyarrow
        import pyarrow.fs
        import pyarrow.parquet
    return pyarrow
