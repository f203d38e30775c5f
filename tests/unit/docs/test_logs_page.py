"""The page of logs names every audit record that the programs can write."""

import re

import pytest

from tests.documents import PROJECT
from tests.logs_page import audit_events, fields

_RECORDS = {
    "API": (PROJECT / "api", re.compile(r'audit\.record\(\s*"(\w+)"')),
    "operator": (PROJECT / "operator", re.compile(r'audit\.changed\(\s*"(\w+)"')),
}


@pytest.mark.parametrize("program", _RECORDS)
def test_the_page_has_the_audit_records_of(program: str) -> None:
    root, call = _RECORDS[program]
    calls = [name for path in root.rglob("*.py") for name in call.findall(path.read_text(encoding="utf-8"))]
    assert set(calls) == {event for event, (by, _) in audit_events().items() if by == program}
    # Each of them goes by this way: none is written past it.
    writers = [path.name for path in root.rglob("*.py") if '"keyturn.audit"' in path.read_text(encoding="utf-8")]
    assert sorted(writers) == ["audit.py", "logs.py"]


def test_the_tables_can_be_read() -> None:
    assert {"reason", "rule", "request_id"} <= fields("denied")
    assert {"timestamp", "event", "who"} <= fields("every audit record")
    assert all(more for _, more in audit_events().values())
