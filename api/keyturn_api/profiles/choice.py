"""Which profile an installation reads, by its settings."""

from keyturn_api.profiles.envoy import envoy
from keyturn_api.profiles.envoy_grpc import envoy_grpc
from keyturn_api.profiles.forwarded import forwarded
from keyturn_api.profiles.haproxy import haproxy
from keyturn_api.profiles.nginx import nginx
from keyturn_api.profiles.original_request import original_request
from keyturn_api.profiles.question import Profile
from keyturn_api.settings import ApiSettings


def choose(settings: ApiSettings) -> Profile:
    """The profile of `KEYTURN_GATEWAY_PROFILE`."""
    context = settings.context_headers
    match settings.gateway_profile:
        case "original-request":
            return original_request
        case "envoy":
            return envoy(settings.service_prefix.encode(), context_headers=context)
        case "envoy-grpc":
            return envoy_grpc(context_headers=context)
        case "nginx":
            return nginx(context_headers=context)
        case "haproxy":
            return haproxy(context_headers=context)
        case "traefik" | "caddy":
            return forwarded(context_headers=context)
