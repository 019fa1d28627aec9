"""The errors that users read: one line each, with what was found and what was expected."""

import pytest

from sysds_resnet.errors import UserError


def message(call, *args, **kwargs):
    """The text of the UserError that a call raises, after a check that it is one line."""
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert text and text.isprintable()
    return text


def refusal(call, *args, **kwargs):
    """As `message`, after a check that it says what was found and what was expected."""
    text = message(call, *args, **kwargs)
    assert "found" in text and "expected" in text
    return text


def one_line(caught):
    """The text of an error that was caught, after the checks of `refusal`."""
    text = str(caught.value)
    assert text.isprintable() and "found" in text and "expected" in text
    return text
