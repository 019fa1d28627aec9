"""What somebody meant who misspelt a name."""

from collections.abc import Iterable
from difflib import SequenceMatcher

from sysds_resnet.errors import UserError

_SIMILAR = 0.4  # 1 for names that are the same
_AS_SIMILAR = 0.85  # of the most similar name
_MOST = 3  # more of them tell nothing


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question for an error message, such as "; did you mean epochs?".

    Programs in DML ask the same of their arguments, without Python: see engine/jvm/ProgramArguments.java.

    Args:
        name: That there is not.
        known: Names that there are.

    Returns:
        An empty text if no name is similar, or many are.
    """
    found = {other: _similarity(name, other) for other in known}
    least = max(_SIMILAR, _AS_SIMILAR * max(found.values(), default=0))
    nearest = [other for other, similarity in found.items() if similarity >= least]
    return f"; did you mean {' or '.join(nearest)}?" if 1 <= len(nearest) <= _MOST else ""


def refuse_unknown(names: Iterable[str], known: Iterable[str], function: str) -> None:
    """Checks the names of a function's arguments.

    Raises:
        UserError: If one is not known; with what was meant, or all that are known if that is not plain.
    """
    known = list(known)
    for name in names:
        if name not in known:
            question = did_you_mean(name, known) or f": {', '.join(known)}"
            raise UserError(
                f"{name}: found an argument that {function} has not, expected one of its own{question}"
            )


def _similarity(one: str, other: str) -> float:
    plain = (text.lower().replace("-", "_").strip("_") for text in (one, other))
    return SequenceMatcher(None, *plain).ratio()
