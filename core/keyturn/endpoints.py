"""Where callers reach the service, as both programs tell it."""

from urllib.parse import urlsplit


def base_url(issuer: str, public_url: str | None, service_prefix: str) -> str:
    """The URL in front of every endpoint's path: the public one, else the issuer's with the service prefix at its end."""
    if public_url is not None:
        return public_url.rstrip("/")
    base = issuer.rstrip("/")
    # An issuer's own path may be the prefix already.
    return base if urlsplit(base).path.endswith(service_prefix) else f"{base}{service_prefix}"


def token_endpoint(base: str) -> str:
    """The token endpoint's URL."""
    return f"{base}/oauth/token"
