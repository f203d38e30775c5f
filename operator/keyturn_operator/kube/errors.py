"""How a call to the Kubernetes API can fail, in the words that the callers decide by."""


class KubeError(Exception):
    """The API server refused a call: `status` is the HTTP status, `reason` the machine-readable one of its Status object.

    The message is the call and the reason only: the API server's own message may echo what was sent.
    """

    def __init__(self, call: str, status: int, reason: str = "", causes: tuple[str, ...] = ()) -> None:
        super().__init__(f"{call}: HTTP {status} {reason}".rstrip())
        self.status = status
        self.reason = reason
        self.causes = causes


class NotFound(KubeError):
    """404: the object, or its kind, is not there."""


class Conflict(KubeError):
    """409: it exists already, or has changed since it was read."""


class Gone(KubeError):
    """410: the resourceVersion or the `continue` token is too old."""


class Forbidden(KubeError):
    """403: no right to this call, or the namespace terminates (`terminating`)."""

    @property
    def terminating(self) -> bool:
        """The namespace is being deleted; nothing can be created in it any more, and nothing should."""
        return "NamespaceTerminating" in self.causes


class KubeUnavailable(Exception):
    """The API server cannot be reached, is overloaded, or failed itself: worth another attempt later."""


class NamespaceTerminates(Exception):
    """The namespace is being deleted: final, and no error. Nothing is made anew in it."""


_BY_STATUS: dict[int, type[KubeError]] = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone}


def refused(call: str, status: int, answer: object) -> KubeError:
    """The error for an answer of 4xx, with what its Status object says (if it is one)."""
    reason = ""
    causes: tuple[str, ...] = ()
    if isinstance(answer, dict):
        reason = str(answer.get("reason") or "")[:100]
        details = answer.get("details")
        found = details.get("causes") if isinstance(details, dict) else None
        if isinstance(found, list):
            causes = tuple(str(cause.get("reason") or "")[:100] for cause in found if isinstance(cause, dict))
    return _BY_STATUS.get(status, KubeError)(call, status, reason, causes)
