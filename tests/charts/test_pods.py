"""What the pods of an installation get from its values."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import CHARTS, deployed, environment, objects, render_values, run_helm

# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)


def test_a_number_of_a_values_file_reaches_the_program_as_it_was_written(tmp_path: Path) -> None:
    """Helm reads the numbers of a file as floats, unlike those of `--set`."""
    numbers = {"KEYTURN_MAX_BODY_BYTES": 1048576, "KEYTURN_MAX_TOKEN_LIFETIME": 2592000, "KEYTURN_TRACES_RATIO": 0.25}
    values = {
        "api": {"settings": numbers},
        "operator": {"settings": {"KEYTURN_OPERATOR_KEYS_EXPIRING_WITHIN": 12096000}},
        "postgresql": {"user": 1000680000},
    }
    rendered = render_values(tmp_path, values)
    assert {name: environment(rendered, "keyturn-api")[name] for name in numbers} == {
        "KEYTURN_MAX_BODY_BYTES": "1048576",
        "KEYTURN_MAX_TOKEN_LIFETIME": "2592000",
        "KEYTURN_TRACES_RATIO": "0.25",
    }
    operator = environment(rendered, "keyturn-operator")
    assert operator["KEYTURN_MAX_TOKEN_LIFETIME"] == "2592000"
    assert operator["KEYTURN_OPERATOR_KEYS_EXPIRING_WITHIN"] == "12096000"
    assert "runAsUser: 1000680000\n" in rendered


def test_a_new_version_of_the_chart_starts_the_programs_anew_and_not_the_database(tmp_path: Path) -> None:
    shutil.copytree(CHARTS / "keyturn", tmp_path / "next")
    chart = tmp_path / "next" / "Chart.yaml"
    described = yaml.safe_load(chart.read_text(encoding="utf-8"))
    chart.write_text(yaml.safe_dump({**described, "version": "99.0.0", "appVersion": "99.0.0"}), encoding="utf-8")
    before = render_values(tmp_path, {})
    after = render_values(tmp_path, {"commonLabels": {"team": "shop"}}, chart=tmp_path / "next")

    def template(rendered: str, name: str) -> Any:
        return deployed(rendered, name)["spec"]["template"]

    assert template(after, "keyturn-postgresql") == template(before, "keyturn-postgresql")
    assert template(after, "keyturn-api") != template(before, "keyturn-api")


def test_the_operator_has_what_both_parts_must_have_alike() -> None:
    options = (
        "--set",
        "api.settings.KEYTURN_MAX_TOKEN_LIFETIME=172800",
        "--set",
        "api.settings.KEYTURN_BCRYPT_COST=13",
    )
    own = ("--set", "operator.settings.KEYTURN_BCRYPT_COST=12", "--set", "issuer=https://a.example")
    database = ("--set", "postgresql.auth.existingSecret=database")
    done = run_helm("template", "keyturn", str(CHARTS / "keyturn"), *options, *own, *database)
    assert done.returncode == 0, done.stderr
    (operator,) = [
        one
        for one in objects(done.stdout)
        if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-operator")
    ]
    listed = [(one["name"], one.get("value")) for one in operator["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert ("KEYTURN_MAX_TOKEN_LIFETIME", "172800") in listed
    assert [value for name, value in listed if name == "KEYTURN_BCRYPT_COST"] == ["12"], "once, and its own goes first"
    assert "KEYTURN_TOKEN_LIFETIME" not in dict(listed)
