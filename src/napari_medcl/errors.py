"""What can go wrong in a way that the user can mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import ValidationError


class UserError(ValueError):
    """Something the user can put right; the message says what, where and how."""


class Elsewhere(UserError):  # noqa: N818 - as Stopped
    """What another process of the run has said already, and ends all of them."""


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user asked for a stop; nothing was written."""


def explain(error: ValidationError, name: Callable[[tuple[str, ...]], str]) -> str:
    """What pydantic found wrong, a line each: the setting, and what is the matter.

    Args:
        error: What it raised.
        name: What a setting is called where the user meets it, by its place in the configuration.
    """
    lines = []
    for problem in error.errors():
        place, message = tuple(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ").rstrip(".")
        lines.append(f"{name(place)}: {message}." if place else f"{message}.")
    return "\n".join(lines)
