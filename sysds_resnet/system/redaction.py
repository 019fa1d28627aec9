"""The recognition of settings that are secrets, and their removal from texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sysds_resnet.errors import UserError

HIDDEN = "***"

NAMES = (
    r"(?i)secret|password|passwd|passphrase|(^|[._-])pwd$|token|credential|bearer"
    r"|(access|account|api|private|encryption|shared|storage)[._-]?key|(^|[._-])(sas|sig|signature)([._-]|$)"
)
"""The names of settings whose values are secrets, as a regular expression that Python and Java both take."""

# Parts of such names that say that the value is the place or the kind of a secret, not the secret itself.
_NO_SECRETS = re.compile(
    r"(?i)((file|path|paths|provider|providers|enabled|encryption|length|bits|class|type|algorithm|interval"
    r"|ratio|lifetime|mechanism)$|^spark\.kubernetes\.(driver|executor)\.secret(s|KeyRef)\.)"
)
# an option such as -Dx.password=... within the value of another setting
_OPTION = re.compile(r"(?P<name>[\w.-]+)=(?P<value>\"[^\"]*\"|'[^']*'|[^\s&,;\"']+)")
# user:password@ after a scheme, of whose two slashes pathlib.Path drops one
_USER = re.compile(r"(?P<scheme>[\w.+-]+:/{1,2})[^/?#@\s:]*:[^/?#\s]*@")


def looks_secret(name: str) -> bool:
    """Tells whether a setting of this name holds a secret."""
    return bool(re.search(NAMES, name)) and not _NO_SECRETS.search(name)


def holds_secret(name: str, value: str) -> bool:
    """Tells whether a setting is secret by its name, or by an option or a URL's password in its value."""
    return looks_secret(name) or redacted_text(value) != value


def redacted(settings: Mapping[str, str]) -> dict[str, str]:
    """Gives settings as they may be shown, with *** in the place of secrets."""
    return {name: HIDDEN if looks_secret(name) else redacted_text(text) for name, text in settings.items()}


def redacted_text(text: str) -> str:
    """Gives a text with *** in the place of passwords in URLs and of values of options with secret names."""

    def hide(found: re.Match[str]) -> str:
        return f"{found['name']}={HIDDEN}" if looks_secret(found["name"]) else found[0]

    return _USER.sub(rf"\g<scheme>{HIDDEN}@", _OPTION.sub(hide, text))


def refuse_passwords(name: str, values: Iterable[object]) -> None:
    """Checks that the paths and URLs that a setting holds have no passwords in them.

    Raises:
        UserError: If one has, as the password would show in files, logs and lists of processes.
    """
    for text in map(str, values):
        if ":/" in text and redacted_text(text) != text:
            raise UserError(
                f"{name}: found a password or key in {redacted_text(text)}, expected none in a URL, which is "
                "written down; leave it out, and give it by the environment or the files that the file "
                "system reads"
            )
