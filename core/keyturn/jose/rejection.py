"""Why a key is refused, in a form that can be shown to the person who sent it."""

from keyturn import reasons


class KeyRejected(ValueError):
    """A key that must not be used.

    `reason`: InvalidKey, PrivateKeyMaterial or WeakKey of `keyturn.reasons`. `description`: what is wrong and what to do; never
    echoes the input. `field`: path of the offending field, such as `spec.publicKeys[0].jwk.kty`.
    """

    def __init__(self, reason: str, description: str, *, field: str) -> None:
        super().__init__(description)
        self.reason = reason
        self.description = description
        self.field = field


def invalid(description: str, *, field: str) -> KeyRejected:
    """Not a key that Keyturn can use."""
    return KeyRejected(reasons.INVALID_KEY, description, field=field)


def weak(description: str, *, field: str) -> KeyRejected:
    """A key whose signatures could be forged."""
    return KeyRejected(reasons.WEAK_KEY, description, field=field)


def private(description: str, *, field: str) -> KeyRejected:
    """A secret where only public material belongs."""
    return KeyRejected(reasons.PRIVATE_KEY, description, field=field)
