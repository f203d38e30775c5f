"""Uses are recorded coarsely, and once after each change of the client, so that nobody calls a key unused that is not."""

import dataclasses

from keyturn.clients.state import ClientState
from keyturn.records import Activity
from keyturn.store.memory import MemoryStore
from keyturn_api.activity import ActivityRecorder
from tests.unit.tokens.worlds import CLIENT_ID, NOW, client_state


async def recorded(recorder: ActivityRecorder, store: MemoryStore) -> dict[str, float]:
    await recorder.flush()
    return {one.kid: one.used_at for one in await store.activity(CLIENT_ID)}


async def test_a_key_is_recorded_once_an_hour_while_the_client_stays_as_it_is() -> None:
    store = MemoryStore()
    await store.open()
    recorder = ActivityRecorder(store)
    state = client_state()
    for after in (0.0, 1.0, 3599.0):
        recorder.used(state, "k", NOW + after)
    assert await recorded(recorder, store) == {"k": NOW}
    recorder.used(state, "k", NOW + 3600)
    recorder.used(state, "other", NOW + 3601)
    assert await recorded(recorder, store) == {"k": NOW + 3600, "other": NOW + 3601}


async def test_the_first_use_after_a_change_of_the_client_is_recorded() -> None:
    store = MemoryStore()
    await store.open()
    recorder = ActivityRecorder(store)
    before: ClientState = client_state()
    after = dataclasses.replace(before)
    recorder.used(before, "k", NOW)
    recorder.used(after, "k", NOW + 10)
    recorder.used(after, "k", NOW + 20)
    assert await recorded(recorder, store) == {"k": NOW + 10}


async def test_the_time_of_a_use_never_moves_back() -> None:
    store = MemoryStore()
    await store.open()
    await store.record_activity([Activity(CLIENT_ID, "k", NOW)])
    recorder = ActivityRecorder(store)
    recorder.used(client_state(), "k", NOW - 10)
    assert await recorded(recorder, store) == {"k": NOW}
