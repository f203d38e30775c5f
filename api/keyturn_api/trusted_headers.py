"""Callers by headers that a gateway in front of this one has set: only from the peers that the installation lists."""

import ipaddress
from functools import lru_cache
from typing import Final

from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn_api.answers import Caller
from keyturn_api.callers import NotIdentified
from keyturn_api.errors import INVALID_REQUEST
from keyturn_api.http import Scope
from keyturn_api.identities import NoUser, make_caller
from keyturn_api.profiles import Question
from keyturn_api.user_settings import Network

UNREADABLE_IDENTITY: Final = "UnreadableIdentity"


class TrustedHeaders:
    """Reads `<prefix>userid`, `<prefix>groups` and `<prefix>userproperties`; from any other peer they count for nothing."""

    def __init__(self, peers: tuple[Network, ...], *, header_prefix: str, permissions_key: str) -> None:
        prefix = header_prefix.encode("ascii")
        self._user_id, self._groups = prefix + b"userid", prefix + b"groups"
        self._user_properties = prefix + b"userproperties"
        self._permissions_key = permissions_key

        @lru_cache(maxsize=1024)
        def trusts(peer: str) -> bool:
            try:
                address = ipaddress.ip_address(peer)
            except ValueError:
                return False
            mapped = getattr(address, "ipv4_mapped", None)
            return any((mapped or address) in network for network in peers)

        self._trusts = trusts

    def identify(self, scope: Scope, question: Question, now: float, *, public: bool) -> Caller | None:
        """See `OtherSource`."""
        client = scope.get("client")
        if not client or not self._trusts(client[0]):
            return None
        user_id = self._value(scope, self._user_id)
        if not user_id:
            return None
        groups, properties = self._value(scope, self._groups), self._value(scope, self._user_properties)
        try:
            held = parse_object(properties) if properties else {}
            return make_caller(
                user_id=user_id.decode(),
                groups=[name.strip() for name in groups.decode().split(",")] if groups else [],
                permissions=held.get(self._permissions_key),
                user_properties=held,
            )
        except (InvalidJson, UnicodeDecodeError, NoUser) as error:
            raise NotIdentified(
                UNREADABLE_IDENTITY, INVALID_REQUEST, "the identity headers cannot be read", cause=type(error).__name__
            ) from None

    @staticmethod
    def _value(scope: Scope, name: bytes) -> bytes:
        values = [value for key, value in scope["headers"] if key == name]
        if len(values) > 1:
            raise NotIdentified(UNREADABLE_IDENTITY, INVALID_REQUEST, "an identity header stands twice")
        return values[0].strip() if values else b""
