"""What is wrong with a member of an object's spec, told so that its author can mend it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: a reason of `keyturn.reasons`, the field by its path (`spec.routes[2].expression`), and what to do about it.

    A message never repeats a value that may be secret; it may name fields, members, paths and permissions.
    """

    reason: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
