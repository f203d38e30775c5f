"""`make run`, `make up` and `make down`, as a person types them in this checkout."""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn_dev import run
from keyturn_dev.paths import PROJECT
from keyturn_dev.target import choose_cluster
from keyturn_dev.waiting import wait_until

RUN_SECONDS = 90
"""What `make run` may take once the cluster is built, beside other tests; alone it needs a fifth of that."""
UP_SECONDS = 90
END_SECONDS = 30
# What a `make` around the tests hands down, and what would change the commands' meaning.
NOT_INHERITED = (
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "MAKEOVERRIDES",
    "ONCE",
    "YES",
    "T",
    "KEYTURN_CLUSTER",
    "KUBECONFIG",
)

pytestmark = pytest.mark.timeout(240)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**kept, **more}


def make(target: str, *, seconds: float = 90, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", target, *(f"{name}={value}" for name, value in variables.items())],
        cwd=PROJECT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def ours() -> list[str]:
    """The processes that were started for this checkout: they work in its `.run`, or their command names it."""
    folder = str(PROJECT / ".run")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            works_in = str((entry / "cwd").readlink())
        except OSError:
            continue
        if state not in "ZX" and (f"{works_in}/".startswith(f"{folder}/") or f"{folder}/" in command):
            found.append(f"{entry.name}: {command}")
    return found


@pytest.fixture(autouse=True)
def nothing_runs_before_and_after(cluster_build: subprocess.Popen[bytes] | None) -> Iterator[None]:
    assert cluster_build is not None
    assert cluster_build.wait(timeout=1500) == 0, "the cluster's programs could not be built"
    assert not run.running(), "an installation of this checkout runs: `make down` ends it, then run the tests again"
    yield
    make("down")
    assert ours() == []


def nothing_is_left() -> None:
    wait_until(lambda: ours() == [], f"all processes to end: {ours()}", seconds=5)
    assert not run.ENV.exists()
    assert not run.STATE.exists()
    assert not run.DEMO.exists()


def test_make_run_shows_every_step_with_its_command_and_ends_with_nothing_left() -> None:
    began = time.monotonic()
    done = make("run", ONCE="1", seconds=120)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert took < RUN_SECONDS
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", done.stdout, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    for shown in (
        "$ keyturn keygen",
        "$ kubectl -n keyturn-demo apply -f",
        "clientcredential.keyturn.dev/billing created",
        "wait --for=condition=Ready",
        "$ keyturn token --url http://127.0.0.1:",
        "/tokeninfo",
        '"permissions": ["orders:read"]',
        "200  mia-allowed: 1",
        "403  mia-allowed: 0",
        "patch clientcredential billing",
    ):
        assert shown in done.stdout
    measured = re.search(r"403, (\d+) ms after kubectl had returned", done.stdout)
    assert measured is not None
    assert int(measured.group(1)) < 1000
    # Neither a private key nor a whole token is shown.
    assert "PRIVATE KEY" not in done.stdout
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", done.stdout)
    nothing_is_left()


def test_make_up_serves_until_make_down_and_a_second_one_says_so(tmp_path: Path) -> None:
    first = make("up", seconds=UP_SECONDS)
    assert first.returncode == 0, first.stderr
    before = ours()

    second = make("up", seconds=UP_SECONDS)
    assert second.returncode != 0
    assert "one runs already" in second.stderr
    assert "make down" in second.stderr
    assert ours() == before

    def sh(script: str) -> str:
        """In another folder, with no environment but the file's."""
        done = subprocess.run(
            ["sh", "-ec", f". {shlex.quote(str(run.ENV))}; {script}"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    names = re.findall(r"^export (\w+)=(.*)$", run.ENV.read_text(encoding="utf-8"), re.MULTILINE)
    assert {
        "KUBECONFIG",
        "KEYTURN_URL",
        "KEYTURN_NAMESPACE",
        "KEYTURN_CLI",
        "KEYTURN_OPERATOR_RESTART",
        "KEYTURN_REGISTRATION_TOKEN",
    } <= {name for name, _ in names}
    assert all(value not in ("", "''") for _, value in names)
    fetch = "import os, urllib.request as u; print(u.urlopen(os.environ['KEYTURN_URL'] + '{}').status)"
    for path in ("/readyz", "/.well-known/openid-configuration", "/.well-known/jwks.json"):
        assert sh(f"python3 -c {shlex.quote(fetch.format(path))}").strip() == "200"
    kubectl = shlex.quote(str(choose_cluster({}).kubectl))
    assert "True" in sh(f'{kubectl} -n "$KEYTURN_NAMESPACE" get signingkeys')
    sh('eval "$KEYTURN_CLI keygen env-client --out . --namespace $KEYTURN_NAMESPACE --permission p"')
    sh(f"{kubectl} apply -f env-client.yaml")
    sh(f'{kubectl} -n "$KEYTURN_NAMESPACE" wait --for=condition=Ready --timeout=20s cc env-client')
    take = 'eval "$KEYTURN_CLI token --url $KEYTURN_URL --client-id $KEYTURN_NAMESPACE.env-client --key env-client.pem"'
    assert sh(take).count(".") == 2

    register = (
        "import json, os, urllib.request as u; "
        "r = u.Request(os.environ['KEYTURN_URL'] + '/register', b'{}', {'Content-Type': 'application/json', "
        "'Authorization': 'Bearer ' + os.environ['KEYTURN_REGISTRATION_TOKEN']}); "
        "print(json.load(u.urlopen(r))['client_id'])"
    )
    assert sh(f"python3 -c {shlex.quote(register)}").startswith(f"{run.NAMESPACE}.r-")

    operator = next(one for one in run.running() if one.name == "operator-0")
    sh('eval "$KEYTURN_OPERATOR_RESTART"')
    restarted = next(one for one in run.running() if one.name == "operator-0")
    assert restarted.pid != operator.pid
    sh(f'{kubectl} -n "$KEYTURN_NAMESPACE" patch cc env-client --type=merge -p \'{{"spec":{{"suspended":true}}}}\'')
    sh(
        f'{kubectl} -n "$KEYTURN_NAMESPACE" wait --for=jsonpath=.status.observedGeneration=2 --timeout=20s cc env-client'
    )

    down = make("down", seconds=END_SECONDS)
    assert down.returncode == 0
    nothing_is_left()
    again = make("down", seconds=END_SECONDS)
    assert again.returncode == 0
    assert "nothing was running" in again.stderr


@pytest.mark.parametrize(
    ("moment", "status"),
    [("Ctrl-C ends it.", {0, 2}), ("The Kubernetes API server is up", {2})],
    ids=["while it serves", "while it starts"],
)
def test_ctrl_c_takes_everything_down(moment: str, status: set[int], tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        began = subprocess.Popen(
            ["make", "run"],
            cwd=PROJECT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:

        def there() -> bool:
            assert began.poll() is None, shown.read_text(errors="replace")
            return moment in shown.read_text(errors="replace")

        wait_until(there, f"make run to say: {moment}", seconds=60, interval=0.1)
        # As a terminal does: to every process in the foreground.
        os.killpg(began.pid, signal.SIGINT)
        began.wait(timeout=END_SECONDS)
    finally:
        if began.poll() is None:
            os.killpg(began.pid, signal.SIGKILL)
            began.wait(timeout=10)
    said = shown.read_text(errors="replace")
    assert began.returncode in status | {-signal.SIGINT}, said
    assert "Traceback" not in said
    nothing_is_left()
