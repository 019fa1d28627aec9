"""The commands in the documents of this project."""

import re
import shlex
from dataclasses import dataclass

from command_line import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_INLINE = re.compile(r"`([^`]+)`")
_BEGINNINGS = re.compile(
    r"(\w+=\S+ )*((\.venv/bin/)?(python|pip|pytest) |bash |(\.venv/bin/)?(tensorboard|spark-submit) |"
    r"\.venv/bin/venv-pack |apt-get |aws |ssh |scripts/\S+ )"
)


@dataclass(frozen=True)
class Command:
    """A command as it stands in a document.

    Attributes:
        text: In one line, without its comment.
        document: Name of the document.
        fenced: Whether it stands in a block, to be copied, rather than in a sentence.
    """

    text: str
    document: str
    fenced: bool

    @property
    def words(self):
        """As a shell reads them, up to a pipe's end."""
        return shlex.split(self.text)

    @property
    def module(self):
        """The command of this package that it runs, if it runs one."""
        found = re.search(r"python -m sysds_resnet\.(\w+)", self.text)
        return found[1] if found else None

    @property
    def options(self):
        """What follows the command of this package."""
        return shlex.split(self.text.partition(f"sysds_resnet.{self.module}")[2])


def commands():
    """All of them, in the order of the documents."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for language, block in _FENCED.findall(text):
            if language not in ("bash", "console", "sh", "shell"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                if language == "console" and not line.startswith("$ "):
                    continue  # what a command prints
                line = _one_line(re.sub(r"(^|\s)#.*", "", line.removeprefix("$ ")))
                if line:
                    found.append(Command(line, path.name, True))
        for code in _INLINE.findall(_FENCED.sub("", text)):
            if _BEGINNINGS.match(code := _one_line(code)):
                found.append(Command(code, path.name, False))
    return list(dict.fromkeys(found))


def _one_line(text):
    return " ".join(text.split())
