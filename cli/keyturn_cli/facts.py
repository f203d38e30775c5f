"""What `keyturn doctor` looks at: read from the cluster and the service, judged elsewhere. What may not be read is None."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn import __version__

from . import release
from .errors import CommandError
from .gateway_probe import NOT_PROXIED, Probe, probe, protected
from .kube import GROUP, VERSION, Absent, Kube, Object, http_time
from .release import component
from .rights import FORBIDDEN, LEASE, Right, needed, review
from .server import fetch
from .service_access import Barred, Service, find_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx2

    from .server import Answer

METRICS_PORT: Final = 9090
REVISION: Final = "keyturn_api_applied_revision"
# Each must not be reached from outside: who asks there speaks as the gateway, or reads what is not for callers.
PRIVATE_PATHS: Final = ("/auth", "/metrics", "/readyz", "/explain", "/clients")
_REVISION_LINE: Final = re.compile(rf"^{REVISION}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", re.MULTILINE)


@dataclass(slots=True)
class Facts:
    """Times in epoch seconds, `now` by the API server's clock; `offsets` are other clocks' seconds before ours.

    `lease`: the operator's; empty where there is none. `unread`: why something is None, by its name. `barred`: what to type, where the
    caller may not reach the service through the API server.
    """

    namespace: str
    now: float = 0.0
    cli_version: str = __version__
    schemas: Mapping[str, Any] | None = None
    deployments: Sequence[Object] | None = None
    lease: Object | None = None
    signing_keys: Sequence[Object] | None = None
    clients: Sequence[Object] | None = None
    rules: Sequence[Object] | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)
    rights: Mapping[str, Mapping[Right, bool]] | None = None
    offsets: dict[str, float] = field(default_factory=dict)
    service: str | None = None
    barred: str = ""
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
    told = release.settings(release.part(facts.deployments, "api"))
    facts.profile = profile or told.get("KEYTURN_GATEWAY_PROFILE") or facts.profile
    service = find_service(kube, http, url, facts.deployments)
    if service is not None:
        facts.service = service.where
        _of_service(service, facts, read)
    facts.public_url = public_url
    if public_url is not None:
        facts.exposed = read("exposed", lambda: {path: _status(http, public_url + path) for path in PRIVATE_PATHS})
    facts.revisions = read("revisions", lambda: _revisions(kube, http, metrics))
    return facts


def _of_cluster(kube: Kube, facts: Facts, read: Callable[[str, Callable[[], Any]], Any]) -> None:
    before = time.time()
    at = read("cluster clock", kube.clock)
    if at is not None:
        facts.offsets["the API server"] = _offset(at, before, time.time())
    facts.now = time.time() + facts.offsets.get("the API server", 0.0)
    document = read("schemas", lambda: kube.get(f"/openapi/v3/apis/{GROUP}/{VERSION}"))
    if document is not None:
        facts.schemas = _schemas(document)
    elif "is not there" in facts.unread.get("schemas", ""):
        facts.schemas = {}
    base = f"/apis/apps/v1/namespaces/{kube.namespace}/deployments"
    deployments = read("deployments", lambda: kube.list(base))
    facts.deployments = None if deployments is None else release.parts(deployments)
    facts.lease = read("lease", lambda: _lease(kube, facts.deployments))
    facts.signing_keys = read("signingkeys", lambda: kube.list(kube.path("signingkeys")))
    facts.clients = read("clientcredentials", lambda: kube.list(kube.path("clientcredentials")))
    facts.rules = read("accessrules", lambda: kube.list(kube.path("accessrules")))
    facts.accounts = read("accounts", lambda: _accounts(kube, facts.deployments)) or {}
    told = release.settings(release.part(facts.deployments, "api"))
    facts.rights = read("rights", lambda: _rights(kube, facts.accounts, told)) if facts.accounts else None


def _schemas(document: Object) -> dict[str, Any]:
    """The kinds' schemas by kind."""
    found = (document.get("components") or {}).get("schemas") or {}
    return {name.rpartition(".")[2]: schema for name, schema in found.items() if isinstance(schema, dict)}


