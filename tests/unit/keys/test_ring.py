import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.jose.signing import load_pem
from keyturn.keys import ring as ring_module
from keyturn.keys.plan import withdraw
from keyturn.keys.ring import INDEX, KeyRing, RingDamaged, load_directory
from keyturn.keys.state import KeyPhase, RingKey, SigningKeyState
from tests.sample_keys import sample_key
from tests.unit.keys.rings import NOW, sample_ring

MEMBER = re.compile(r"[-._a-zA-Z0-9]+")


def with_kid(kid: str) -> KeyRing:
    ring = sample_ring()
    old = ring.keys[0]
    key = load_pem(ring.private[old.kid].to_pem(), kid=kid, algorithm=old.algorithm)
    keys = (replace(old, kid=kid, jwk=key.public.jwk), *ring.keys[1:])
    return replace(ring, keys=keys, private={kid: key, ring.keys[1].kid: ring.private[ring.keys[1].kid]})


def assert_equal(ring: KeyRing | None, expected: KeyRing) -> None:
    assert ring is not None
    assert (ring.keys, ring.handled_rotation) == (expected.keys, expected.handled_rotation)
    assert {kid: key.to_pem() for kid, key in ring.private.items()} == {
        kid: key.to_pem() for kid, key in expected.private.items()
    }


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_ring_survives_its_secret(algorithm: str) -> None:
    ring = replace(sample_ring(algorithm), handled_rotation="2026-01-01")
    data = ring.to_secret_data()
    assert_equal(KeyRing.from_secret_data(data), ring)
    assert KeyRing.from_secret_data(data).to_secret_data() == data


def test_a_retired_key_may_have_lost_its_private_half() -> None:
    ring = sample_ring()
    retired = replace(sample_ring(first=2).keys[0], phase=KeyPhase.RETIRED, retired_at=NOW, remove_at=NOW + 60)
    ring = replace(ring, keys=(*ring.keys, retired))
    assert_equal(KeyRing.from_secret_data(ring.to_secret_data()), ring)


def test_members_of_others_are_ignored() -> None:
    ring = sample_ring()
    assert_equal(KeyRing.from_secret_data({**ring.to_secret_data(), "tls.key": b"x", "note": b""}), ring)


def test_the_private_half_of_a_compromised_key_is_not_loaded_even_when_it_is_still_there() -> None:
    ring = sample_ring()
    data = ring.to_secret_data()
    index = json.loads(data[INDEX])
    index["keys"][1]["phase"] = "Compromised"
    read = KeyRing.from_secret_data({**data, INDEX: json.dumps(index).encode()})
    assert set(read.private) == {ring.keys[0].kid}


def test_the_state_for_the_store_has_the_same_keys() -> None:
    ring = sample_ring()
    assert ring.state(revoke_before=NOW) == SigningKeyState(ring.keys, NOW)


def test_the_signing_key_is_the_active_one() -> None:
    ring = sample_ring()
    assert ring.signing_key() is sample_key("ES256", 0)
    assert withdraw(ring, {ring.keys[0].kid}).signing_key() is None


@pytest.mark.parametrize(
    "kid",
    [
        "plain",
        "with space",
        "a/b",
        "../../etc/passwd",
        "..data",
        ".",
        "sha256-x",
        "k" * 256,
        "keyring.json",
        'q"\\',
        "a:b",
    ],
)
def test_every_kid_makes_a_member_name_that_kubernetes_takes(kid: str) -> None:
    ring = with_kid(kid)
    data = ring.to_secret_data()
    assert len(data) == 3
    for name in data:
        assert MEMBER.fullmatch(name)
        assert len(name) <= 253
        assert not name.startswith("..")
    assert_equal(KeyRing.from_secret_data(data), ring)


def test_different_kids_never_share_a_member() -> None:
    kids = ["a b", "a/b", "a_b", "a.b"]
    shared = {INDEX, f"{sample_ring().keys[1].kid}.pem"}
    names = [name for kid in kids for name in with_kid(kid).to_secret_data() if name not in shared]
    # And one that is called as the member of another.
    names += [name for name in with_kid(names[0].removesuffix(".pem")).to_secret_data() if name not in shared]
    assert len(names) == len(set(names)) == 5


Index = dict[str, Any]


