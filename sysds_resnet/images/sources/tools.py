"""Files and folders that tools leave among images, which are no data."""

from __future__ import annotations

_TOOLS = frozenset(
    name.lower()
    for name in (
        "__MACOSX",  # zip files of macOS
        "__pycache__",
        "@eaDir",  # Synology
        "@tmp",
        "#recycle",
        "#snapshot",
        "@__thumb",  # QNAP
        "@Recycle",
        "@Recently-Snapshot",
        "$RECYCLE.BIN",  # Windows
        "System Volume Information",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "lost+found",  # ext4
        "Network Trash Folder",  # file servers
        "Temporary Items",
    )
)


def is_tool(name: str) -> bool:
    """Whether a name in a folder is a tool's: hidden, as `.ipynb_checkpoints` and `._1.jpg`, or known."""
    return name.startswith(".") or name.lower() in _TOOLS


def kind_of_tool(name: str) -> str:
    """What a note calls it: `._*` for macOS's companions of files, else its name."""
    return "._*" if name.startswith("._") else name
