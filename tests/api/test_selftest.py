"""What `helm test` runs, against a real API: with and without TLS inside the cluster."""

import asyncio
import datetime
import time
from pathlib import Path

import pytest

from keyturn_api.selftest import Failed, run
from keyturn_dev.certificates import Authority
from tests.api.conftest import Running
from tests.api.installation import Installation

pytestmark = pytest.mark.asyncio(loop_scope="session")
SECRET = "from-the-operator"


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """The Secret of the test's client as it is mounted."""
    folder = tmp_path / "client"
    folder.mkdir()
    (folder / "client_id").write_text("team.tested")
    (folder / "client_secret").write_text(SECRET)
    return folder


def certificate(folder: Path, name: str) -> dict[str, Path]:
    """A server's certificate from an authority that nobody knows, with that authority's own behind it as many are delivered."""
    authority = Authority(f"{name} authority", datetime.datetime.now(datetime.UTC))
    pair = authority.issue(name, names=(name,))
    files = {"certificate": folder / f"{name}.crt", "key": folder / f"{name}.key"}
    files["certificate"].write_bytes(pair.certificate + authority.certificate)
    files["key"].write_bytes(pair.key)
    return files


async def test_a_token_is_got_and_confirmed(shared: Running, client: Path) -> None:
    await shared.installation.add_secret_client("team.tested", SECRET.encode())
    said = await asyncio.to_thread(patiently, shared.process.url, client)
    assert "team.tested got a token" in said


async def test_over_tls_the_certificate_that_is_mounted_counts_and_no_other(
    installation: Installation, client: Path, tmp_path: Path
) -> None:
    served = certificate(tmp_path, "tokens.shop.example")
    tls = {"tls_cert_file": str(served["certificate"]), "tls_key_file": str(served["key"])}
    process = await installation.start(**tls).ready()
    await installation.add_secret_client("team.tested", SECRET.encode())
    said = await asyncio.to_thread(patiently, process.url, client, served["certificate"])
    assert "team.tested got a token" in said
    other = certificate(tmp_path, "elsewhere.example")["certificate"]
    for refused in (other, None):
        with pytest.raises(Failed, match="certificate verify failed"):
            await asyncio.to_thread(run, process.url, client, refused)
    with pytest.raises(Failed, match="cannot be read"):
        await asyncio.to_thread(run, process.url, client, tmp_path / "none.crt")


def patiently(url: str, client: Path, trusted: Path | None = None) -> str:
    """As `main` does: a client made a moment ago may not be known yet."""
    for _ in range(50):
        try:
            return run(url, client, trusted)
        except Failed as failed:
            last = failed
            time.sleep(0.1)
    raise last
