"""What `keyturn doctor` looks at: read from the cluster and the service, judged elsewhere. What may not be read is None."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from keyturn import __version__

from .admin_api import find_url
from .errors import CommandError
from .kube import GROUP, VERSION, Kube, Object, http_time
from .rights import FORBIDDEN, NEEDED, Right, review
from .server import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx2

PARTS: Final = ("operator", "api")
METRICS_PORT: Final = 9090
REVISION: Final = "keyturn_api_applied_revision"
# Each must not be reached from outside: who asks there speaks as the gateway, or reads what is not for callers.
PRIVATE_PATHS: Final = ("/auth", "/metrics", "/readyz", "/explain", "/clients")
_REVISION_LINE: Final = re.compile(rf"^{REVISION}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", re.MULTILINE)
# How each gateway profile is told of the request that it is about.
_PROFILES: Final[Mapping[str, Callable[[str, str], dict[str, str]]]] = {
    "original-request": lambda host, path: {"Original-Request-Uri": path, "Original-Request-Method": "GET"},
    "nginx": lambda host, path: {"X-Original-URL": f"http://{host}{path}", "X-Original-Method": "GET"},
    "traefik": lambda host, path: {"X-Forwarded-Uri": path, "X-Forwarded-Method": "GET", "X-Forwarded-Host": host},
    "caddy": lambda host, path: {"X-Forwarded-Uri": path, "X-Forwarded-Method": "GET", "X-Forwarded-Host": host},
    "haproxy": lambda host, path: {"X-Original-URI": path, "X-Original-Method": "GET", "X-Original-Host": host},
    "envoy": lambda host, path: {},
}


@dataclass(frozen=True, slots=True)
class Probe:
    """`/auth` about one protected path: without a token, and without one but with made-up identity headers."""

    path: str
    plain: int
    forged: int


@dataclass(slots=True)
class Facts:
    """Times in epoch seconds; `offsets` are other clocks' seconds before ours. `unread`: why something is None, by its name."""

    namespace: str
    cli_version: str = __version__
    schemas: Mapping[str, Any] | None = None
    deployments: Sequence[Object] | None = None
    signing_keys: Sequence[Object] | None = None
    clients: Sequence[Object] | None = None
    rules: Sequence[Object] | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)
    rights: Mapping[str, Mapping[Right, bool]] | None = None
    offsets: dict[str, float] = field(default_factory=dict)
    url: str | None = None
    ready: tuple[int, tuple[str, ...]] | None = None
    api_version: str | None = None
    published: frozenset[str] | None = None
    profile: str = "original-request"
    probe: Probe | None = None
    public_url: str | None = None
    exposed: Mapping[str, int] | None = None
    revisions: Mapping[str, int] | None = None
    unread: dict[str, str] = field(default_factory=dict)


