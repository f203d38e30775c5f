"""The health rule for Argo CD in docs/install.md, run by a real Lua: the one that HAProxy has built in."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.documents import PROJECT, blocks

PREFIX = "resource.customizations.health.keyturn.dev_"


def rules() -> dict[str, str]:
    (shown,) = [one.text for one in blocks(PROJECT / "docs" / "install.md") if PREFIX in one.text]
    data = yaml.safe_load(shown)["data"]
    return {name.removeprefix(PREFIX): rule for name, rule in data.items()}


def test_there_is_a_rule_for_each_kind() -> None:
    assert rules().keys() == {"ClientCredential", "SigningKey", "AccessRule"}


@pytest.mark.parametrize(
    ("status", "health"),
    [
        pytest.param("nil", "Progressing", id="no status yet"),
        pytest.param("{conditions = {}}", "Progressing", id="no condition yet"),
        pytest.param(
            '{conditions = {{type = "Ready", status = "True", observedGeneration = 1, message = "m"}}}',
            "Progressing",
            id="a status of the edit before",
        ),
        pytest.param(
            '{conditions = {{type = "Ready", status = "Unknown", observedGeneration = 2, reason = "NoReplica"}}}',
            "Progressing",
            id="no replica yet",
        ),
        pytest.param(
            '{conditions = {{type = "Other", status = "False"}, {type = "Ready", status = "True", observedGeneration = 2, message = "m"}}}',
            "Healthy",
            id="ready",
        ),
        pytest.param(
            '{conditions = {{type = "Ready", status = "False", observedGeneration = 2, reason = "WeakKey", message = "m"}}}',
            "Degraded",
            id="not ready",
        ),
    ],
)
def test_argo_cd_is_told_the_object_s_health(status: str, health: str, tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert haproxy is not None, "haproxy is needed; on Debian: apt-get install haproxy"
    rule = rules()["ClientCredential"]
    script = tmp_path / "rule.lua"
    script.write_text(
        f"local function health(obj)\n{rule}\nend\n"
        f"local told = health({{metadata = {{generation = 2}}, status = {status}}})\n"
        f'assert(told.status == "{health}", told.status)\nassert(type(told.message) == "string")\n',
        encoding="utf-8",
    )
    (tmp_path / "haproxy.cfg").write_text(
        f"global\n  lua-load {script}\ndefaults\n  timeout client 1s\n  timeout connect 1s\n  timeout server 1s\n"
        "  mode http\nlisten one\n  bind 127.0.0.1:1\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [haproxy, "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
