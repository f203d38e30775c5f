"""Whether the API server serves our kinds with the status fields that this program writes: an older CRD would drop them in silence."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from keyturn.records import Kind
from keyturn_operator.kube.client import Kube
from keyturn_operator.kube.errors import Forbidden, KubeError, KubeUnavailable
from keyturn_operator.logs import get_logger
from keyturn_operator.settings import API_VERSION, GROUP, PLURALS, VERSION

log = get_logger("crds")

RETRY = 2.0
OPENAPI = f"/openapi/v3/apis/{API_VERSION}"

WRITTEN: dict[Kind, frozenset[str]] = {
    Kind.CLIENT: frozenset(
        {
            "observedGeneration",
            "conditions",
            "clientId",
            "permissions",
            "keys",
            "secrets",
            "secretName",
            "lastTokenIssuedAt",
        }
    ),
    Kind.SIGNING_KEY: frozenset({"observedGeneration", "conditions", "keys", "secretName"}),
    Kind.ACCESS_RULE: frozenset({"observedGeneration", "conditions", "routes"}),
}


def missing(document: Mapping[str, Any] | None) -> str | None:
    """What the API server lacks, from the OpenAPI document of our group and version (None: it serves no such group); None: nothing."""
    install = "install or upgrade the CRDs (crds/, or the chart keyturn-crds)"
    if document is None:
        return f"the API server does not serve {API_VERSION}: {install}"
    schemas = (document.get("components") or {}).get("schemas") or {}
    prefix = ".".join(reversed(GROUP.split(".")))
    for kind, fields in WRITTEN.items():
        schema = schemas.get(f"{prefix}.{VERSION}.{kind}")
        if schema is None:
            return f"the API server does not serve {PLURALS[kind]}.{GROUP} in version {VERSION}: {install}"
        status = ((schema.get("properties") or {}).get("status") or {}).get("properties") or {}
        absent = sorted(fields - status.keys())
        if absent:
            return (
                f"{PLURALS[kind]}.{GROUP} is older than this operator, its status has no {', '.join(absent)}: {install}"
            )
    return None


async def wait_until_served(kube: Kube, note: Callable[[str], None]) -> None:
    """Returns when all is served. Until then it says once what is missing, and `note` tells the readiness probe."""
    said: str | None = None
    while True:
        try:
            problem = missing(await kube.get(OPENAPI))
        except KubeUnavailable as error:
            problem = f"the Kubernetes API is not available ({error})"
        except Forbidden:
            problem = f"the operator may not read {OPENAPI}: bind its ServiceAccount to system:discovery"
        except KubeError as error:
            problem = f"the Kubernetes API refused a call ({error})"
        if problem is None:
            return
        note(problem)
        if problem != said:
            said = problem
            log.warning("waiting for the Kubernetes API", problem=problem)
        await asyncio.sleep(RETRY)
