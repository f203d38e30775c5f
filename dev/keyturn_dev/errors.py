"""The error that a developer's command reports as one message instead of a stack trace."""

from __future__ import annotations


class DevError(Exception):
    """Something that the person at the terminal can act on; its text is the whole message."""

    exit_code = 1


class UsageError(DevError):
    """The command was called, or its variables were set, in a way that cannot be meant; or a question got no answer."""

    exit_code = 2
