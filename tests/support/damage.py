"""Damage to files, and what was changed in a folder."""


def flip(path, position):
    """Invert the bits of one byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def cut(path, kept=0.5):
    """Keep only this share of a file."""
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])


def changes(folder):
    """When what is below a folder was changed, but for the lock of a command at work there."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
