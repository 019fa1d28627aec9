"""The fields of settings, which hold what the help, resumed runs and plots need to know of a setting."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Resume = Literal["same", "place", "free"]
"""What a resumed run may do with a setting: "same" for one that must not change, "place" for where its data
lie, which may change since digests tell whether the data are the same, and "free" for one that may change."""


def setting(
    default: Any = ...,
    *,
    group: str,
    resume: Resume = "same",
    matters: bool = True,
    **constraints: Any,
) -> Any:
    """Declares a field of a class of settings.

    Args:
        default: The value of the field if none is given; without a default, a value must be given.
        group: The heading under which --help lists the field.
        resume: What a resumed training run may do with the field.
        matters: Whether a run's weights or speed depend on the field, so that it tells runs apart.
        **constraints: The arguments of pydantic's `Field`: description, ge, le, ...
    """
    facts = {"group": group, "resume": resume, "matters": matters}
    return Field(default, json_schema_extra=facts, **constraints)


def facts_of(settings: type[BaseModel], name: str) -> dict[str, Any]:
    """Gives "group", "resume" and "matters" of a field that `setting` declared; empty for other fields."""
    return dict(settings.model_fields[name].json_schema_extra or {})


def names_where(settings: type[BaseModel], **facts: Any) -> tuple[str, ...]:
    """Gives the names of the fields of which these facts are true, in their order.

    `names_where(TrainSettings, resume="free")` gives those that a resumed run may change.
    """
    return tuple(name for name in settings.model_fields if facts.items() <= facts_of(settings, name).items())
