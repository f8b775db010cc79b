"""What can go wrong in a way that the user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right; the message says what, where and how."""


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user asked for a stop; nothing was written."""
