"""Whether a live process keeps what its OpenAPI document promises: schemathesis asks, within bounds and the same each time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

# An answer that is no 5xx, and whose status, content type, headers and body are documented; no method that isn't.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
SECONDS = 100


@dataclass(frozen=True)
class Examined:
    """What was asked, and what was wrong with the answers."""

    operations: int
    tested: int
    cases: int
    failures: list[str]
    answers: Counter[tuple[str, str, int]]

    def statuses(self, method: str, path: str) -> set[int]:
        return {status for (one, place, status) in self.answers if (one, place) == (method, path)}


def examine(
    url: str,
    folder: Path,
    *,
    document: str = "/openapi.json",
    headers: Mapping[str, str] | None = None,
    only: str | None = None,
    checks: Sequence[str] = CHECKS,
    examples: int = 15,
    parameters: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> Examined:
    """Asks every operation of the document (or those whose path matches `only`), with `headers` in each request.

    `parameters`: values for parameters by their name, in place of random ones. `without`: methods to leave out.
    `examples`: how many random requests an operation gets at most, besides those that cover its parameters one by one.
    """
    report, traffic = folder / "report.json", folder / "traffic.har"
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}{document}", "--url", url]
    command += ["--checks", ",".join(checks), "--max-examples", str(examples)]
    command += ["--generation-deterministic", "--no-shrink", "--continue-on-failure", "--no-color"]
    command += ["--report", "json,har", "--report-json-path", str(report), "--report-har-path", str(traffic)]
    for name, value in (headers or {}).items():
        command += ["--header", f"{name}:{value}"]
    if parameters:
        command[1:1] = ["--config-file", str(_configuration(folder, parameters))]
    for method in without:
        command += ["--exclude-method", method]
    if only is not None:
        command += ["--include-path-regex", only]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
    )
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(report.read_text(encoding="utf-8"))
    operations = told["operations"]
    entries = json.loads(traffic.read_text(encoding="utf-8"))["log"]["entries"]
    failures = [json.dumps(one)[:1500] for one in (*told["failures"], *told["errors"])]
    if done.returncode != 0 and not failures:
        failures = [done.stdout[-3000:] + done.stderr[-3000:]]
    answers = Counter(
        (one["request"]["method"], urlsplit(one["request"]["url"]).path, one["response"]["status"]) for one in entries
    )
    return Examined(operations["selected"], operations["tested"], told["test_cases"]["generated"], failures, answers)


def _configuration(folder: Path, parameters: Mapping[str, str]) -> Path:
    path = folder / "schemathesis.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in parameters.items()]
    path.write_text("\n".join(["[parameters]", *lines, ""]), encoding="utf-8")
    return path
