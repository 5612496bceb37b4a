"""The archive that torch writes since version 1.6 (.pt, .bin): a ZIP whose members are stored as they are.

Called by `read` in the inspector. Our own parser, which knows the one shape of archive that torch makes and accounts
for every byte of the file: what it would read differently from another program, it refuses. No torch.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.embedding import pickles
from engine.embedding.standins import ITEM_BYTES, KNOWN, STORAGES, describe_storage, explain_unknown
from engine.embedding.stored import Storage
from engine.errors import VocableError

SIGNATURE = b"PK\3\4"

MAX_NAME = 255

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_ENCRYPTED, _DESCRIBED, _UTF8 = 1, 8, 1 << 11
_LARGEST_ENTRY = _CENTRAL.size + 4 * MAX_NAME
_FLAGS = _DESCRIBED | _UTF8
_FOLDER = 16
_LONGEST_TRAILER = 32
_DESCRIPTORS = ("<4s3L", "<4sL2Q", "<3L", "<L2Q")
_KEY = re.compile(r"[0-9]{1,32}")


class Data(Protocol):
    """The bytes of a file, in memory or not."""

    def __len__(self) -> int: ...
    def __getitem__(self, span: slice, /) -> bytes | memoryview: ...


@dataclass(frozen=True)
class _Member:
    name: str
    flags: int
    crc: int
    size: int
    header: int
    """Where its local header lies."""


@dataclass(frozen=True)
class _Content:
    """The place of a member's bytes."""

    data: Data
    start: int
    size: int
    crc: int

    def read(self) -> bytes | memoryview:
        content = self.data[self.start : self.start + self.size]
        if zlib.crc32(content) != self.crc:
            raise _broken("a checksum is wrong")
        return content


def decode_archive(
    data: Data,
    *,
    known: Mapping[str, pickles.Global] = KNOWN,
    explain: Callable[[str], VocableError] = explain_unknown,
    limits: pickles.Limits = pickles.EMBEDDING,
) -> Any:
    """Read the object of a torch archive, as `pickles.interpret` gives it.

    Args:
        known, explain: see `pickles.interpret`.

    Raises:
        VocableError: `embedding.unreadable`; `embedding.unsupported` for an archive that is no embedding.
    """
    contents = _contents(memoryview(data) if isinstance(data, bytes) else data, limits)
    folder, names = _name_parts(contents)
    if "data.pkl" not in names:
        raise _foreign(names)
    if {"constants.pkl", "code"} & {name.partition("/")[0] for name in names}:
        title = "The file is a TorchScript archive: a program, not an embedding."
        raise VocableError("embedding.unsupported", title, "Choose a file that holds a textual-inversion embedding.")
    if contents[f"{folder}/data.pkl"].size > limits.pickle_bytes:
        raise _broken(f"its data.pkl is larger than {limits.pickle_bytes >> 20} MiB")
    if "byteorder" in names and contents[f"{folder}/byteorder"].read() != b"little":
        raise _broken("its numbers are in another byte order; save it again on an ordinary computer")

    def load(identifier: Any) -> Storage:
        return _find_storage(contents, folder, identifier)

    program = bytes(contents[f"{folder}/data.pkl"].read())
    value, end = pickles.interpret(
        program, known, explain=explain, load=load, max_bytes=limits.pickle_bytes, max_steps=limits.steps
    )
    if end != len(program):
        raise _broken("something follows the pickle in it")
    return value


def read_identifier(identifier: Any, length: int) -> tuple[str, str, Any]:
    """Take apart a persistent identifier: type of number, key, count.

    Raises:
        VocableError: `embedding.unreadable` when it is not one of a storage.
    """
    if not isinstance(identifier, tuple) or len(identifier) != length or identifier[0] != "storage":
        raise pickles.broken_pickle("it refers to something else than numbers")
    _, kind, key, device, count = identifier[:5]
    dtype = STORAGES.get(kind.name.removeprefix("torch."), "") if isinstance(kind, pickles.Global) else ""
    if not dtype or type(device) is not str or type(key) is not str or not _KEY.fullmatch(key):
        raise pickles.broken_pickle("it refers to numbers of an unknown kind")
    return dtype, key, count


def _find_storage(contents: Mapping[str, _Content], folder: str, identifier: Any) -> Storage:
    dtype, key, count = read_identifier(identifier, 5)
    name = f"{folder}/data/{key}"
    if name not in contents:
        raise _broken(f"its numbers {key!a} are missing")
    storage = describe_storage(dtype, count, contents[name].read)
    if contents[name].size != count * ITEM_BYTES[dtype]:
        raise _broken(f"it should hold {count} numbers of type {dtype} but holds {contents[name].size} bytes")
    return storage


def _contents(data: Data, limits: pickles.Limits) -> dict[str, _Content]:
    """The members with their places, which together with the headers must be the whole file."""
    directory, end, count = _find_directory(data, limits.members)
    members = sorted(_read_directory(bytes(data[directory:end]), count), key=lambda member: member.header)
    contents: dict[str, _Content] = {}
    position = 0
    for index, member in enumerate(members):
        following = members[index + 1].header if index + 1 < len(members) else directory
        if member.header != position:
            raise _broken("something lies before or between its members")
        if member.name in contents:
            raise _broken(f"it holds {member.name!a} twice")
        contents[member.name] = _find_content(data, member, following)
        if limits.verify_all:
            contents[member.name].read()
        position = following
    return contents


