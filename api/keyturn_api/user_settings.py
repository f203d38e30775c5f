"""Where users come from besides our own clients: settings of the API that no other part needs."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from keyturn.settings_table import setting

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_HEADER: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
# They belong to one connection or one message, not to who asks.
_NEVER_FORWARDED: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect", "keep-alive"}
)


class UserSettings(BaseSettings):
    """Settings of the sources of users. Times are in seconds, lists separated by commas."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_", extra="ignore", frozen=True)

    userinfo_url: str | None = setting(
        None,
        "Who is asking, where the credentials are none of our own tokens: a GET with the caller's credentials, whose 200 is a JSON object "
        "with the user. Unset: such credentials are refused.",
        reference="USERINFO_URL",
    )
    authorization_headers_to_proxy: Annotated[tuple[str, ...], NoDecode] = setting(
        ("authorization", "cookie"),
        "The caller's headers that the userinfo URL gets; without any of them it is not asked.",
        reference="AUTHORIZATION_HEADERS_TO_PROXY",
    )
    user_id_key: str = setting(
        "sub",
        "The member of the userinfo answer with the user's id.",
        reference="CUSTOM_USER_ID_KEY",
        pattern=r"^[\x21-\x7e]{1,128}$",
    )
    permissions_key: str = setting(
        "permissions",
        "The member of the userinfo answer with the user's permissions, a list.",
        reference="CUSTOM_PERMISSIONS_KEY",
        pattern=r"^[\x21-\x7e]{1,128}$",
    )
    user_properties: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "The members of the userinfo answer that make up `userProperties`. Unset: its member `userProperties`, an object.",
        reference="USER_PROPERTIES_TO_PROXY",
    )
    userinfo_timeout: float = setting(
        1.5,
        "How long the userinfo URL may take; after that the answer is 503. Less than the gateway waits for the check "
        "(two seconds in the shipped files).",
        gt=0,
        le=60,
    )
    userinfo_cache_seconds: float = setting(
        30.0,
        "How long a userinfo answer is remembered, and never past the `exp` of a token that is a JWT. "
        "Whom the other service refuses meanwhile is let through that much longer. 0: not at all.",
        ge=0,
        le=60,
    )
    userinfo_connections: int = setting(32, "Calls of the userinfo URL at once, in each worker.", ge=1, le=1000)
    trusted_issuers_file: Path | None = setting(
        None,
        "A YAML or JSON file with the issuers of users' tokens that are verified here by their published keys. Read anew when it changes.",
    )
    trust_user_headers: bool = setting(
        False,
        "Believe `<prefix>userid`, `<prefix>groups` and `<prefix>userproperties` where they come from a trusted peer: "
        "for an installation behind a gateway that has identified the user. Needs `KEYTURN_TRUSTED_PEERS`.",
        reference="TRUST_MIA_USER_HEADERS",
    )
    trusted_peers: Annotated[tuple[Network, ...], NoDecode] = setting(
        (), "Networks of the peers whose identity headers are believed. Everybody in them can be anybody."
    )

    @field_validator("authorization_headers_to_proxy", "user_properties", "trusted_peers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("authorization_headers_to_proxy")
    @classmethod
    def _headers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.lower() for name in value))
        if not names or not all(_HEADER.fullmatch(name) and name not in _NEVER_FORWARDED for name in names):
            raise ValueError("must name headers that may be handed on, such as authorization and cookie")
        return names

    @field_validator("userinfo_url")
    @classmethod
    def _userinfo(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("https", "http") or not parts.hostname or parts.fragment or parts.username:
                raise ValueError("must be an https or http URL without user and fragment")
        return value

    @model_validator(mode="after")
    def _peers(self) -> "UserSettings":
        if self.trust_user_headers and not self.trusted_peers:
            raise ValueError(
                "KEYTURN_TRUST_USER_HEADERS needs KEYTURN_TRUSTED_PEERS: without it anybody could be anybody"
            )
        return self

    @property
    def has_users(self) -> bool:
        """Whether users come from anywhere, so that a client is no user."""
        return self.userinfo_url is not None or self.trusted_issuers_file is not None or self.trust_user_headers
