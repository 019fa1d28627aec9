"""The names of files and folders that tools leave among images, which are no data."""

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
    """Tells whether a name is a tool's: hidden, like `.ipynb_checkpoints` and `._1.jpg`, or a known one."""
    return name.startswith(".") or name.lower() in _TOOLS


def kind_of_tool(name: str) -> str:
    """Gives what a note calls the name of a tool: `._*` for macOS's companions of files, else the name."""
    return "._*" if name.startswith("._") else name