def _find_directory(data: Data, max_members: int) -> tuple[int, int, int]:
    """Where the central directory begins and ends, and how many members it lists."""
    place = len(data) - _END.size
    if place < 0 or data[place : place + 4] != b"PK\5\6":
        raise _broken("it is cut short, or something is appended to it")
    _, disk, first, here, count, size, start, comment = _END.unpack(data[place : place + _END.size])
    end = place
    if data[place - _LOCATOR.size : place - _LOCATOR.size + 4] == b"PK\6\7":
        place -= _LOCATOR.size
        _, disk64, end, disks = _LOCATOR.unpack(data[place : place + _LOCATOR.size])
        if end + _END64.size != place or data[end : end + 4] != b"PK\6\6" or disk64 or disks != 1:
            raise _broken("its long directory is malformed")
        _, length, _, _, disk64, first64, here64, count64, size64, start64 = _END64.unpack(
            data[end : end + _END64.size]
        )
        counts, places = ((here, here64), (count, count64)), ((size, size64), (start, start64))
        agree = all(short in (long, 0xFFFF) for short, long in counts)
        agree = agree and all(short in (long, 0xFFFFFFFF) for short, long in places)
        if length != _END64.size - 12 or disk64 or first64 or not agree:
            raise _broken("its two directories contradict each other")
        here, count, size, start = here64, count64, size64, start64
    if disk or first or comment or here != count or start + size != end:
        raise _broken("its directory is malformed")
    if end - start > max_members * _LARGEST_ENTRY:
        raise _broken("its directory is malformed")
    if not 1 <= count <= max_members:
        raise _broken(f"it holds {count} members where an embedding has a handful; it may be a whole model")
    return start, end, count


def _read_directory(data: bytes, count: int) -> list[_Member]:
    members = []
    start, end = 0, len(data)
    for _ in range(count):
        if start + _CENTRAL.size > end or data[start : start + 4] != b"PK\1\2":
            raise _broken("its directory is malformed")
        fields = _CENTRAL.unpack_from(data, start)
        flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
        name_size, extra_size, comment, disk, _, attributes, header = fields[10:17]
        name = data[start + _CENTRAL.size : start + _CENTRAL.size + name_size]
        if flags & _ENCRYPTED:
            raise _broken("a member is encrypted")
        if method != 0 or packed != size:
            raise _broken("a member is compressed, which no embedding's are")
        if flags & ~_FLAGS or comment or disk or attributes & _FOLDER or 0xFFFFFFFF in (size, header):
            raise _broken("a member has properties that no embedding's have")
        members.append(_Member(_read_name(name), flags, crc, size, header))
        start += _CENTRAL.size + name_size + extra_size
    if start != end:
        raise _broken("its directory is malformed")
    return members


def _read_name(raw: bytes) -> str:
    name = raw.decode("utf-8", "replace")
    wrong = "\ufffd" in name or "\\" in name or "\0" in name or ".." in name.split("/") or name.startswith("/")
    if not name or len(raw) > MAX_NAME or wrong or name.endswith("/"):
        raise _broken(f"a member is called {ascii(name)[:80]}")
    return name


def _find_content(data: Data, member: _Member, end: int) -> _Content:
    """Where a member's bytes are; its local header must say the same as the directory, and it must end at `end`."""
    if member.header + _LOCAL.size > end or data[member.header : member.header + 4] != SIGNATURE:
        raise _broken("a member is not where its directory says")
    _, _, flags, method, _, _, crc, packed, size, name_size, extra_size = _LOCAL.unpack(
        data[member.header : member.header + _LOCAL.size]
    )
    start = member.header + _LOCAL.size + name_size + extra_size
    name = data[member.header + _LOCAL.size : member.header + _LOCAL.size + name_size]
    told = (crc, packed, size)
    true = (member.crc, member.size, member.size)
    same = told == true or (flags & _DESCRIBED and told == (0, 0, 0))
    if (flags, method, name) != (member.flags, 0, member.name.encode()) or not same:
        raise _broken("a member's own header contradicts its directory")
    rest = bytes(data[start + member.size : min(end, start + member.size + _LONGEST_TRAILER)])
    trailers = {b""}
    if flags & _DESCRIBED:
        trailers = {struct.pack(shape, *((b"PK\7\x08", *true) if "s" in shape else true)) for shape in _DESCRIPTORS}
    if start + member.size + len(rest) != end or rest not in trailers:
        raise _broken("a member's length contradicts its directory")
    return _Content(data, start, member.size, member.crc)


def _name_parts(contents: Mapping[str, object]) -> tuple[str, set[str]]:
    """The folder that all members lie in, and their names below it."""
    folders = {name.partition("/")[0] for name in contents}
    names = {name.partition("/")[2] for name in contents}
    if len(folders) > 1 or "" in names:
        raise _foreign(set(contents))
    return folders.pop(), names


def _foreign(names: set[str]) -> VocableError:
    what = "a ZIP archive that torch did not make"
    if any(name.endswith(".npy") for name in names):
        what = "a NumPy archive (.npz)"
    elif any("archive_format" in name for name in names):
        what = "a program exported by torch (.pt2)"
    title = f"The file is {what}, not an embedding."
    return VocableError("embedding.unsupported", title, "Unpack it, or choose a file that holds an embedding.")


def _broken(problem: str) -> VocableError:
    hint = "Copy or download the file again; if it stays so, it was damaged or changed after torch wrote it."
    return VocableError("embedding.unreadable", f"The file cannot be read as a torch archive: {problem}.", hint)
