"""The long tests in little: that they measure what they say. Their figures come from `python -m keyturn_dev.soak`."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest

from keyturn_dev import soak
from keyturn_dev.soak_world import opened
from keyturn_dev.tcp_proxy import Outage

if TYPE_CHECKING:
    from pathlib import Path

    from keyturn_dev.cluster import Cluster


@pytest.mark.timeout(240)
def test_two_hundred_clients_a_few_changes_and_rest(crds: Cluster, tmp_path: Path) -> None:
    with opened(crds, "soak-smoke", tmp_path / "state") as world:
        grown = soak.scale(world, clients=200, base=50, requests=100)
        assert world.ready() == 200
        assert [one.what.partition(",")[0] for one in grown[2:]] == [
            "token",
            "/auth",
            "memory of the operator",
            "memory of the api",
        ]
        # On a machine that does other things too, memory alone is certain.
        assert all(one.kept for one in grown if one.what.startswith("memory")), grown

        moved = world.versions()
        assert world.change(7, 1) < 10
        assert {name for name, version in world.versions().items() if moved.get(name) != version} >= {
            "clientcredentials/c-7"
        }
        changed = soak.changes(world, clients=0, seconds=8, among=200, tokens=20)
        assert changed[0].what == "changes"
        assert int(changed[0].value) >= 3

        # What was issued before is noted within seconds.
        still = soak.idle(world, clients=0, seconds=12, settle=15)
        assert [one.value for one in still] == ["none", "none"]
    text = soak.table([*grown, *changed, *still], datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
    assert text.startswith("Measured on 2026-01-02.")
    assert len({len(line) for line in text.splitlines()[2:]}) == 1
    page = soak.DOCUMENT.read_text(encoding="utf-8")
    assert text in soak.with_figures(page, text)


@pytest.mark.timeout(240)
def test_a_short_black_hole(crds: Cluster, tmp_path: Path) -> None:
    server = crds.status().server
    assert server is not None
    way = Outage(server)
    try:
        with opened(crds, "soak-black-hole-smoke", tmp_path / "state", server=way.url) as world:
            figures = {one.what: one for one in soak.black_hole(world, way, seconds=8)}
    finally:
        way.close()
    assert figures["tokens issued meanwhile"].kept
    assert figures["a change made meanwhile is in force"].kept is not None
