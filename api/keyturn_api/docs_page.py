"""The page of the documentation: Swagger UI from a package, so that it needs no other server than this one."""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.responses import Response as FastApiResponse

_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
# Nothing but what this server itself serves is loaded, and nothing but this server is called.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # Swagger UI's style sheet holds its icons.
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_START: Final = """"use strict";
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: new URL("openapi.json", document.baseURI).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    persistAuthorization: false,
    queryConfigEnabled: false,
    validatorUrl: null,
  });
});
"""
# Relative addresses: they hold under whatever path a proxy shows this one.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Keyturn API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css" integrity="{style}">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>The page needs JavaScript. The document itself: <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js" integrity="{script}"></script>
<script src="docs/start.js" integrity="{start}"></script>
</body>
</html>
"""


def add(app: FastAPI, prefix: str) -> None:
    """Adds the page at `/docs` and what it loads below it."""

    @app.get(f"{prefix}/docs", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(_page(), headers=_HEADERS)

    @app.get(f"{prefix}/docs/start.js", include_in_schema=False)
    async def start() -> FastApiResponse:
        return FastApiResponse(_START, media_type="text/javascript", headers=_HEADERS)

    for name, media_type in _ASSETS.items():
        app.get(f"{prefix}/docs/{name}", include_in_schema=False)(_asset(name, media_type))


def _asset(name: str, media_type: str) -> Callable[[], Awaitable[FileResponse]]:
    # A function of its own: what a route's function takes as arguments, callers could set.
    async def asset() -> FileResponse:
        return FileResponse(_path(name), media_type=media_type, headers=_HEADERS)

    return asset


@cache
def _page() -> str:
    return _PAGE.format(
        style=_integrity(_path("swagger-ui.css").read_bytes()),
        script=_integrity(_path("swagger-ui-bundle.js").read_bytes()),
        start=_integrity(_START.encode()),
    )


def _integrity(content: bytes) -> str:
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}"


def _path(name: str) -> Path:
    return Path(str(files("fastapi_swagger") / "resources" / name))
