"""Each example of each command's help is run as it is written, with the names of this installation in place of its own."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster.clients import World, needs, route
from tests.cluster.portal import Portal
from tests.documents import DOCUMENTS, PROJECT, RUN_BY, blocks, name_of
from tests.installations import StartWorld
from tests.keyturn_words import every_command, examples
from tests.manifests import manifest
from tests.people.command_line import keyturn

# The console runs until Ctrl-C: its examples are run by test_command.py. The completion's installation is by test_plugin.py.
OTHERS = ("console", "--install-completion")
COMMANDS = [one for one in every_command() if one[0] not in OTHERS]


def lines_of(document: Path) -> list[str]:
    """What a document's shell blocks give `keyturn` to do, where no other test runs the block."""
    shown = [
        block.text
        for block in blocks(document)
        if block.language in ("sh", "bash", "console") and not RUN_BY.fullmatch(block.mark)
    ]
    found = re.findall(r"^keyturn (.*\S)\s*$", "\n".join(shown), re.MULTILINE)
    return [line for line in found if line.split()[0] not in OTHERS]


PAGES = [path for path in DOCUMENTS if lines_of(path)]


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

    def copied(self, folder: Path) -> None:
        """The files in a folder of their own: some commands leave alone what is there."""
        shutil.copytree(self.folder, folder)

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
    # The project's own, as a page has them beside it.
    shutil.copytree(PROJECT / "examples", folder / "examples")
    for number, name in enumerate(("shop", "health")):
        other = {"metadata": {"name": name}, "spec": {"routes": [{"path": f"/{name}", "public": True}]}}
        (folder / "rules" / f"{name}.yaml").write_text(yaml.safe_dump({**shown, **(other if number else {})}), "utf-8")
    case = {"request": "GET https://shop.example/orders/7", "permissions": ["orders:read", "orders"], "expect": "allow"}
    (folder / "cases.yaml").write_text(yaml.safe_dump([case]), "utf-8")
    generated = {"generateKey": {"secretName": "billing-generated"}}
    world.apply(manifest("ClientCredential", "billing-generated", generated))
    world.objects.wait_for("clientcredentials", "billing-generated")
    denial = world.replicas[0].auth("/orders-of-nobody", billing.token())
    assert denial.status_code == 403
    return Stage(world, folder, billing.client_id, str(denial.json()["id"]))


def run(world: World, stage: Stage, example: str, folder: Path) -> None:
    words = stage.words(example)
    edits = words[0] == "revoke" or words[:2] in (["clients", one] for one in ("approve", "suspend", "resume"))
    if edits and not {"--yes", "--dry-run", "--token"} & set(words):
        words.append("--yes")
    done = keyturn(world, *words, stdin=stage.typed(words), folder=folder)
    # Here the service's own URL stands for the public one: that its private paths are seen there is what doctor is to say.
    wanted = 1 if "--public-url" in words else 0
    assert done.returncode == wanted, f"{example}: {done.stderr} {done.stdout}"
    if words[:2] == ["clients", "suspend"]:
        assert keyturn(world, "clients", "resume", "billing", "--yes").returncode == 0


def touches_the_signing_key(example: str) -> bool:
    """Such examples would take other tests' tokens away."""
    return "signing-key" in example or example.startswith("revoke --all")


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[-1] != "signing-key"], ids=" ".join)
def test_every_example_in_the_help_does_what_it_says(
    world: World, stage: Stage, command: tuple[str, ...], tmp_path: Path
) -> None:
    found = examples(command)
    assert found
    for number, example in enumerate(found):
        if touches_the_signing_key(example):
            continue
        folder = tmp_path / str(number)
        if command == ("keygen",):
            # Where there is no such key yet.
            folder.mkdir()
        else:
            stage.copied(folder)
        run(world, stage, example, folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_does_what_it_says(world: World, stage: Stage, page: Path, tmp_path: Path) -> None:
    """One after the other, in one folder: what one writes another reads."""
    folder = tmp_path / "page"
    stage.copied(folder)
    for line in lines_of(page):
        if not touches_the_signing_key(line):
            run(world, stage, line, folder)


def test_pages_have_commands_that_are_run() -> None:
    assert {name_of(page) for page in PAGES} >= {"docs/cli.md", "docs/access-rules.md", "docs/migrate.md"}


@pytest.mark.timeout(300)
def test_so_do_those_that_touch_the_signing_key(start_world: StartWorld, tmp_path: Path) -> None:
    own = start_world(signing={"publishBefore": "1s"})
    (tmp_path / "auth.json").touch()
    stage = Stage(own, tmp_path, "", "")
    lines = [line for command in COMMANDS for line in examples(command)]
    lines += [line for page in PAGES for line in lines_of(page)]
    found = [line for line in dict.fromkeys(lines) if touches_the_signing_key(line)]
    assert len(found) >= 5
    for line in found:
        run(own, stage, line, tmp_path)
