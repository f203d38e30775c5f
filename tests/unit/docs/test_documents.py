"""What the documents tell a reader to open or to type exists."""

import re
import shlex
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, PROJECT, RUN_BY, blocks, commands, links, name_of
from tests.keyturn_words import check

MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
LINKS = [(name_of(document), link) for document in DOCUMENTS for link in links(document)]
COMMANDS = sorted({(name_of(document), command) for document in DOCUMENTS for command in commands(document)})
# Read by the programs that `make` starts, besides what the Makefile itself reads.
VARIABLES = {
    "BASE",
    "ONCE",
    "PARTS",
    "YES",
    "T",
    "KEYTURN_CLUSTER",
    "WRITE",
    "ONLY",
    "SECONDS",
    "RUNS",
    "LEVELS",
    "WORKERS",
    "STORES",
}


def installs_what_ci_installs(words: list[str]) -> bool:
    """A line for a fresh machine: `.ci/run` installs the same packages where it may."""
    install = ["apt-get", "install", "-y", "--no-install-recommends"]
    start = words.index("apt-get")
    return words[start : start + len(install)] == install and set(words[start + len(install) :]) <= ci_packages()


def ci_packages() -> set[str]:
    script = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    found = re.search(r"^packages=\(\n(.*?)^\)", script, re.MULTILINE | re.DOTALL)
    assert found is not None
    return {word for line in found[1].splitlines() if not line.lstrip().startswith("#") for word in line.split()}


def calls_a_target(words: list[str]) -> bool:
    """A target of the Makefile, with variables that something reads."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    (name,) = [word for word in words if "=" not in word and word != "make"]
    part = given.get("T")
    return name in TARGETS and given.keys() <= VARIABLES and (part is None or (PROJECT / "tests" / part).is_dir())


def test_there_are_commands_and_links_to_look_at() -> None:
    assert ("README.md", "make run") in COMMANDS
    assert ("README.md", "make check") in COMMANDS
    assert ("README.md", "make test") in COMMANDS
    assert ("README.md", "docs/settings.md") in LINKS


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_a_command_is_one_that_is_there(document: str, command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    program = next(word for word in words if "=" not in word)
    if program == "sudo":
        assert installs_what_ci_installs(words)
    elif program == "make":
        assert calls_a_target(words)
    elif program == "keyturn":
        arguments = [str(tmp_path / word) if word.endswith(".pem") else word for word in words[1:]]
        for word in words:
            if word.endswith(".pem"):
                (tmp_path / word).touch()
        check(arguments)
    else:
        pytest.fail(f"nothing runs `{command}`; a block that a test runs names it in a comment in front of it")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        pytest.param("clients list --no-such-option", "No such option", id="an option of a command in a group"),
        pytest.param("clients lists", "'lists'", id="a command that a group has not"),
        pytest.param("token --url nowhere", "https://", id="a value that is none"),
    ],
)
def test_a_command_is_followed_to_its_end(command: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        check(shlex.split(command))
    check(["clients", "list"])
    check(["--install-completion"])


def test_no_command_hides_in_a_block_that_nothing_runs() -> None:
    programs = re.compile(r"^(?:\$ )?(sudo|make|keyturn|kubectl|curl|helm|docker|psql|python3?|pip|git) ", re.MULTILINE)
    shown = [block for document in DOCUMENTS for block in blocks(document) if block.language in ("", "text")]
    assert shown
    assert [(name_of(block.document), found[0]) for block in shown if (found := programs.search(block.text))] == []


@pytest.mark.parametrize(("document", "link"), LINKS)
def test_a_relative_link_leads_to_something(document: str, link: str) -> None:
    assert ((PROJECT / document).parent / link).exists()


def test_a_block_that_names_a_test_is_run_by_it() -> None:
    marks = [(block, RUN_BY.fullmatch(block.mark)) for document in DOCUMENTS for block in blocks(document)]
    named = [(block, mark[1]) for block, mark in marks if mark]
    runbooks = {name_of(path) for path in (PROJECT / "docs" / "runbooks").glob("*.md")}
    assert {(name_of(block.document), test) for block, test in named} == {
        *((page, "tests/people/metrics/test_runbooks.py") for page in runbooks),
        ("README.md", "tests/cluster/test_readme.py"),
        ("docs/clients.md", "tests/people/test_clients_page.py"),
        ("docs/install.md", "tests/cluster/test_helm.py"),
        ("docs/install.md", "tests/node/test_backup.py"),
        ("docs/install.md", "tests/node/test_install.py"),
        ("docs/install.md", "tests/node/test_tenants.py"),
        ("docs/install.md", "tests/node/test_under_load.py"),
        ("docs/keys.md", "tests/cluster/test_runbooks.py"),
        ("docs/migrate.md", "tests/people/test_migration_page.py"),
        ("docs/tokens.md", "tests/api/test_docs.py"),
    }
    assert all((PROJECT / test).is_file() for _, test in named)


def test_every_target_that_people_call_is_listed_by_make_help() -> None:
    listed = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert listed == TARGETS - {"stale"}
