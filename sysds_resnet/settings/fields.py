"""Fields of settings that say of themselves what others ask about them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Resume = Literal["same", "place", "free"]
"""What a resumed run may do with a setting: "same" for what it must agree with, "place" for where its data
lie, which it may say anew as digests tell whether they are the same, and "free" for what it may change."""


def setting(
    default: Any = ...,
    *,
    group: str,
    resume: Resume = "same",
    matters: bool = True,
    **constraints: Any,
) -> Any:
    """A field of a class of settings.

    Args:
        default: Its value where nothing else is given; without one it must be given.
        group: The heading under which --help lists it.
        resume: What a resumed training run may do with it.
        matters: Whether a run's weights or speed depend on it, by which runs are told apart.
        **constraints: As of pydantic's `Field`: description, ge, le, ...
    """
    facts = {"group": group, "resume": resume, "matters": matters}
    return Field(default, json_schema_extra=facts, **constraints)


def facts_of(settings: type[BaseModel], name: str) -> dict[str, Any]:
    """What `setting` was told of a field: "group", "resume" and "matters"; nothing of other fields."""
    return dict(settings.model_fields[name].json_schema_extra or {})


def names_where(settings: type[BaseModel], **facts: Any) -> tuple[str, ...]:
    """The names of the fields of which these facts are true, in their order.

    `names_where(TrainSettings, resume="free")` are those that a resumed run may change.
    """
    return tuple(name for name in settings.model_fields if facts.items() <= facts_of(settings, name).items())
