from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from engine import files
from engine.errors import KeyMissingError, StoreError, TamperedError
from engine.store.keys import KeyRing, _chances


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keys(path: Path) -> KeyRing:
    return KeyRing.create(path)


def test_a_new_key_file_is_readable_for_its_owner_only(path, keys):
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_file_is_never_overwritten(path, keys):
    before = path.read_bytes()
    with pytest.raises(StoreError, match="never overwritten"):
        KeyRing.create(path)
    assert path.read_bytes() == before


def test_a_loaded_key_ring_opens_what_the_created_one_sealed(path, keys):
    assert KeyRing.load(path).open("t.c:1", keys.seal("t.c:1", b"secret")) == b"secret"


def test_key_material_from_elsewhere_works_like_the_file(path, keys):
    assert KeyRing.parse(path.read_text()).open("t.c:1", keys.seal("t.c:1", b"secret")) == b"secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_file_that_others_can_read_is_refused(path, keys, mode):
    path.chmod(mode)
    with pytest.raises(StoreError, match="chmod 600"):
        KeyRing.load(path)


def test_a_systemd_credential_may_show_group_bits_but_not_world_bits(path, keys, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    path.chmod(0o440)
    KeyRing.load(path)
    path.chmod(0o444)
    with pytest.raises(StoreError, match="chmod 600"):
        KeyRing.load(path)


def test_a_missing_key_file_is_named(path):
    with pytest.raises(KeyMissingError, match=r"keys\.json"):
        KeyRing.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.update(format=2),
        lambda content: content.update(active=7),
        lambda content: content["keys"]["1"].update(key="AAAA"),
        lambda content: content["keys"]["1"].update(key="not base64!"),
        lambda content: content.pop("lookup"),
        lambda content: content.update(more=1),
        lambda content: content.update(keys={}),
    ],
)
def test_a_damaged_key_file_is_refused_without_showing_a_key(path, keys, damage):
    content = json.loads(path.read_text())
    secret = content["keys"]["1"]["key"]
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError) as caught:
        KeyRing.load(path)
    assert secret not in str(caught.value)
    assert "keys.json" in str(caught.value)


def test_a_value_opens_only_in_the_place_it_was_sealed_for(keys):
    sealed = keys.seal("payload.body:1", b"secret")
    with pytest.raises(TamperedError) as caught:
        keys.open("payload.body:2", sealed)
    assert caught.value.place == "payload.body:2"


@given(data=st.data())
def test_every_altered_byte_is_noticed(tmp_path_factory, data):
    keys = _shared(tmp_path_factory)
    sealed = bytearray(keys.seal("t.c:1", b"a value"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreError):
        keys.open("t.c:1", bytes(sealed))


@given(plaintext=st.binary(max_size=200), place=st.text(max_size=30), cut=st.integers(0, 60))
def test_what_was_sealed_opens_again_and_a_shortened_one_does_not(tmp_path_factory, plaintext, place, cut):
    keys = _shared(tmp_path_factory)
    sealed = keys.seal(place, plaintext)
    assert keys.open(place, sealed) == plaintext
    if cut < len(sealed):
        with pytest.raises(TamperedError):
            keys.open(place, sealed[:cut])


def test_no_nonce_is_used_twice_also_by_several_threads(keys):
    sealed: list[bytes] = []

    def seal() -> None:
        sealed.extend([keys.seal("t.c:1", b"") for _ in range(5000)])

    threads = [threading.Thread(target=seal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({value[3:15] for value in sealed}) == 20_000


def _restored(keys: KeyRing, work: list[tuple[str, bytes]]) -> list[bytes]:
    """What the same process seals when it is set back to one point of its memory before each."""
    keys.seal("t.c:1", b"")
    stock = list(_chances)
    sealed = []
    for place, plaintext in work:
        _chances[:] = stock
        sealed.append(keys.seal(place, plaintext))
    return sealed


VALUES = [
    ("t.c:1", b""),
    ("t.c:1", b"a"),
    ("t.c:1", b"b"),
    ("t.c:2", b"a"),
    ("t.c:11", b""),
    ("t.c:1", b"1"),
    ("", b"t.c:1"),
]


def test_a_machine_that_is_set_back_to_a_snapshot_repeats_no_nonce_for_another_value(keys):
    sealed = _restored(keys, VALUES)
    assert len({value[3:15] for value in sealed}) == len(VALUES)
    assert [keys.open(place, one) for (place, _), one in zip(VALUES, sealed, strict=True)] == [b for _, b in VALUES]


def test_all_that_a_snapshot_gives_away_is_that_a_value_is_the_same(keys):
    first, second = _restored(keys, [("t.c:1", b"a"), ("t.c:1", b"a")])
    assert first == second
    assert len({keys.seal("t.c:1", b"a") for _ in range(2000)}) == 2000  # and never where time just goes on


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), min_size=2, max_size=20, unique=True))
def test_no_two_values_ever_share_a_nonce_whatever_a_place_is_called(tmp_path_factory, work):
    sealed = _restored(_shared(tmp_path_factory), work)
    assert len({value[3:15] for value in sealed}) == len(work)