def first(member: str, value: object) -> Callable[[Index], None]:
    return lambda index: index["keys"][0].__setitem__(member, value)


def swap_files(index: Index) -> None:
    index["keys"][0]["file"], index["keys"][1]["file"] = index["keys"][1]["file"], index["keys"][0]["file"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda index: index.pop("version"), "version", id="no version"),
        pytest.param(lambda index: index.__setitem__("version", 2), "version", id="a newer version"),
        pytest.param(lambda index: index.pop("keys"), "keys is not a list", id="no keys"),
        pytest.param(
            lambda index: index.__setitem__("handledRotation", 1), "handledRotation", id="a number for a text"
        ),
        pytest.param(first("phase", "Next"), "more than one Next", id="two Next keys"),
        pytest.param(lambda index: index["keys"][1].__setitem__("phase", "Active"), "one Active", id="two Active keys"),
        pytest.param(lambda index: index["keys"][0].pop("file"), "Active key has no file", id="no file for Active"),
        pytest.param(first("file", "absent.pem"), "absent.pem is missing", id="a file that is not there"),
        pytest.param(first("file", "../keyring.json"), "no Secret member's name", id="a file outside"),
        pytest.param(first("file", "..pem"), "no Secret member's name", id="a file named like the kubelet's"),
        pytest.param(first("file", "/etc/hostname"), "no Secret member's name", id="a file elsewhere"),
        pytest.param(first("file", 7), "no Secret member's name", id="a number for a file"),
        pytest.param(first("file", INDEX), "keyring.json: holds no private key", id="a file that is no key"),
        pytest.param(swap_files, "not the private half", id="the files swapped"),
    ],
)
def test_a_damaged_index_is_named(damage: Callable[[Index], None], words: str) -> None:
    data = sample_ring().to_secret_data()
    index = json.loads(data[INDEX])
    damage(index)
    with pytest.raises(RingDamaged, match=words):
        KeyRing.from_secret_data({**data, INDEX: json.dumps(index).encode()})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "not valid JSON", id="empty"),
        pytest.param(b"[]", "not a JSON object", id="a list"),
        pytest.param(b'{"version":1,"version":1,"keys":[]}', "twice", id="a member twice"),
    ],
)
def test_an_index_that_is_no_json_object_is_damaged(content: bytes, words: str) -> None:
    with pytest.raises(RingDamaged, match=words):
        KeyRing.from_secret_data({INDEX: content})


def test_a_secret_without_an_index_is_damaged() -> None:
    with pytest.raises(RingDamaged, match=r"keyring\.json is missing"):
        KeyRing.from_secret_data({})


def test_too_many_keys_are_refused() -> None:
    data = sample_ring().to_secret_data()
    index = json.loads(data[INDEX])
    for number in range(130):
        kid = f"k{number}"
        entry = {**index["keys"][0], "kid": kid, "phase": "Compromised"}
        entry["jwk"] = {**entry["jwk"], "kid": kid}
        index["keys"].append(entry)
    with pytest.raises(RingDamaged, match="more than 128"):
        KeyRing.from_secret_data({**data, INDEX: json.dumps(index).encode()})


def test_damage_and_reprs_show_no_material() -> None:
    ring = sample_ring()
    data = ring.to_secret_data()
    name = next(name for name in data if name != INDEX)
    broken = data[name].replace(b"\n", b"\nAAAA", 1)
    with pytest.raises(RingDamaged, match=name) as caught:
        KeyRing.from_secret_data({**data, name: broken})
    shown = f"{caught.value!r}{caught.value.description}{ring!r}"
    for line in data[name].decode().splitlines()[1:-1]:
        assert line not in shown
    assert "PRIVATE" not in shown


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["version", "keys", "handledRotation"]),
        st.none()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5))),
    ).map(lambda index: json.dumps(index).encode())
    | st.binary(max_size=40)
)
def test_whatever_the_index_holds_it_is_a_ring_or_damaged(content: bytes) -> None:
    try:
        ring = KeyRing.from_secret_data({INDEX: content})
    except RingDamaged:
        return
    assert ring.keys == ()


# Mounted folders


