"""Registration keeps what its OpenAPI document promises too: no 5xx, no undocumented answer, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.clients import World
from tests.cluster.portal import Portal, bearer
from tests.promises import examine


def initial(world: World) -> str:
    return world.installation.registration_token


def internal(world: World) -> str:
    return Portal(world).caller("promises", "create")


def own(world: World) -> str:
    return Portal(world).with_secret().token


@pytest.fixture(autouse=True)
def cleared(world: World) -> Iterator[None]:
    """Takes out what was registered: an installation lets so many wait for approval and no more."""

    def there() -> set[str]:
        return {one["metadata"]["name"] for one in world.objects.all("clientcredentials")}

    before = there()
    yield
    if made := there() - before:
        world.kubectl("delete", "clientcredentials", "--wait=false", *sorted(made))


@pytest.mark.parametrize(
    ("token", "path", "answers"),
    [
        pytest.param(initial, "/register", {201, 400}, id="with an initial access token"),
        pytest.param(internal, "/clients", {201, 400}, id="with a Kubernetes token"),
        pytest.param(own, "/register/{client_id}", set(), id="with a registration token"),
        pytest.param(None, "/(register|clients).*", set(), id="with nothing"),
    ],
)
def test_nobody_gets_an_undocumented_answer(
    world: World, tmp_path: Path, token: Callable[[World], str] | None, path: str, answers: set[int]
) -> None:
    headers = {} if token is None else bearer(token(world))
    only = "^" + path.replace("{", r"\{").replace("}", r"\}") + "$"
    examined = examine(world.replicas[0].url, tmp_path, headers=headers, only=only, examples=5)
    assert examined.failures == []
    assert examined.operations == examined.tested > 0
    assert examined.statuses("POST", path) >= answers
