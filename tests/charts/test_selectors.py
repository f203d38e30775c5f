"""What the documents select by labels is there: kubectl finds nothing by a wrong label, and calls that a success."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from keyturn.clients.registration import APPROVAL_LABEL, PENDING
from keyturn_operator.key_secret import MANAGED_BY, MANAGER
from tests.charts.rendering import CHARTS, objects, render
from tests.documents import DOCUMENTS, PROJECT

# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)
# Neither from the chart: the operator's Secrets, and the clients that the API registers.
MADE_ELSEWHERE = {"secret": {MANAGED_BY: MANAGER}, "clientcredential": {APPROVAL_LABEL: PENDING}}
KINDS = {"cc": "clientcredential", "logs": "pod"}
# Of whom a page speaks that looks at these pods.
PARTS = ("api", "operator", "postgresql")


def selections() -> list[Any]:
    """Each `kubectl … --selector …` of the documents: the kind that it looks for, and the labels."""
    found = {}
    for document in (*DOCUMENTS, *CHARTS.glob("*/README.md")):
        for command in re.findall(r"kubectl [^`\n|>]*(?:--selector|-l)[ =][^`\n|>]*", document.read_text("utf-8")):
            found[command.strip()] = document
    return [
        pytest.param(*selection(command), id=f"{at.relative_to(PROJECT)}: {command}") for command, at in found.items()
    ]


def selection(command: str) -> tuple[str, dict[str, str]]:
    words = re.sub(r"--(selector|namespace) ", r"--\1=", command).replace("-l ", "--selector=")
    _, *rest = shlex.split(words)
    (selector,) = (word.removeprefix("--selector=") for word in rest if word.startswith("--selector="))
    verb, *kinds = (word for word in rest if not word.startswith("-"))
    kind = "logs" if verb == "logs" else kinds[0]
    return KINDS.get(kind, kind.removesuffix("s")), dict(part.split("=") for part in selector.split(","))


def labels_of(kind: str, folder: Path) -> dict[str, dict[str, str]]:
    """By the part of the installation, those of the pods or claims that the chart makes with no values but the issuer."""
    found = {}
    for one in objects(render(folder, "defaults")):
        if one["kind"] in ("Deployment", "StatefulSet"):
            of_pods = one["spec"]["template"]["metadata"]["labels"]
            # The StatefulSet's controller labels the claims that it makes with what it selects by.
            of_claims = one["spec"]["selector"]["matchLabels"] if "volumeClaimTemplates" in one["spec"] else None
            labels = {"pod": of_pods, "pvc": of_claims}[kind]
            if labels:
                found[one["metadata"]["name"].removeprefix("keyturn-")] = labels
    return found


@pytest.mark.parametrize(("kind", "asked"), selections())
def test_a_selector_of_the_documents_finds_what_it_is_for(kind: str, asked: dict[str, str], tmp_path: Path) -> None:
    if kind in MADE_ELSEWHERE:
        assert asked.items() <= MADE_ELSEWHERE[kind].items()
        return
    parts = labels_of(kind, tmp_path)
    found = {part for part, labels in parts.items() if asked.items() <= labels.items()}
    named = asked.get("app.kubernetes.io/component")
    assert found == ({named} if named else set(parts))
    assert found


def test_the_documents_select_pods_of_each_part() -> None:
    asked = [one.values[1] for one in selections() if one.values[0] == "pod"]
    assert {labels.get("app.kubernetes.io/component") for labels in asked} == {*PARTS, None}