class Mount:
    """A folder that changes as the kubelet changes it: a new folder for each version, then one rename of the symlink `..data`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = 0
        path.mkdir()

    def write(self, data: dict[str, bytes]) -> None:
        """Swaps the members in, and removes the version before."""
        link = self.path / "..data"
        old = link.readlink() if link.is_symlink() else None
        self.version += 1
        folder = self.path / f"..version_{self.version}"
        folder.mkdir()
        for name, content in data.items():
            (folder / name).write_bytes(content)
        (self.path / "..data_tmp").symlink_to(folder.name)
        (self.path / "..data_tmp").rename(link)
        for name in data:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        if old is not None:
            shutil.rmtree(self.path / old)


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path / "keys")


def test_a_mounted_secret_is_read(mount: Mount) -> None:
    mount.write(sample_ring().to_secret_data())
    assert_equal(load_directory(mount.path), sample_ring())


def test_a_plain_folder_is_read(tmp_path: Path) -> None:
    for name, content in sample_ring().to_secret_data().items():
        (tmp_path / name).write_bytes(content)
    assert_equal(load_directory(tmp_path), sample_ring())


def test_no_folder_and_no_index_mean_no_ring(mount: Mount, tmp_path: Path) -> None:
    assert load_directory(tmp_path / "absent") is None
    assert load_directory(mount.path) is None
    mount.write({})  # as the kubelet mounts an optional Secret that is not there
    assert load_directory(mount.path) is None
    (tmp_path / "file").write_text("")
    assert load_directory(tmp_path / "file") is None


@pytest.mark.parametrize("mounted", [True, False])
def test_a_folder_that_lacks_a_key_is_damaged(tmp_path: Path, mounted: bool) -> None:
    data = sample_ring().to_secret_data()
    name = next(name for name in data if name != INDEX)
    del data[name]
    mount = Mount(tmp_path / "keys")
    if mounted:
        mount.write(data)
    else:
        for member, content in data.items():
            (mount.path / member).write_bytes(content)
    with pytest.raises(RingDamaged, match=f"{name} is missing"):
        load_directory(mount.path)


def test_a_member_that_is_too_long_or_a_folder_is_damaged(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(b" " * 300_000)
    with pytest.raises(RingDamaged, match=r"keyring\.json is longer"):
        load_directory(tmp_path)
    (tmp_path / INDEX).unlink()
    (tmp_path / INDEX).mkdir()
    with pytest.raises(RingDamaged, match=r"keyring\.json cannot be read"):
        load_directory(tmp_path)


def test_a_folder_that_is_out_of_reach_is_not_taken_for_absent(tmp_path: Path) -> None:
    with pytest.raises(RingDamaged, match=r"keyring\.json cannot be read"):
        load_directory(tmp_path / ("x" * 300))


def test_a_link_that_leads_nowhere_for_good_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "..data").symlink_to("..gone")
    with pytest.raises(RingDamaged, match="changes while it is read"):
        load_directory(tmp_path)


@pytest.mark.parametrize("member", [0, 1, 2], ids=["before the index", "after the index", "after the first key"])
def test_a_swap_in_the_middle_of_reading_gives_the_new_set(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, member: int
) -> None:
    old, new = sample_ring(), sample_ring(first=2)
    mount.write(old.to_secret_data())
    read = ring_module._read_member
    reads: list[str] = []

    def swap_then_read(folder: Path, name: str) -> bytes | None:
        if len(reads) == member:
            mount.write(new.to_secret_data())
        reads.append(name)
        return read(folder, name)

    monkeypatch.setattr(ring_module, "_read_member", swap_then_read)
    assert_equal(load_directory(mount.path), new)


def test_readers_see_one_of_the_sets_while_a_writer_swaps_without_pause(mount: Mount) -> None:
    rings = [sample_ring(), sample_ring(first=2)]
    sets = [ring.to_secret_data() for ring in rings]
    mount.write(sets[0])
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for data in (sets[1], sets[0]):
                mount.write(data)
                done.wait(0.003)

    writer = threading.Thread(target=swap)
    writer.start()
    seen: set[tuple[RingKey, ...]] = set()
    try:
        for _ in range(60):
            loaded = load_directory(mount.path)
            assert loaded is not None
            assert set(loaded.private) == {key.kid for key in loaded.keys}
            seen.add(loaded.keys)
            os.sched_yield()
    finally:
        done.set()
        writer.join()
    assert seen <= {ring.keys for ring in rings}
    assert mount.version > 2
