"""What the chart with the kinds makes of its values."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import CHARTS, CRD_VALUE_SETS, objects, render_crds, run_helm
from tests.crd_schemas import CRDS
from tests.golden import assert_golden

# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)
value_sets = pytest.mark.parametrize("name", CRD_VALUE_SETS)


def shortened(one: dict[str, Any]) -> dict[str, Any]:
    """A CustomResourceDefinition without its schema, which is the product file's own."""
    if one["kind"] != "CustomResourceDefinition":
        return one
    return {**one, "spec": {member: value for member, value in one["spec"].items() if member != "versions"}}


@value_sets
def test_the_rendering_is_what_was_agreed_to(name: str, tmp_path: Path) -> None:
    rendered = [shortened(one) for one in objects(render_crds(tmp_path, name))]
    assert_golden(f"charts/{name.replace(' ', '-')}.yaml", yaml.safe_dump_all(rendered, sort_keys=False))


@value_sets
def test_the_schemas_are_the_project_s_to_the_last_member(name: str, tmp_path: Path) -> None:
    kinds = {
        one["spec"]["names"]["plural"]: one["spec"]
        for one in objects(render_crds(tmp_path, name))
        if one["kind"] == "CustomResourceDefinition"
    }
    assert kinds == {plural: yaml.safe_load(path.read_text(encoding="utf-8"))["spec"] for plural, path in CRDS.items()}


@value_sets
def test_helm_finds_nothing_to_complain_of(name: str, tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text(json.dumps(CRD_VALUE_SETS[name]), encoding="utf-8")
    done = run_helm("lint", str(CHARTS / "keyturn-crds"), "--strict", "--quiet", "--values", str(path))
    assert done.returncode == 0, done.stdout


def test_the_crds_stay_when_their_chart_goes() -> None:
    done = run_helm("template", "keyturn-crds", str(CHARTS / "keyturn-crds"))
    kept = [
        one["metadata"]["annotations"]["helm.sh/resource-policy"]
        for one in objects(done.stdout)
        if one["kind"] == "CustomResourceDefinition"
    ]
    assert kept == ["keep"] * 3


def test_of_the_roles_for_people_only_the_viewers_is_part_of_the_clusters_own() -> None:
    roles = {
        one["metadata"]["name"]: one["metadata"]["labels"]
        for one in objects(run_helm("template", "keyturn-crds", str(CHARTS / "keyturn-crds")).stdout)
        if one["kind"] == "ClusterRole"
    }
    aggregated = {name: [label for label in labels if "aggregate-to" in label] for name, labels in roles.items()}
    assert aggregated == {
        "keyturn-view": ["rbac.authorization.k8s.io/aggregate-to-view"],
        "keyturn-edit": [],
        "keyturn-admin": [],
    }
