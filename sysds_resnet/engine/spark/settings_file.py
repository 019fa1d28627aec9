"""Files for SystemDS that are kept when the process that writes them ends."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

from sysds_resnet.engine.jvm.multiply import LIBRARY
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.system.files import user_cache, write_whole


def cache_folder() -> Path:
    """Gives this user's folder for files that are kept, and makes it if it is not there.

    Raises:
        UserError: If it cannot be made.
    """
    folder = user_cache("sysds-resnet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {folder}: found that it cannot be made ({one_line(error)}), expected one for "
            "files that are kept; set XDG_CACHE_HOME or HOME to a folder that can be written to"
        ) from error
    return folder


def library_folder(library: Path) -> Path:
    """Gives a folder with a copy of a BLAS library under the name that the engine asks for.

    A link would not do: Spark sends the file that it points to, under that file's own name.
    """
    state = library.stat()
    folder = cache_folder() / _digest(f"{library} {state.st_size} {state.st_mtime_ns}".encode())
    copy = folder / LIBRARY
    if not copy.exists():
        write_whole({copy: partial(shutil.copyfile, library)})
    return folder


def settings_file(settings: Mapping[str, str]) -> Path:
    """Writes settings of SystemDS into a file for its option -config, and gives the file's path."""
    lines = "".join(f"  <{name}>{escape(value)}</{name}>\n" for name, value in settings.items())
    text = f"<root>\n{lines}</root>\n"
    path = cache_folder() / f"{_digest(text.encode())}.xml"
    write_whole({path: lambda temporary: temporary.write_text(text)})
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