def test_a_rotated_key_has_nonces_of_its_own(keys):
    (before,) = _restored(keys, [("t.c:1", b"a")])
    keys.rotate()
    assert keys.seal("t.c:1", b"a")[3:15] != before[3:15]


def test_values_of_the_first_format_still_open(path, keys):
    key = AESGCM(base64.b64decode(json.loads(path.read_text())["keys"]["1"]["key"]))
    nonce = bytes(range(12))
    old = b"\x01\x00\x01" + nonce + key.encrypt(nonce, b"old", b"t.c:1")
    assert keys.open("t.c:1", old) == b"old"
    for sealed in (b"\x02" + old[1:], b"\x03" + old[1:], b"\x01" + keys.seal("t.c:1", b"new")[1:]):
        with pytest.raises(TamperedError):
            keys.open("t.c:1", sealed)


def test_a_forked_child_never_uses_a_nonce_of_its_parent(keys):
    keys.seal("t.c:1", b"")  # nonces are in stock now
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"".join(keys.seal("t.c:1", b"")[3:15] for _ in range(200)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    ours = {keys.seal("t.c:1", b"")[3:15] for _ in range(2000)}
    assert len(theirs) == 200 * 12
    assert ours.isdisjoint(theirs[at : at + 12] for at in range(0, len(theirs), 12))


def test_after_a_rotation_new_values_use_the_new_key_and_old_ones_still_open(path, keys):
    old = keys.seal("t.c:1", b"old")
    assert keys.rotate() == 2
    new = keys.seal("t.c:1", b"new")
    assert (int.from_bytes(old[1:3]), int.from_bytes(new[1:3])) == (1, 2)
    assert keys.open("t.c:1", old) == b"old"
    assert KeyRing.load(path).open("t.c:1", new) == b"new"
    assert [(key.number, key.active) for key in keys.describe()] == [(1, False), (2, True)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_process_that_loaded_the_keys_before_a_rotation_reads_what_was_sealed_after_it(path, keys):
    other = KeyRing.load(path)
    keys.rotate()
    assert other.open("t.c:1", keys.seal("t.c:1", b"new")) == b"new"


def test_a_process_seals_with_the_new_key_once_it_has_read_the_file_again(path, keys):
    other = KeyRing.load(path)
    keys.rotate()
    assert int.from_bytes(other.seal("t.c:1", b"")[1:3]) == 1
    other.reload()
    assert int.from_bytes(other.seal("t.c:1", b"")[1:3]) == 2


def test_other_keys_in_the_place_of_those_in_use_are_refused_and_change_nothing(path, keys, tmp_path):
    """Sealing with them would make new values unreadable for the right keys, and hashes would find nothing again."""
    before = keys.lookup("identity", "MRN", "", "1")
    foreign = tmp_path / "foreign.json"
    KeyRing.create(foreign).rotate()
    path.write_bytes(foreign.read_bytes())
    with pytest.raises(KeyMissingError, match="other keys"):
        keys.reload()
    with pytest.raises(KeyMissingError, match="key 2"):
        keys.open("t.c:1", KeyRing.load(foreign).seal("t.c:1", b""))
    assert int.from_bytes(keys.seal("t.c:1", b"")[1:3]) == 1
    assert keys.lookup("identity", "MRN", "", "1") == before


def test_a_key_that_was_taken_out_of_the_file_is_missed_by_a_reload(path, keys):
    before = path.read_bytes()
    keys.rotate()
    path.write_bytes(before)
    with pytest.raises(KeyMissingError, match="must keep every old one"):
        keys.reload()


def test_hashes_stay_the_same_after_a_rotation(keys):
    before = keys.lookup("identity", "MRN", "", "1")
    keys.rotate()
    assert keys.lookup("identity", "MRN", "", "1") == before


def test_a_value_sealed_with_a_key_that_is_gone_says_so(path, keys):
    content = path.read_text()
    keys.rotate()
    sealed = keys.seal("t.c:1", b"new")
    path.write_text(content)
    with pytest.raises(KeyMissingError, match="key 2"):
        KeyRing.load(path).open("t.c:1", sealed)


def test_keys_without_a_file_cannot_be_rotated_here(path, keys):
    with pytest.raises(StoreError, match="without a file"):
        KeyRing.parse(path.read_text()).rotate()


def test_a_rotation_through_a_link_writes_the_file_that_it_leads_to(path, keys, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(path)
    KeyRing.load(link).rotate()
    assert link.is_symlink()
    assert len(KeyRing.load(path).numbers) == 2


def test_a_retired_key_is_gone_from_the_file_and_its_number_with_it(path, keys):
    keys.rotate()
    secret = json.loads(path.read_text())["keys"]["1"]["key"]
    keys.retire(1)
    assert secret not in path.read_text()
    assert (keys.numbers, KeyRing.load(path).rotate()) == ((2,), 3)


@pytest.mark.parametrize(("number", "words"), [(2, "rotate"), (7, "no key 7")])
def test_the_key_in_use_is_never_retired_nor_one_that_is_not_there(path, keys, number, words):
    keys.rotate()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=words):
        keys.retire(number)
    assert path.read_bytes() == before


def test_a_file_that_has_a_retired_key_again_is_refused(path, keys):
    content = json.loads(path.read_text())
    content["retired"] = [1]
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError):
        KeyRing.load(path)


@pytest.mark.parametrize(
    ("mode", "words"), [(0o777, "chmod o-w"), (0o702, "chmod o-w"), (0o1777, None), (0o755, None), (0o700, None)]
)
def test_in_a_folder_where_others_may_put_another_file_no_keys_are_read(tmp_path, mode, words):
    folder = tmp_path / "var"
    KeyRing.create(folder / "keys.json")
    folder.chmod(mode)
    _refused(folder / "keys.json", words)


def test_nor_in_one_that_a_group_may_write_unless_it_is_the_owners_own(tmp_path, monkeypatch):
    folder = tmp_path / "var"
    KeyRing.create(folder / "keys.json")
    folder.chmod(0o770)
    for members, private in (([], True), (["ann"], False)):
        group = grp.struct_group(("g", "x", folder.stat().st_gid, members))
        monkeypatch.setattr(files.grp, "getgrgid", lambda _, group=group: group)
        user = pwd.getpwuid(os.geteuid())
        same = pwd.struct_passwd((*user[:3], folder.stat().st_gid, *user[4:]))
        monkeypatch.setattr(files.pwd, "getpwuid", lambda _, same=same: same)
        _refused(folder / "keys.json", None if private else "chmod g-w")


def test_nor_in_one_of_another_user(tmp_path, monkeypatch):
    folder = tmp_path / "var"
    KeyRing.create(folder / "keys.json")
    if os.geteuid() == 0:
        os.chown(folder, 4712, -1)
    monkeypatch.setattr(files.os, "geteuid", lambda: 4711)
    monkeypatch.setattr(files, "foreign_owner", lambda *_: False)
    _refused(folder / "keys.json", "another user")


def test_of_a_link_the_folder_that_it_stands_in_counts_too(tmp_path):
    KeyRing.create(tmp_path / "var" / "keys.json")
    everybody = tmp_path / "everybody"
    everybody.mkdir()
    (everybody / "keys.json").symlink_to(tmp_path / "var" / "keys.json")
    everybody.chmod(0o777)
    _refused(everybody / "keys.json", "chmod o-w")


def _refused(path: Path, words: str | None) -> None:
    if words is None:
        KeyRing.load(path)
    else:
        with pytest.raises(StoreError, match=words):
            KeyRing.load(path)


def test_a_hash_keeps_its_parts_apart_and_depends_on_the_site(keys, tmp_path):
    assert keys.lookup("ab", "c") != keys.lookup("a", "bc")
    assert keys.lookup("ab") != keys.lookup("ab", "")
    assert keys.lookup("é") == keys.lookup("é".encode())
    assert len(keys.lookup("ab")) == 16
    assert keys.lookup("ab") != KeyRing.create(tmp_path / "other.json").lookup("ab")


_texts = st.lists(st.text(alphabet=st.sampled_from("a\0é:1\ud800"), max_size=3), max_size=4).map(tuple)


@given(one=_texts, other=_texts)
def test_ids_are_the_same_exactly_when_the_texts_are(tmp_path_factory, one, other):
    keys = _shared(tmp_path_factory)
    assert (keys.id_of(*one) == keys.id_of(*other)) == (one == other)


def test_an_id_depends_on_the_site_and_is_no_hash_of_a_lookup(keys, tmp_path):
    assert keys.id_of("ab") != KeyRing.create(tmp_path / "other.json").id_of("ab")
    assert keys.id_of("ab") != keys.lookup("ab").hex()
    before = keys.id_of("task", "visit")
    keys.rotate()
    assert keys.id_of("task", "visit") == before


def test_neither_the_ring_nor_its_description_shows_a_key(path, keys):
    secret = json.loads(path.read_text())["keys"]["1"]["key"]
    assert secret not in f"{keys!r} {keys.describe()!r} {vars(keys)!r}"


_rings: list[KeyRing] = []


def _shared(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    if not _rings:
        _rings.append(KeyRing.create(tmp_path_factory.mktemp("keys") / "keys.json"))
    return _rings[0]
