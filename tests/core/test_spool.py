"""Messages kept in files: what comes back is what was put there, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brainunet.errors import BrainUNetError
from brainunet.records import TrainReply
from brainunet.spool import read_packed, write_packed
from brainunet.wire import MAX_HEADER_BYTES, Packed, pack, unpack
from tests.support.messages import MESSAGES, train_reply
from tests.support.rights import largest_file

VALUES = np.array([1.5, -0.0, np.float32(1e-40), 3.0], np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "CRV.reply"


def kept(path: Path) -> Packed:
    packed = read_packed(path)
    assert packed is not None
    return packed


def same(one: Packed, other: Packed) -> bool:
    if one.values is None or other.values is None:
        return one.header == other.header and one.values is other.values
    return one.header == other.header and one.values.tobytes() == other.values.tobytes()


def parts(path: Path) -> tuple[bytes, bytes, bytes, bytes]:
    """Magic line, length of the header, header, values."""
    content = path.read_bytes()
    start = content.index(b"\n") + 1
    end = start + 8 + int.from_bytes(content[start : start + 8], "little")
    return content[:start], content[start : start + 8], content[start + 8 : end], content[end:]


def with_header(path: Path, told: object) -> None:
    magic, _, _, values = parts(path)
    header = json.dumps(told).encode()
    path.write_bytes(magic + len(header).to_bytes(8, "little") + header + values)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_comes_back_as_it_was(path: Path, kind: str, durable: bool) -> None:
    message = MESSAGES[kind]()

    write_packed(path, pack(message), durable=durable)

    back = kept(path)
    assert same(back, pack(message))
    assert unpack(back, type(message)).model_dump(mode="json") == message.model_dump(mode="json")


@pytest.mark.parametrize("durable", [True, False])
def test_a_header_alone_comes_back_without_values(path: Path, durable: bool) -> None:
    write_packed(path, Packed('{"Ünïcode": "\\n"}'), durable=durable)

    assert same(kept(path), Packed('{"Ünïcode": "\\n"}'))


def test_no_values_at_all_are_not_the_same_as_values_of_which_there_are_none(path: Path) -> None:
    write_packed(path, Packed("{}", np.zeros(0, np.float32)))

    values = kept(path).values
    assert values is not None
    assert values.shape == (0,)
    assert values.dtype == np.float32


@pytest.mark.parametrize("values", [VALUES.astype(">f4"), VALUES.repeat(2)[::2], VALUES.astype(np.float64)])
def test_values_come_back_the_same_however_they_lie_in_memory(path: Path, values: np.ndarray) -> None:
    write_packed(path, Packed("{}", values))

    back = kept(path).values
    assert back is not None
    assert back.tobytes() == values.astype(np.float32).tobytes()


def test_values_are_mapped_from_the_file_and_not_read_into_memory(path: Path) -> None:
    write_packed(path, pack(train_reply()))

    values = kept(path).values
    assert isinstance(values, np.memmap)
    reply: TrainReply = unpack(kept(path), TrainReply)
    assert all(np.shares_memory(array, array.base) for array in reply.delta.arrays)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1


def test_a_mapped_message_outlives_its_file(path: Path) -> None:
    write_packed(path, Packed("{}", VALUES))
    packed = kept(path)

    path.unlink()

    assert packed.values is not None
    assert packed.values.tobytes() == VALUES.tobytes()
    assert read_packed(path) is None


def test_what_is_written_again_takes_the_place_of_the_earlier_one(path: Path) -> None:
    write_packed(path, Packed("first", VALUES))
    write_packed(path, Packed("second"))

    assert same(kept(path), Packed("second"))
    assert [left.name for left in path.parent.iterdir()] == [path.name]


def test_where_nothing_was_kept_there_is_nothing(path: Path) -> None:
    assert read_packed(path) is None
    path.mkdir(parents=True)
    assert read_packed(path) is None


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("packed", [Packed("{}"), Packed("{}", VALUES)], ids=["header", "values"])
def test_a_message_that_was_cut_short_anywhere_counts_as_none(path: Path, packed: Packed, durable: bool) -> None:
    write_packed(path, packed, durable=durable)
    content = path.read_bytes()

    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert read_packed(path) is None, length


@pytest.mark.parametrize("durable", [True, False])
def test_a_message_with_something_behind_its_values_counts_as_none(path: Path, durable: bool) -> None:
    write_packed(path, Packed("{}", VALUES), durable=durable)
    content = path.read_bytes()

    for more in (b"\0", b"\0\0\0\0", content):
        path.write_bytes(content + more)
        assert read_packed(path) is None


@pytest.mark.parametrize("bits", [0xFF, 0x01])
@pytest.mark.parametrize("packed", [pack(train_reply()), Packed('{"round": 3}')], ids=["values", "header"])
def test_a_durable_message_with_any_byte_changed_is_never_taken_for_another_one(path: Path, packed: Packed, bits: int) -> None:
    write_packed(path, packed)
    content = path.read_bytes()

    taken = []
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :])
        back = read_packed(path)
        if back is not None and not same(back, packed):
            taken.append((at, back.header))
    assert not taken


def test_a_message_that_need_not_be_durable_has_no_digest_to_take_time(path: Path) -> None:
    write_packed(path, Packed("{}", VALUES), durable=False)

    assert json.loads(parts(path)[2])["sha256"] is None


@pytest.mark.parametrize("length", [2 * MAX_HEADER_BYTES + 1, 2**40, 2**64 - 1])
def test_a_header_that_claims_to_be_huge_is_not_read(path: Path, length: int) -> None:
    write_packed(path, Packed("{}", VALUES))
    magic, _, header, values = parts(path)

    path.write_bytes(magic + length.to_bytes(8, "little") + header + values)

    assert read_packed(path) is None


@pytest.mark.parametrize("size", [-1, -4, 0, 3, 5, 2**31, 2**62, 10**30, 4.0, True, "4", [4], [2, 2], {}])
def test_another_number_of_values_than_there_are_counts_as_damage(path: Path, size: object) -> None:
    write_packed(path, Packed("{}", VALUES), durable=False)

    with_header(path, {"header": "{}", "values": size, "sha256": None})

    assert read_packed(path) is None


@pytest.mark.parametrize(
    "told",
    [None, 3, [], "", {}, {"header": "{}"}, {"header": "{}", "values": 4}, [["header", "{}"]], {"values": 4, "sha256": None}],
)
def test_a_header_of_another_kind_counts_as_damage(path: Path, told: object) -> None:
    write_packed(path, Packed("{}", VALUES))

    with_header(path, told)

    assert read_packed(path) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04", b"brainunet-spool-2\n" + b"\0" * 64, b"[" * 100_000])
def test_a_file_of_another_kind_counts_as_none(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    assert read_packed(path) is None


def test_a_header_nested_without_end_counts_as_damage(path: Path) -> None:
    write_packed(path, Packed("{}"))
    header = b"[" * 100_000

    path.write_bytes(parts(path)[0] + len(header).to_bytes(8, "little") + header)

    assert read_packed(path) is None


def test_a_full_disk_is_said_and_leaves_the_earlier_message(path: Path) -> None:
    write_packed(path, Packed("{}", VALUES))

    with pytest.raises(BrainUNetError, match=r"CRV\.reply: it can't be written"), largest_file(1):
        write_packed(path, Packed("{}", np.zeros(1000, np.float32)))

    assert same(kept(path), Packed("{}", VALUES))
    assert [left.name for left in path.parent.iterdir()] == [path.name]
