"""The search for the name that somebody meant who misspelt one."""

from collections.abc import Iterable
from difflib import SequenceMatcher

from sysds_resnet.errors import UserError

_SIMILAR = 0.4  # the least similarity of a suggestion; that of equal names is 1
_AS_SIMILAR = 0.85  # the least share of the best suggestion's similarity
_MOST = 3  # more suggestions tell nothing


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Gives a question for an error message, such as "; did you mean epochs?".

    For programs in DML, engine/jvm/ProgramArguments.java asks the same of their arguments, without Python.

    Args:
        name: The name that does not exist.
        known: The names that exist.

    Returns:
        The question; an empty text if no name is similar, or many are.
    """
    found = {other: _similarity(name, other) for other in known}
    least = max(_SIMILAR, _AS_SIMILAR * max(found.values(), default=0))
    nearest = [other for other, similarity in found.items() if similarity >= least]
    return f"; did you mean {' or '.join(nearest)}?" if 1 <= len(nearest) <= _MOST else ""


def refuse_unknown(names: Iterable[str], known: Iterable[str], function: str) -> None:
    """Checks that a function knows the names of arguments that it was given.

    Raises:
        UserError: If one is not known; it names similar ones, or all that are known if none is similar.
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
