"""What the operator's process decides by itself."""

import pytest

from keyturn.records import Kind
from keyturn_operator.main import priority_of
from keyturn_operator.queue import Priority
from tests.unit.operator.fakes import key


@pytest.mark.parametrize(
    ("kind", "listed", "priority"),
    [
        pytest.param(Kind.SIGNING_KEY, False, Priority.RESTRICTION, id="a signing key's change waits for no backlog"),
        pytest.param(Kind.CLIENT, False, Priority.CHANGE, id="a client's change in its turn"),
        pytest.param(Kind.ACCESS_RULE, False, Priority.CHANGE, id="a rule's change in its turn"),
        pytest.param(Kind.SIGNING_KEY, True, Priority.RESYNC, id="what a first list brings is the sweep's to sort"),
    ],
)
def test_how_soon_an_object_is_looked_at(kind: Kind, listed: bool, priority: Priority) -> None:
    assert priority_of(key(kind, "a"), listed=listed) is priority
