"""The base class of the settings of commands."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from sysds_resnet.settings.fields import setting
from sysds_resnet.system.redaction import refuse_passwords


class Settings(BaseModel):
    """The base class of the settings of a command: frozen, with unknown names as errors.

    A value comes from the first of these that has it: the flags, the YAML file given with --config, the
    recipe if the command has recipes, the defaults. Environment variables are not read.

    The first line of a class's docstring describes the command in its help.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, protected_namespaces=()
    )

    # The command's name, if it is not the name of the class without "Settings", in lower case.
    command: ClassVar[str | None] = None

    # Command lines that the help shows, without the program's name, each with what it does.
    examples: ClassVar[dict[str, str]] = {}

    config: Path | None = setting(
        None, group="command", resume="free", description="YAML file of settings; flags win over it."
    )
    debug: bool = setting(False, group="command", resume="free", description="Show tracebacks.")

    @field_validator("*", mode="before")
    @classmethod
    def _usual_mistakes(cls, value: object, info: ValidationInfo) -> object:
        if value == "":  # a folder without a name would be the working directory
            raise ValueError("a value that is not empty")
        # pydantic would take true or false for 1 or 0
        values = value if isinstance(value, list) else [value]
        if any(isinstance(item, bool) for item in values) and not _mentions(
            cls.model_fields[info.field_name].annotation, bool
        ):
            raise ValueError("another value than true or false")
        return value

    @model_validator(mode="after")
    def _without_passwords(self) -> Settings:
        """Refuses passwords: settings are written down, printed and drawn."""
        for name in self.model_fields_set:
            value = getattr(self, name)
            refuse_passwords(name, value if isinstance(value, list) else [value])
        return self


def _mentions(annotation: object, kind: type) -> bool:
    """Tells whether a type is `kind`, or has it among its parts."""
    return annotation is kind or any(_mentions(part, kind) for part in get_args(annotation))
