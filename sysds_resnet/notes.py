"""What users should know though nothing is wrong: one line each on standard error."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Prints a note; standard output stays free for results."""
    print(f"note: {text}", file=sys.stderr)
