"""Calls to the Kubernetes API: what is sent, and failures in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import yaml

from keyturn_cli.errors import CommandError, Exit
from keyturn_cli.kube import Absent, Gone, Kube, Refused, open_kube

Answer = Callable[[httpx2.Request], httpx2.Response]
PATH = "/apis/keyturn.dev/v1alpha1/namespaces/shop/signingkeys/keyturn"


def kube(answer: Answer, *, tls_name: str | None = None) -> Kube:
    client = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://api.example")
    return Kube(client, namespace="shop", tls_name=tls_name)


def status(code: int, message: str = "") -> Answer:
    return lambda _: httpx2.Response(code, json={"kind": "Status", "message": message})


def test_paths_are_those_of_our_group() -> None:
    one = kube(status(200))
    assert one.path("signingkeys", "keyturn") == PATH
    assert one.path("signingkeys", namespace="other") == "/apis/keyturn.dev/v1alpha1/namespaces/other/signingkeys"


def test_a_patch_is_a_merge_patch_under_our_name() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"metadata": {}})

    kube(answer, tls_name="api.internal").patch(PATH, {"metadata": {"annotations": {"a": "b"}}})
    (request,) = seen
    assert (request.method, request.url.path, request.url.query) == ("PATCH", PATH, b"fieldManager=keyturn")
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert json.loads(request.content) == {"metadata": {"annotations": {"a": "b"}}}
    assert request.extensions["sni_hostname"] == "api.internal"


def test_a_list_is_read_to_its_end() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if "continue" in request.url.params:
            return httpx2.Response(200, json={"items": [{"n": 2}], "metadata": {}})
        return httpx2.Response(200, json={"items": [{"n": 1}], "metadata": {"continue": "more"}})

    assert kube(answer).list(PATH) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("answer", "kind", "code", "word"),
    [
        pytest.param(status(401), Refused, Exit.REFUSED, "Log in", id="not logged in"),
        pytest.param(status(403, "no right"), Refused, Exit.REFUSED, "no right", id="no right"),
        pytest.param(status(404), Absent, Exit.REFUSED, "keyturn is not there", id="no such object"),
        pytest.param(status(422, "must be"), Refused, Exit.REFUSED, "must be", id="an invalid object"),
        pytest.param(status(503), CommandError, Exit.UNREACHABLE, "can't serve", id="overloaded"),
        pytest.param(
            lambda _: httpx2.Response(200, text="hello"), CommandError, Exit.UNREACHABLE, "JSON", id="no JSON"
        ),
        pytest.param(lambda _: httpx2.Response(302), Refused, Exit.REFUSED, "302", id="a redirect"),
    ],
)
def test_a_refusal_is_put_into_words(answer: Answer, kind: type[CommandError], code: Exit, word: str) -> None:
    with pytest.raises(kind) as caught:
        kube(answer).get(PATH)
    assert caught.value.code is code
    assert word in f"{caught.value.problem} {caught.value.next_step}"


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        pytest.param(
            httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] x"), "certificate", id="a foreign certificate"
        ),
        pytest.param(httpx2.ReadTimeout("x"), "within", id="silence"),
        pytest.param(httpx2.ConnectError("secret"), "ConnectError", id="no connection"),
    ],
)
def test_a_server_that_is_not_reached_is_put_into_words(failure: httpx2.HTTPError, word: str) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise failure

    with pytest.raises(CommandError) as caught:
        kube(answer).get(PATH)
    assert caught.value.code is Exit.UNREACHABLE
    assert word in caught.value.problem
    assert "secret" not in caught.value.problem


def config(folder: Path, cluster: dict[str, object], user: dict[str, object]) -> str:
    path = folder / "config"
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def test_the_namespace_is_the_context_s_unless_one_is_named(tmp_path: Path) -> None:
    path = config(tmp_path, {"insecure-skip-tls-verify": True}, {"token": "t"})
    with open_kube(kubeconfig=path) as one, open_kube(kubeconfig=path, namespace="other") as two:
        assert (one.namespace, two.namespace) == ("shop", "other")


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        pytest.param({"certificate-authority-data": "YQ=="}, {}, id="an authority that is none"),
        pytest.param(
            {}, {"client-certificate-data": "YQ==", "client-key-data": "YQ=="}, id="a certificate that is none"
        ),
    ],
)
def test_tls_material_that_is_none_is_a_usage_error(
    tmp_path: Path, cluster: dict[str, object], user: dict[str, object]
) -> None:
    with pytest.raises(CommandError) as caught:
        open_kube(kubeconfig=config(tmp_path, cluster, user))
    assert caught.value.code is Exit.USAGE


def test_a_deletion_names_the_object_that_was_read() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"kind": "Status"})

    kube(answer).delete(PATH, uid="u", version="7")
    (request,) = seen
    assert (request.method, request.url.path, request.url.query) == ("DELETE", PATH, b"")
    assert json.loads(request.content) == {"preconditions": {"uid": "u", "resourceVersion": "7"}}


def test_a_dry_run_says_so() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"metadata": {}})

    kube(answer).patch(PATH, {}, dry_run=True)
    assert dict(seen[0].url.params) == {"fieldManager": "keyturn", "dryRun": "All"}


def test_a_watch_tells_each_event_and_ends() -> None:
    seen: list[httpx2.Request] = []
    body = (
        b'{"type": "ADDED", "object": {"metadata": {"name": "a"}}}\n\n{"type": "DELETED", "object": {}}\n{"type": "BOO'
    )

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, content=body)

    # What was cut off by the end is no event.
    assert list(kube(answer).watch(PATH, "5", seconds=60)) == [("ADDED", {"metadata": {"name": "a"}}), ("DELETED", {})]
    assert seen[0].url.params["resourceVersion"] == "5"
    assert seen[0].url.params["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(status(410), Gone, id="too old a version"),
        pytest.param(
            lambda _: httpx2.Response(200, content=b'{"type": "ERROR", "object": {"code": 410}}\n'),
            Gone,
            id="it grew old",
        ),
        pytest.param(
            lambda _: httpx2.Response(200, content=b'{"type": "ERROR", "object": {}}\n'), CommandError, id="an error"
        ),
        pytest.param(lambda _: httpx2.Response(200, content=b"[]\n"), CommandError, id="no event"),
        pytest.param(lambda _: httpx2.Response(200, content=b"x" * 5_000_000), CommandError, id="an endless event"),
        pytest.param(status(403), Refused, id="no right"),
    ],
)
def test_a_watch_that_fails_says_how(answer: Answer, kind: type[CommandError]) -> None:
    with pytest.raises(kind):
        list(kube(answer).watch(PATH, "5", seconds=60))