def _lease(kube: Kube, deployments: Sequence[Object] | None) -> Object:
    """The Lease by which one operator of several acts; empty where there is none."""
    name = release.settings(release.part(deployments, "operator")).get("KEYTURN_OPERATOR_LEASE_NAME", LEASE)
    try:
        return kube.get(f"/apis/coordination.k8s.io/v1/namespaces/{kube.namespace}/leases/{name}")
    except Absent:
        return {}


def _accounts(kube: Kube, deployments: Sequence[Object] | None) -> dict[str, str]:
    """The parts' ServiceAccounts: as the Deployments say, else by their usual names."""
    named = {
        component(one): str(((one.get("spec") or {}).get("template") or {}).get("spec", {}).get("serviceAccountName"))
        for one in deployments or ()
    }
    if named:
        return named
    every = [one["metadata"]["name"] for one in kube.list(f"/api/v1/namespaces/{kube.namespace}/serviceaccounts")]
    found = {part: [name for name in every if name == part or name.endswith(f"-{part}")] for part in release.PARTS}
    return {part: names[0] for part, names in found.items() if len(names) == 1}


def _rights(kube: Kube, accounts: Mapping[str, str], told: Mapping[str, str]) -> dict[str, dict[Right, bool]]:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    found: dict[str, dict[Right, bool]] = {}
    for part, account in accounts.items():
        for right in (*needed(part, told), *FORBIDDEN.get(part, ())):
            told = kube.create(path, review(account, kube.namespace, right))
            found.setdefault(part, {})[right] = (told.get("status") or {}).get("allowed") is True
    return found


def _of_service(service: Service, facts: Facts, read: Callable[[str, Callable[[], Any]], Any]) -> None:
    def ask(path: str) -> Answer:
        try:
            return service.get(path)
        except Barred as error:
            facts.barred = error.next_step
            raise

    before = time.time()
    answer: Answer | None = read("service", lambda: ask("/readyz"))
    if answer is None:
        facts.unread["gateway"] = facts.unread["service"]
        return
    if (at := http_time(answer.date)) is not None:
        facts.offsets["the service"] = _offset(at, before, time.time())
    reasons = answer.json().get("reasons")
    facts.ready = (answer.status, tuple(str(one) for one in reasons) if isinstance(reasons, list) else ())
    if answer.status == 404:
        # Somebody else answers there, or what publishes the service to callers: nothing below would be about it.
        facts.unread["gateway"] = "The private paths are not at that address."
        return
    described = read("version", lambda: ask("/openapi.json").json())
    version = ((described or {}).get("info") or {}).get("version")
    facts.api_version = version if isinstance(version, str) else None
    jwks = read("jwks", lambda: ask("/.well-known/jwks.json").json())
    if jwks is not None:
        facts.published = frozenset(str(one.get("kid")) for one in jwks.get("keys") or () if isinstance(one, dict))
    if service.proxied and facts.profile in NOT_PROXIED:
        facts.unread["gateway"] = (
            f"How {facts.profile} asks can't be tried through the API server, which writes X-Forwarded-* itself. "
            "Forward a port to the Service, and name it with --url."
        )
        return
    facts.probe = read("gateway", lambda: probe(service, facts.profile, *protected(facts.rules or ())))


def _revisions(kube: Kube, http: httpx2.Client, metrics: Sequence[str]) -> dict[str, int]:
    """What each replica has applied, by what it is called."""
    texts = {
        place: fetch(http, http.build_request("GET", place)).content.decode("utf-8", "replace") for place in metrics
    }
    if not texts:
        pods = f"/api/v1/namespaces/{kube.namespace}/pods"
        for pod in kube.list(pods, selector="app.kubernetes.io/component=api"):
            name = pod["metadata"]["name"]
            if not release.is_ours(pod):
                continue
            texts[name] = kube.text(f"{pods}/{name}:{METRICS_PORT}/proxy/metrics")
    found = {name: _REVISION_LINE.search(text) for name, text in texts.items()}
    return {name: int(float(match[1])) for name, match in found.items() if match is not None}


def _status(http: httpx2.Client, url: str) -> int:
    return fetch(http, http.build_request("GET", url), limit=4 * 1024 * 1024).status


def _offset(theirs: float, before: float, after: float) -> float:
    """Theirs has whole seconds, cut, and was taken between two of ours: what that explains is no difference."""
    if before - 1.0 <= theirs <= after:
        return 0.0
    return theirs - after if theirs > after else theirs + 1.0 - before
