"""The chart of the CRDs carries them as they are in `crds/`: Helm packs nothing that lies outside a chart."""

import os

from tests.crd_schemas import PROJECT

CRDS = PROJECT / "crds"
CHART_FILES = PROJECT / "charts" / "keyturn-crds" / "files"


def test_the_chart_carries_each_crd_as_it_is() -> None:
    ours = {path.name: path.read_text(encoding="utf-8") for path in CRDS.glob("*.yaml")}
    if os.environ.get("UPDATE_GOLDEN") == "1":
        for name, text in ours.items():
            (CHART_FILES / name).write_text(text, encoding="utf-8")
    carried = {path.name: path.read_text(encoding="utf-8") for path in CHART_FILES.glob("*.yaml")}
    assert carried == ours, "make golden copies crds/ into charts/keyturn-crds/files"
