"""What each profile reads of a gateway's question, what it refuses to read, and that it reads nothing else."""

from collections.abc import Mapping

import pytest

from keyturn_api.http import Scope
from keyturn_api.profiles import Profile, Question, Unreadable, choose
from tests.unit.api.worlds import scope, settings

# A question of each profile about the same request. The target is written as the caller wrote it.
ASKS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "original-request": (("original-request-uri", "/a/%62?x=1"), ("original-request-method", "POST")),
    "nginx": (("x-original-url", "https://shop.example:8443/a/%62?x=1"), ("x-original-method", "POST")),
    "traefik": (
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/a/%62?x=1"),
        ("x-forwarded-host", "shop.example:8443"),
    ),
    "haproxy": (
        ("x-original-method", "POST"),
        ("x-original-uri", "/a/%62?x=1"),
        ("x-original-host", "shop.example:8443"),
    ),
}
ASKS = {**ASKS, "caddy": ASKS["traefik"]}
TOLD = [
    pytest.param(profile, header, id=f"{profile}: {header[0]}") for profile, asks in ASKS.items() for header in asks
]


def profile(name: str, **values: object) -> Profile:
    return choose(settings(gateway_profile=name, **values))


def asked(name: str, *more: tuple[str, str]) -> Scope:
    return scope("GET", "/auth", *ASKS[name], *more)


@pytest.mark.parametrize("name", ASKS)
def test_method_target_and_host_are_read_as_the_gateway_tells_them(name: str) -> None:
    read = profile(name)(asked(name, ("authorization", "Bearer x")))
    host = None if name == "original-request" else "shop.example:8443"
    assert read == Question("POST", b"/a/%62?x=1", host, b"Bearer x", False, False, "")


def test_under_envoy_the_request_is_the_question() -> None:
    read = profile("envoy", service_prefix="/oauth2")
    question = read(scope("POST", "/oauth2/auth/a/%62", ("host", "shop.example:8443"), query=b"x=1"))
    assert question == Question("POST", b"/a/%62?x=1", "shop.example:8443", None, False, False, "")


@pytest.mark.parametrize(("name", "header"), TOLD)
def test_a_header_that_the_gateway_writes_stands_once(name: str, header: tuple[str, str]) -> None:
    with pytest.raises(Unreadable, match=f"{header[0]} stands twice"):
        profile(name)(asked(name, header))


@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
@pytest.mark.parametrize(("name", "header"), TOLD)
def test_a_header_that_the_gateway_writes_must_be_there(name: str, header: tuple[str, str], value: str | None) -> None:
    # A request without Host is the one case in which HAProxy has nothing to tell.
    headers = [each for each in ASKS[name] if each != header] + ([] if value is None else [(header[0], value)])
    read = profile(name)
    if header[0] == "x-original-host":
        assert not read(scope("GET", "/auth", *headers)).host
    else:
        with pytest.raises(Unreadable, match=header[0]):
            read(scope("GET", "/auth", *headers))


@pytest.mark.parametrize("other", ASKS)
@pytest.mark.parametrize("name", ["envoy", *ASKS])
def test_the_headers_of_other_profiles_are_not_read(name: str, other: str) -> None:
    own = {header for header, _ in ASKS.get(name, ())}
    forged = [(header, "/open") for header, _ in ASKS[other] if header not in own]
    path = "/auth/a/%62" if name == "envoy" else "/auth"
    headers = ASKS.get(name, ())
    plain = profile(name)(scope("GET", path, *headers))
    assert profile(name)(scope("GET", path, *forged, *headers, *forged)) == plain


@pytest.mark.parametrize(
    "alias", [("x_forwarded_uri", "/open"), ("x_original_url", "http://a/open"), ("original_request_uri", "/open")]
)
@pytest.mark.parametrize("name", ASKS)
def test_an_underscore_is_no_hyphen(name: str, alias: tuple[str, str]) -> None:
    assert profile(name)(asked(name, alias)) == profile(name)(asked(name))


@pytest.mark.parametrize("name", ["envoy", *ASKS])
def test_credentials_given_twice_are_said_to_be(name: str) -> None:
    headers = (*ASKS.get(name, ()), ("authorization", "Bearer a"), ("authorization", "Bearer b"))
    assert profile(name)(scope("GET", "/auth/a", *headers)).several


@pytest.mark.parametrize("joined", ["Bearer a,Bearer b", "Bearer a, Basic b", "Bearer a,", "Basic b,Bearer a"])
@pytest.mark.parametrize("name", ["envoy", "original-request"])
def test_credentials_that_envoy_has_joined_are_said_to_be_several(name: str, joined: str) -> None:
    headers = (*ASKS.get(name, ()), ("authorization", joined))
    assert profile(name)(scope("GET", "/auth/a", *headers)).several


@pytest.mark.parametrize("name", ["envoy", *ASKS])
@pytest.mark.parametrize("read", [False, True], ids=["without the setting", "by the setting"])
def test_context_headers_are_read_by_the_setting_and_under_original_request(name: str, read: bool) -> None:
    headers = (*ASKS.get(name, ()), ("isbackoffice", "1"), ("client-type", "mobile"))
    question = profile(name, context_headers=read)(scope("GET", "/auth/a", *headers))
    expected = read or name == "original-request"
    assert (question.is_backoffice, question.client_type) == ((True, "mobile") if expected else (False, ""))


@pytest.mark.parametrize("header", ["isbackoffice", "client-type"])
@pytest.mark.parametrize("name", ["envoy", *ASKS])
def test_a_context_header_that_is_read_stands_once(name: str, header: str) -> None:
    headers = (*ASKS.get(name, ()), (header, "0"), (header, "1"))
    with pytest.raises(Unreadable, match=header):
        profile(name, context_headers=True)(scope("GET", "/auth/a", *headers))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("/a", id="a path alone"),
        pytest.param("http://shop.example", id="no path"),
        pytest.param("http:///a", id="no host"),
        pytest.param("http://open.example?/private", id="a host with a question mark"),
        pytest.param("http://open.example#/private", id="a host with a number sign"),
        pytest.param("http://open.example\\/private", id="a host with a backslash"),
        pytest.param("http://shop.example@open.example/private", id="user information"),
        pytest.param("http://open.example /private", id="a host with a space"),
        pytest.param("ftp://shop.example/a", id="another scheme"),
    ],
)
def test_under_nginx_a_host_cannot_move_the_place_where_the_path_begins(url: str) -> None:
    with pytest.raises(Unreadable, match="no URL with host and path"):
        profile("nginx")(scope("GET", "/auth", ("x-original-url", url), ("x-original-method", "GET")))


@pytest.mark.parametrize("target", ["//shop.example/a", "/a?b=http://c/d", "/a#b", "/%2e%2e/a", "/a\\b"])
def test_under_nginx_the_target_is_read_as_it_was_sent(target: str) -> None:
    asks = (("x-original-url", f"http://shop.example{target}"), ("x-original-method", "GET"))
    assert profile("nginx")(scope("GET", "/auth", *asks)).target == target.encode()
