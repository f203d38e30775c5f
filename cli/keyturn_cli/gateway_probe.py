"""The gateway's question to the service, asked as each gateway profile asks it: with nothing, and with made-up identity headers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .kube import Object
    from .service_access import Service

# How each gateway profile is told of the request that it is about.
_PROFILES: Final[Mapping[str, Callable[[str, str], dict[str, str]]]] = {
    "original-request": lambda host, path: {"Original-Request-Uri": path, "Original-Request-Method": "GET"},
    "nginx": lambda host, path: {"X-Original-URL": f"http://{host}{path}", "X-Original-Method": "GET"},
    "traefik": lambda host, path: {"X-Forwarded-Uri": path, "X-Forwarded-Method": "GET", "X-Forwarded-Host": host},
    "caddy": lambda host, path: {"X-Forwarded-Uri": path, "X-Forwarded-Method": "GET", "X-Forwarded-Host": host},
    "haproxy": lambda host, path: {"X-Original-URI": path, "X-Original-Method": "GET", "X-Original-Host": host},
    "envoy": lambda host, path: {},
}
# The API server's proxy writes X-Forwarded-* itself, so that these can't be asked through it.
NOT_PROXIED: Final = ("traefik", "caddy")


@dataclass(frozen=True, slots=True)
class Probe:
    """`/auth` about one protected path: without a token, and without one but with made-up identity headers."""

    path: str
    plain: int
    forged: int


def protected(rules: Sequence[Object]) -> tuple[str, str, str]:
    """A path that a GET needs a permission for, its host and that permission; a path of no rule where there is none."""
    for rule in rules:
        spec = rule.get("spec") or {}
        if spec.get("mode") == "Audit":
            continue
        for route in spec.get("routes") or ():
            needed = route.get("permissions") or {}
            names = [*(needed.get("allOf") or ()), *(needed.get("anyOf") or ())]
            asked = {"GET", "ALL"} & set(route.get("methods") or ("ALL",))
            if names and asked and isinstance(route.get("path"), str):
                hosts = spec.get("hosts") or ()
                return quote(route["path"]), str(hosts[0]) if hosts else "localhost", str(names[0])
    return f"/keyturn-doctor-{secrets.token_hex(8)}", "localhost", "doctor"


def probe(service: Service, profile: str, path: str, host: str, permission: str) -> Probe:
    """Asks twice. Raises CommandError where there is no answer."""
    told = _PROFILES.get(profile, _PROFILES["original-request"])(host, path)
    at = f"/auth{path}" if profile == "envoy" else "/auth"
    claimed = f'{{"permissions": ["{permission}"]}}'
    # Who somebody is, which only an edge gateway may say. Not what kind of client asks, nor that it comes from the back office: a gateway
    # may say those to whoever listens to it, and a rule may go by them.
    forged = {
        "mia-userid": "doctor",
        "mia-groups": permission,
        "mia-userproperties": claimed,
        "x-auth-request-user": "doctor",
        "x-forwarded-user": "doctor",
    }
    return Probe(path, service.get(at, told).status, service.get(at, {**told, **forged}).status)
