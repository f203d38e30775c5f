"""What the containers are: nobody's root, nothing to write to, nothing to install or compile with."""

import json

import pytest

from tests.node.kubectl import Kubectl

LOOK = """
import json, os, pathlib, shutil, sys
def writable(folder):
    path = pathlib.Path(folder) / "keyturn-probe"
    try:
        path.write_text("x")
    except OSError:
        return False
    path.unlink()
    return True
path = "/opt/keyturn/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
tools = ("apt", "apt-get", "dpkg", "apk", "pip", "pip3", "uv", "conda", "gcc", "cc", "clang", "make", "ld", "perl", "curl", "wget", "git")
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "tools": [name for name in tools if shutil.which(name, path=path)],
    "modules": [name for name in ("pip", "ensurepip", "setuptools", "kubernetes", "kopf", "keyturn_api", "keyturn_operator", "keyturn_cli")
                if __import__("importlib.util").util.find_spec(name)],
    "writable": [folder for folder in ("/", "/opt/keyturn", "/usr/bin", "/etc", "/var", "/tmp") if writable(folder)],
    "safe": sys.flags.safe_path,
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))],
    "privileges": [line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")],
    "raised": [str(path) for root in ("/usr", "/opt", "/bin", "/sbin") for path in pathlib.Path(root).rglob("*")
               if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o6000],
}))
"""


@pytest.mark.parametrize(
    ("part", "modules"),
    [("api", ["keyturn_api"]), ("operator", ["kubernetes", "kopf", "keyturn_operator"])],
)
def test_a_container_holds_its_own_program_and_may_do_no_more_than_run_it(
    shop: Kubectl, part: str, modules: list[str]
) -> None:
    pod = shop.get("pods", f"--selector=app.kubernetes.io/component={part}")["items"][0]["metadata"]["name"]
    seen = json.loads(shop.python(pod, LOOK))
    assert (seen["uid"], seen["gid"]) == (65532, 65532)
    assert seen["tools"] == []
    assert sorted(seen["modules"]) == sorted(modules)
    assert seen["writable"] == ["/tmp"]
    assert seen["safe"] == 1
    assert set(seen["capabilities"]) == {"0" * 16}
    assert seen["privileges"] == ["1"]
    assert seen["raised"] == []
