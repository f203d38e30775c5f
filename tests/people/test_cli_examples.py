"""Each example of each command's help is run as it is written, with the names of this installation in place of its own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from keyturn_cli.main import app
from tests.cluster.clients import World, needs, route
from tests.cluster.portal import Portal
from tests.installations import StartWorld
from tests.manifests import manifest
from tests.people.command_line import keyturn

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)


def leaves(group: TyperGroup, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*before, name))
        elif (*before, name) not in (("version",), ("console",)):
            yield (*before, name)


def examples(command: tuple[str, ...]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "keyturn_cli.main", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"},
    )
    lines = (line.strip() for line in done.stdout.splitlines())
    return [line.removeprefix("$ keyturn ") for line in lines if line.startswith("$ keyturn ")]


@dataclass
class Stage:
    """A folder with the files that examples name, and an installation with objects by their names."""

    world: World
    folder: Path
    client_id: str
    denial: str

    def words(self, example: str) -> list[str]:
        """The arguments with what is called otherwise here."""
        words = shlex.split(example)
        for number, word in enumerate(words):
            if word.startswith("https://tokens.example.org") or word == "http://127.0.0.1:8080":
                words[number] = self.world.replicas[0].url
            elif word == "team-a.billing":
                words[number] = self.client_id
            elif re.fullmatch(r"r-[0-9a-f]{32}", word):
                words[number] = "billing"
            elif number and words[number - 1] == "--request-id":
                words[number] = self.denial
            elif word == "billing" and words[:2] == ["rotate", "client"]:
                words[number] = "billing-generated"
            elif number and words[number - 1] in ("-n", "--namespace") and word == "shop":
                words[number] = self.world.namespace
        return words

    def typed(self, words: list[str]) -> str:
        """What a person would have on stdin."""
        name = "token.txt" if "--token" in words else "clients.json" if words[0] == "import" else "auth.json"
        return (self.folder / name).read_text("utf-8")


@pytest.fixture(scope="module")
def stage(world: World, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    for verb in ("explain", "revoke"):
        Portal(world).caller(f"keyturn-{verb}", verb)
    folder = tmp_path_factory.mktemp("examples")
    billing = world.client("billing").apply(permissions=["orders:read"], audiences=["orders"])
    registration = {"requested": {"permissions": ["orders:read"]}}
    world.objects.patch("clientcredentials", "billing", {"spec": {"registration": registration}})
    billing.wait()
    world.rule("orders-example", route("/orders", "GET", **needs("orders:read")))
    (folder / "billing.pem").write_bytes(billing.key.to_pem())
    (folder / "billing.pem").chmod(0o600)
    rules = {"/orders": {"GET": {"authorization": {"expression": "permissions.orders"}}}}
    (folder / "auth.json").write_text(json.dumps(rules), "utf-8")
    (folder / "clients.json").write_text(
        json.dumps([{"client_id": "x", "client_secret": "$2b$10$" + "a" * 53}]), "utf-8"
    )
    (folder / "token.txt").write_text(billing.token(), "utf-8")
    for log in ("api.log", "operator.log"):
        (folder / log).write_text("a line\n", "utf-8")
    (folder / "rules").mkdir()
    access = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "AccessRule", "metadata": {"name": "x"}}
    shown = {**access, "spec": {"routes": [{"path": "/orders", "permissions": {"anyOf": ["orders:read"]}}]}}
    for number, name in enumerate(("shop", "health")):
        other = {"metadata": {"name": name}, "spec": {"routes": [{"path": f"/{name}", "public": True}]}}
        (folder / "rules" / f"{name}.yaml").write_text(yaml.safe_dump({**shown, **(other if number else {})}), "utf-8")
    case = {"request": "GET https://shop.example/orders/7", "permissions": ["orders:read"], "expect": "allow"}
    (folder / "cases.yaml").write_text(yaml.safe_dump([case]), "utf-8")
    generated = {"generateKey": {"secretName": "billing-generated"}}
    world.apply(manifest("ClientCredential", "billing-generated", generated))
    world.objects.wait_for("clientcredentials", "billing-generated")
    denial = world.replicas[0].auth("/orders-of-nobody", billing.token())
    assert denial.status_code == 403
    return Stage(world, folder, billing.client_id, str(denial.json()["id"]))


def run(world: World, stage: Stage, command: tuple[str, ...], example: str, folder: Path) -> None:
    words = stage.words(example)
    changing = command[0] == "revoke" or command[-1] in ("approve", "suspend", "resume")
    if changing and not {"--yes", "--dry-run", "--token"} & set(words):
        words.append("--yes")
    done = keyturn(world, *words, stdin=stage.typed(words), folder=folder)
    # Here the service's own URL stands for the public one: that its private paths are seen there is what doctor is to say.
    wanted = 1 if "--public-url" in words else 0
    assert done.returncode == wanted, f"{example}: {done.stderr} {done.stdout}"


def touches_the_signing_key(example: str) -> bool:
    """Such examples would take other tests' tokens away."""
    return "signing-key" in example


@pytest.mark.parametrize("command", [one for one in leaves(GROUP) if one[-1] != "signing-key"], ids=" ".join)
def test_every_example_in_the_help_does_what_it_says(
    world: World, stage: Stage, command: tuple[str, ...], tmp_path: Path
) -> None:
    found = examples(command)
    assert found
    for number, example in enumerate(found):
        if touches_the_signing_key(example):
            continue
        folder = stage.folder
        if command == ("keygen",):
            # It leaves alone what is there.
            folder = tmp_path / str(number)
            folder.mkdir()
        run(world, stage, command, example, folder)
        if command[-1] == "suspend":
            assert keyturn(world, "clients", "resume", "billing", "--yes").returncode == 0


def test_so_do_those_that_touch_the_signing_key(start_world: StartWorld, tmp_path: Path) -> None:
    own = start_world(signing={"publishBefore": "1s"})
    (tmp_path / "auth.json").touch()
    stage = Stage(own, tmp_path, "", "")
    commands = [("rotate", "signing-key"), ("revoke",)]
    found = [(command, one) for command in commands for one in examples(command) if touches_the_signing_key(one)]
    assert len(found) >= 3
    for command, example in found:
        run(own, stage, command, example, tmp_path)
