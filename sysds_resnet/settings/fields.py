"""The fields of settings, which hold what the help, resumed runs and plots need to know of a setting."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Group = Literal[
    "input",
    "data",
    "views of images",
    "augmentation",
    "mixing",
    "network",
    "training",
    "optimizer",
    "schedule",
    "hardware",
    "Spark cluster",
    "reading images",
    "broken images",
    "output",
    "run",
    "command",
]
"""The headings of --help, in their order."""

Resume = Literal["same", "place", "free"]
"""What a resumed run may do with a setting: "same" for one that must not change, "place" for where its data
lie, which may change since digests tell whether the data are the same, and "free" for one that may change."""


def setting(
    default: Any = ...,
    *,
    group: Group,
    resume: Resume = "same",
    matters: bool = True,
    common: bool = False,
    chosen: bool = False,
    positional: bool = False,
    alias: str | None = None,
    value: str | None = None,
    **constraints: Any,
) -> Any:
    """Declares a field of a class of settings.

    Args:
        default: The value of the field if none is given; without a default, a value must be given.
        group: The heading under which --help lists the field.
        resume: What a resumed training run may do with the field.
        matters: Whether a run's weights or speed depend on the field, so that it tells runs apart.
        common: Whether many people change the field, so that --help lists it where it does not list all.
        chosen: Whether a training run chooses the field by its data set if it is not given; the default is
            that of other runs.
        positional: Whether the value is given without a flag.
        alias: A second flag, such as "--x".
        value: What the help calls the value, such as "FOLDER"; by default a name by its type.
        **constraints: The arguments of pydantic's `Field`: description, ge, le, ...
    """
    facts = {
        "group": group,
        "resume": resume,
        "matters": matters,
        "common": common,
        "chosen": chosen,
        "positional": positional,
        "alias": alias,
        "value": value,
    }
    return Field(default, json_schema_extra=facts, **constraints)


def facts_of(settings: type[BaseModel], name: str) -> dict[str, Any]:
    """Gives what `setting` was told of a field, by the names of its arguments."""
    return dict(settings.model_fields[name].json_schema_extra or {})


def names_where(settings: type[BaseModel], **facts: Any) -> tuple[str, ...]:
    """Gives the names of the fields of which these facts are true, in their order.

    `names_where(TrainSettings, resume="free")` gives those that a resumed run may change.
    """
    return tuple(name for name in settings.model_fields if facts.items() <= facts_of(settings, name).items())
