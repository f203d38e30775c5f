"""A token request as a curl command, to paste into a shell or to send to someone who looks for a fault."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import Form


def curl_command(endpoint: str, form: Form) -> str:
    """One shell command over several lines; every value is quoted for the shell and encoded by curl."""
    lines = [f"curl -sS {shlex.quote(endpoint)}"]
    lines += [f"  --data-urlencode {shlex.quote(f'{name}={value}')}" for name, value in form]
    return " \\\n".join(lines)