def gather(
    kube: Kube,
    http: httpx2.Client,
    *,
    url: str | None,
    public_url: str | None,
    profile: str | None,
    metrics: Sequence[str] = (),
) -> Facts:
    """Reads all that the caller's rights allow. Nothing is changed; what can't be read is noted with its cause."""
    facts = Facts(kube.namespace)

    def read(name: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except CommandError as error:
            facts.unread[name] = error.problem
            return None

    _of_cluster(kube, facts, read)
    facts.profile = profile or _setting(facts.deployments, "KEYTURN_GATEWAY_PROFILE") or facts.profile
    facts.url = url or find_url(kube)
    if facts.url is not None:
        _of_service(http, facts, facts.url, read)
    facts.public_url = public_url
    if public_url is not None:
        facts.exposed = read("exposed", lambda: {path: _get(http, public_url + path)[0] for path in PRIVATE_PATHS})
    facts.revisions = read("revisions", lambda: _revisions(kube, http, metrics))
    return facts


def _of_cluster(kube: Kube, facts: Facts, read: Callable[[str, Callable[[], Any]], Any]) -> None:
    before = time.time()
    at = read("cluster clock", kube.clock)
    if at is not None:
        facts.offsets["the API server"] = _offset(at, before, time.time())
    document = read("schemas", lambda: kube.get(f"/openapi/v3/apis/{GROUP}/{VERSION}"))
    if document is not None:
        facts.schemas = _schemas(document)
    elif "is not there" in facts.unread.get("schemas", ""):
        facts.schemas = {}
    base = f"/apis/apps/v1/namespaces/{kube.namespace}/deployments"
    deployments = read("deployments", lambda: kube.list(base))
    facts.deployments = None if deployments is None else [one for one in deployments if component(one) in PARTS]
    facts.signing_keys = read("signingkeys", lambda: kube.list(kube.path("signingkeys")))
    facts.clients = read("clientcredentials", lambda: kube.list(kube.path("clientcredentials")))
    facts.rules = read("accessrules", lambda: kube.list(kube.path("accessrules")))
    facts.accounts = read("accounts", lambda: _accounts(kube, facts.deployments)) or {}
    facts.rights = read("rights", lambda: _rights(kube, facts.accounts)) if facts.accounts else None


def component(deployment: Object) -> str:
    """Which part a Deployment of the chart is."""
    return str((deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))


def _schemas(document: Object) -> dict[str, Any]:
    """The kinds' schemas by kind."""
    found = (document.get("components") or {}).get("schemas") or {}
    return {name.rpartition(".")[2]: schema for name, schema in found.items() if isinstance(schema, dict)}


def _accounts(kube: Kube, deployments: Sequence[Object] | None) -> dict[str, str]:
    """The parts' ServiceAccounts: as the Deployments say, else by their usual names."""
    named = {
        component(one): str(((one.get("spec") or {}).get("template") or {}).get("spec", {}).get("serviceAccountName"))
        for one in deployments or ()
    }
    if named:
        return named
    every = [one["metadata"]["name"] for one in kube.list(f"/api/v1/namespaces/{kube.namespace}/serviceaccounts")]
    found = {part: [name for name in every if name == part or name.endswith(f"-{part}")] for part in PARTS}
    return {part: names[0] for part, names in found.items() if len(names) == 1}


def _rights(kube: Kube, accounts: Mapping[str, str]) -> dict[str, dict[Right, bool]]:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    found: dict[str, dict[Right, bool]] = {}
    for part, account in accounts.items():
        for right in (*NEEDED.get(part, ()), *FORBIDDEN.get(part, ())):
            told = kube.create(path, review(account, kube.namespace, right))
            found.setdefault(part, {})[right] = (told.get("status") or {}).get("allowed") is True
    return found


def _of_service(http: httpx2.Client, facts: Facts, url: str, read: Callable[[str, Callable[[], Any]], Any]) -> None:
    before = time.time()
    answer = read("service", lambda: _get(http, f"{url}/readyz"))
    if answer is None:
        return
    status, body, at = answer
    if at is not None:
        facts.offsets["the service"] = _offset(at, before, time.time())
    reasons = body.get("reasons")
    facts.ready = (status, tuple(str(one) for one in reasons) if isinstance(reasons, list) else ())
    described = read("version", lambda: _get(http, f"{url}/openapi.json")[1])
    version = ((described or {}).get("info") or {}).get("version")
    facts.api_version = version if isinstance(version, str) else None
    jwks = read("jwks", lambda: _get(http, f"{url}/.well-known/jwks.json")[1])
    if jwks is not None:
        facts.published = frozenset(str(one.get("kid")) for one in jwks.get("keys") or () if isinstance(one, dict))
    path, host, permission = protected(facts.rules or ())
    facts.probe = read("gateway", lambda: _probe(http, url, facts.profile, path, host, permission))


def protected(rules: Sequence[Object]) -> tuple[str, str, str]:
    """A path that needs a permission, its host and that permission; a path of no rule where there is none."""
    for rule in rules:
        spec = rule.get("spec") or {}
        for route in spec.get("routes") or ():
            needed = route.get("permissions") or {}
            names = [*(needed.get("allOf") or ()), *(needed.get("anyOf") or ())]
            if names and isinstance(route.get("path"), str):
                hosts = spec.get("hosts") or ()
                return quote(route["path"]), str(hosts[0]) if hosts else "localhost", str(names[0])
    return f"/keyturn-doctor-{secrets.token_hex(8)}", "localhost", "doctor"


def _probe(http: httpx2.Client, url: str, profile: str, path: str, host: str, permission: str) -> Probe:
    told = _PROFILES.get(profile, _PROFILES["original-request"])(host, path)
    at = f"{url}/auth{path}" if profile == "envoy" else f"{url}/auth"
    claimed = f'{{"permissions": ["{permission}"]}}'
    forged = {
        "mia-userid": "doctor",
        "mia-groups": permission,
        "mia-userproperties": claimed,
        "x-auth-request-user": "doctor",
        "x-forwarded-user": "doctor",
        "client-type": "internal",
        "isbackoffice": "1",
    }
    return Probe(path, _get(http, at, told)[0], _get(http, at, {**told, **forged})[0])


def _revisions(kube: Kube, http: httpx2.Client, metrics: Sequence[str]) -> dict[str, int]:
    """What each replica has applied, by what it is called."""
    texts = {
        place: fetch(http, http.build_request("GET", place)).content.decode("utf-8", "replace") for place in metrics
    }
    if not texts:
        pods = f"/api/v1/namespaces/{kube.namespace}/pods"
        for pod in kube.list(pods, selector="app.kubernetes.io/component=api"):
            name = pod["metadata"]["name"]
            texts[name] = kube.text(f"{pods}/{name}:{METRICS_PORT}/proxy/metrics")
    found = {name: _REVISION_LINE.search(text) for name, text in texts.items()}
    return {name: int(float(match[1])) for name, match in found.items() if match is not None}


def _get(
    http: httpx2.Client, url: str, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any], float | None]:
    answer = fetch(http, http.build_request("GET", url, headers=dict(headers or {})), limit=4 * 1024 * 1024)
    return answer.status, answer.json(), http_time(answer.date)


def _offset(theirs: float, before: float, after: float) -> float:
    """Theirs has whole seconds, cut, and was taken between two of ours: what that explains is no difference."""
    if before - 1.0 <= theirs <= after:
        return 0.0
    return theirs - after if theirs > after else theirs + 1.0 - before


def _setting(deployments: Sequence[Object] | None, name: str) -> str | None:
    for deployment in deployments or ():
        for container in ((deployment.get("spec") or {}).get("template") or {}).get("spec", {}).get("containers") or ():
            for variable in container.get("env") or ():
                if variable.get("name") == name and variable.get("value"):
                    return str(variable["value"])
    return None
