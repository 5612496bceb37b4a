"""Files that somebody could drop into `embeddings/` to do harm, or by mistake: each with what is to be said of it.

Used by test_refused. Made by hand, byte by byte, since no library would write them.
"""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

CANARY = "canary-of-vocable"
"""Name of the file that hostile pickles would make in the working directory if they were run."""

NUMBERS = np.linspace(-1, 1, 8, dtype="<f4").tobytes()


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


class EvilOpen:
    def __reduce__(self) -> Any:
        return open, (CANARY, "w")


class EvilCode:
    def __reduce__(self) -> Any:
        return eval, (f"open({CANARY!r}, 'w')",)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 8, *, legacy: bool = False) -> bytes:
    view = b"N" if legacy else b""
    return (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + view + b"tQ"
    )


def number(value: int) -> bytes:
    return b"\x8a" + bytes([len(raw := value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True))]) + raw


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor(
    shape: tuple[int, ...] = (2, 4), strides: tuple[int, ...] = (4, 1), offset: int = 0, source: bytes | None = None
) -> bytes:
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    place = number(offset) + numbers(shape) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + (source or storage()) + place + hooks + b"tR"


def program(*values: bytes) -> bytes:
    """A pickle of a dictionary: keys and values by turns."""
    return b"\x80\x02}(" + b"".join(values) + b"u."


def word(value: bytes) -> bytes:
    return program(text("<mira>"), value)


def archive(pickled: bytes, members: dict[str, bytes] | None = None, *, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    files = {"a/data.pkl": pickled, "a/data/0": NUMBERS, "a/version": b"3\n", **(members or {})}
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return file.getvalue()


HEAD = (pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2))


def legacy(
    pickled: bytes, *, head: tuple[bytes, ...] = HEAD, keys: tuple[str, ...] = ("0",), tail: bytes = b""
) -> bytes:
    return b"".join(head) + pickled + pickle.dumps(list(keys), 2) + (tail or struct.pack("<q", 8) + NUMBERS)


def in_legacy(pickled: bytes) -> bytes:
    """The same program in the legacy serialisation, with the numbers that it mentions."""
    if b"tQ" not in pickled:
        return b"".join(HEAD) + pickled + pickle.dumps([], 2)
    size = next((size for kind, size in ((b"Long", 8), (b"Complex", 8), (b"Bool", 1)) if kind in pickled), 4)
    return legacy(pickled.replace(b"tQ", b"NtQ"), tail=struct.pack("<q", 32 // size) + NUMBERS)


def duplicated() -> bytes:
    """Two members of one name; the library warns of it."""
    return archive(word(tensor()), {"a/data/1": NUMBERS}).replace(b"a/data/1", b"a/data/0")


def patched(data: bytes, old: bytes, new: bytes, count: int = 1) -> bytes:
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new, count)


def with_flag(flag: int) -> bytes:
    data = bytearray(GOOD_ARCHIVE)
    local, central = data.find(b"PK\3\4"), data.find(b"PK\1\2")
    data[local + 6] |= flag
    data[central + 8] |= flag
    return bytes(data)


def as_folder() -> bytes:
    """torch reads a member with this attribute of MS-DOS as empty."""
    data = bytearray(GOOD_ARCHIVE)
    data[data.find(b"PK\1\2") + 38] |= 16
    return bytes(data)


def behind_another_header() -> bytes:
    """All places are right; what lies in front belongs to no member."""
    file = io.BytesIO(b"PK\3\4" + bytes(60))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "w") as target:
        for name, content in (("a/data.pkl", word(tensor())), ("a/data/0", NUMBERS)):
            target.writestr(name, content)
    return file.getvalue()


def longer_local_size() -> bytes:
    data = bytearray(GOOD_ARCHIVE)
    data[data.find(b"PK\3\4") + 22] += 1
    return bytes(data)


def safetensors(header: Any, body: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def entries(*names: str) -> bytes:
    spans = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n, name in enumerate(names)}
    return safetensors(spans, bytes(4 * len(names)))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def doubled(code: bytes) -> bytes:
    """200 steps, each of which makes value n + 1 of two times value n."""
    return b"".join(code % (bytes([n]), bytes([n]), bytes([n + 1])) for n in range(200))


GOOD_ARCHIVE = archive(word(tensor()))
GOOD_LEGACY = legacy(word(tensor(source=storage(legacy=True))))

FOREIGN_OPCODES = {
    **{"EXT1": b"\x82\x01", "EXT2": b"\x83\x01\0", "EXT4": b"\x84\x01\0\0\0", "DUP": b"N2", "POP_MARK": b"(1"},
    **{"INST": b"(ios\nsystem\n", "OBJ": b"(ccollections\nOrderedDict\no", "NEWOBJ_EX": b"\x92", "PERSID": b"P0\n"},
    **{"FROZENSET": b"(\x91", "BYTEARRAY8": b"\x96" + bytes(8), "NEXT_BUFFER": b"\x97", "READONLY_BUFFER": b"\x98"},
    "STRING": b"S'a'\n",
}

PROGRAMS: dict[str, tuple[bytes, str]] = {
    **{f"os.system, protocol {n}": (pickle.dumps(Evil(), n), r"posix\.system|nt\.system") for n in range(6)},
    "open": (pickle.dumps(EvilOpen(), 2), "open"),
    "eval": (pickle.dumps({"string_to_param": EvilCode()}, 2), "eval"),
    "a name of many parts": (
        word(b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93"),
        "OrderedDict.__init",
    ),
    "a name in escapes": (word(b"ccollections\nOrdered\\x44ict\n)R"), "odd way"),
    "a foreign class of torch": (word(b"ctorch.jit\nload\n)R"), "torch.jit.load"),
    "a name from the terminal": (word(b"c\x1b]52;c\nx\n"), "."),
    **{name: (word(code), f"{name}|malformed") for name, code in FOREIGN_OPCODES.items()},
    "huge memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "numbers a value"),
    "memo far away": (b"\x80\x02Np1000000000\n.", "numbers a value"),
    "unknown memo": (b"\x80\x02h\x05.", "refers to a value 5"),
    "nothing to take": (b"\x80\x020.", "where there is none"),
    "nothing to close": (b"\x80\x02t.", "never opened"),
    "values left over": (b"\x80\x02NN.", "left over"),
    "open marks": (b"\x80\x02(N.", "left over|none"),
    "no end": (b"\x80\x02N", "malformed|left over"),
    "empty": (b"", "malformed"),
    "protocol 9": (b"\x80\x09N.", "protocol 9"),
    "frame too long": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.", "cut short|malformed"),
    "a million steps": (b"\x80\x02" + b"N0" * 400_000 + b"N.", "steps"),
    "marks without end": (b"\x80\x02" + b"(" * 90_000 + b"N.", "nested"),
    "lists that double": (b"\x80\x02]q\x000" + doubled(b"](h%bh%beq%b0") + b"h\xc8.", "list"),
    "tuples within tuples": (b"\x80\x02" + b"N" + b"\x85" * 90_000 + b".", "single value"),
    "a tuple as key": (program(b"N\x85", b"N"), "key"),
    "a doubled tuple as key": (b"\x80\x02}N\x85q\x000" + doubled(b"h%bh%b\x86q%b0") + b"h\xc8Ns.", "key"),
    "keys that collide": (program(*(number((1 << 61) - 1 << n) + b"N" for n in range(1000))), "key"),
    "a text of 600 kB": (word(text("a" * 600_000)), "600000"),
    "a number of 8000 bits": (
        word(b"\x8b" + struct.pack("<i", 999) + b"\x7f" * 999),
        "bits",
    ),
    "digits without end": (word(b"L" + b"9" * 100_000 + b"L\n"), "malformed"),
    "items of a tensor": (b"\x80\x02" + tensor() + text("a") + b"Ns.", "no dictionary"),
    "items of a list": (b"\x80\x02]" + text("a") + b"Ns.", "no dictionary"),
    "appends to a dictionary": (b"\x80\x02}Na.", "no list"),
    "a state for a tensor": (word(tensor() + b"}b"), "no parts"),
    "a state for a dictionary": (b"\x80\x02}}b.", "no parts"),
    "a parameter dict without parameters": (
        program(text("string_to_param"), b"ctorch.nn.modules.container\nParameterDict\n)\x81"),
        "0 tensors",
    ),
    "a parameter dict of something": (
        program(text("string_to_param"), b"ctorch.nn.modules.container\nParameterDict\n)\x81]b"),
        "not its own",
    ),
    "calls a text": (word(text("a") + b")R"), "cannot be called"),
    "calls with a list": (word(b"ccollections\nOrderedDict\n]R"), "cannot be called"),
    "makes an object of a function": (word(b"ctorch._utils\n_rebuild_tensor_v2\n)\x81"), "no class"),
    "calls with the wrong values": (word(b"ctorch._utils\n_rebuild_tensor_v2\nN\x85R"), "wrong values"),
    "a tensor of no storage": (word(tensor(source=b"N")), "wrong values"),
    "numbers of nowhere": (word(b"NQ"), "something else than numbers"),
    "numbers under a path": (word(tensor(source=storage(key="../0"))), "unknown kind"),
    "numbers of no type": (word(b"(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\x08tQ"), "unknown kind"),
    "stride 0": (word(tensor((10**9, 4), (0, 1))), "overlap"),
    "negative stride": (word(tensor((2, 4), (-4, 1), 4)), "strides"),
    "overlapping rows": (word(tensor((2, 4), (1, 1))), "overlap"),
    "beyond its storage": (word(tensor((3, 4))), "reaches beyond"),
    "offset beyond its storage": (word(tensor(offset=1)), "reaches beyond"),
    "negative offset": (word(tensor(offset=-4)), "offset"),
    "endless shape": (word(tensor((1 << 40, 1 << 40), (1, 1 << 40))), "reaches beyond"),
    "shape beyond any number": (word(tensor((1 << 70, 1))), "shape"),
    "more strides than edges": (word(tensor((8,), (1, 1))), "dimensions"),
    "300 dimensions": (word(tensor((1,) * 300, (1,) * 300)), "dimensions"),
    "rank 3": (word(tensor((2, 2, 2), (4, 2, 1))), "2 x 2 x 2"),
    "rank 0": (word(tensor((), ())), "single number"),
    "no numbers": (word(tensor((0, 4))), "0 x 4"),
    "whole numbers": (word(tensor((1,), (1,), source=storage("LongStorage", count=4))), "I64"),
    "complex numbers": (word(tensor((1,), (1,), source=storage("ComplexFloatStorage", count=4))), "C64"),
    "truth values": (word(tensor((1,), (1,), source=storage("BoolStorage", count=32))), "BOOL"),
    "quantised": (word(b"ctorch._utils\n_rebuild_qtensor\n)R"), "quantised"),
    "sparse": (word(b"ctorch._utils\n_rebuild_sparse_tensor\n)R"), "sparse"),
    "of the meta device": (word(b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R"), "meta"),
    "no tensor": (word(text("vectors")), "no known layout"),
    "two tensors": (program(text("<a>"), tensor(), text("<b>"), tensor()), "no known layout"),
    "a lone tensor": (b"\x80\x02" + tensor() + b".", "single value"),
    "a list of nothing": (b"\x80\x02].", "list"),
    "checkpoint": (program(text("state_dict"), b"}"), "full checkpoint"),
    "checkpoint of lightning": (word(b"cpytorch_lightning.callbacks\nModelCheckpoint\n)R"), "full checkpoint"),
    "hypernetwork": (program(b"M\0\x03", b")"), "hypernetwork"),
    "optimizer": (program(text("optimizer_state_dict"), b"}", text("hash"), text("dc4a")), "optimizer"),
}
"""Pickles, for both serialisations, with a pattern that the refusal must match."""

ARCHIVES: dict[str, tuple[bytes, str]] = {
    "deflated": (archive(word(tensor()), {"a/data/0": bytes(1 << 24)}, method=zipfile.ZIP_DEFLATED), "compressed"),
    "encrypted": (with_flag(1), "encrypted"),
    "of unknown flags": (with_flag(64), "properties"),
    "a member that is a folder": (as_folder(), "properties"),
    "something in front that is accounted for": (behind_another_header(), "before"),
    "a name twice": (duplicated(), "twice"),
    "two programs": (archive(word(tensor()), {"b/data.pkl": b"N."}), "torch did not make"),
    "another name in front of the member": (patched(GOOD_ARCHIVE, b"a/data/0", b"a/data/9"), "contradicts"),
    "another length in front of the member": (longer_local_size(), "contradicts"),
    "other numbers than its checksum": (patched(GOOD_ARCHIVE, NUMBERS[:4], b"\0\0\0\0"), "checksum"),
    "something in front": (b"PK\3\4" + GOOD_ARCHIVE, "malformed|before|contradict|where"),
    "a program in front": (b"#!/bin/sh\n" + GOOD_ARCHIVE, "program"),
    "something behind": (GOOD_ARCHIVE + b"\0", "appended"),
    "two archives": (GOOD_ARCHIVE + GOOD_ARCHIVE, "malformed|before"),
    "a comment": (GOOD_ARCHIVE[:-2] + b"\2\0" + b"PK", "appended|malformed"),
    "cut short": (GOOD_ARCHIVE[:-30], "cut short"),
    "100 members": (archive(word(tensor()), {f"a/{n}": b"" for n in range(100)}), "103 members"),
    "a path upwards": (archive(word(tensor()), {"a/../../x": b""}), "called"),
    "a path from the root": (archive(word(tensor()), {"/etc/passwd": b""}), "called"),
    "a name with a NUL": (patched(archive(word(tensor()), {"a/zz": b""}), b"a/zz", b"a/z\0", 2), "called"),
    "numbers of the wrong length": (archive(word(tensor()), {"a/data/0": NUMBERS[:-4]}), "28 bytes"),
    "numbers missing": (archive(word(tensor(source=storage(key="7")))), "missing"),
    "other byte order": (archive(word(tensor()), {"a/byteorder": b"big"}), "byte order"),
    "program of 2 MiB": (archive(b"\x80\x02" + b"N0" * (1 << 20) + b"N."), "larger than"),
    "something behind the program": (archive(word(tensor()) + b"N."), "follows"),
    "TorchScript": (archive(word(tensor()), {"a/constants.pkl": b"", "a/code/x.py": b""}), "TorchScript"),
    "a ZIP in a ZIP": (archive(GOOD_ARCHIVE), "malformed|opcode"),
    "NumPy archive": (patched(archive(b""), b"a/data.pkl", b"vector.npy", 2), "NumPy"),
    "no archive": (b"PK\5\6" + bytes(18), "empty"),
}

LEGACY: dict[str, tuple[bytes, str]] = {
    "other magic": (legacy(b"", head=(pickle.dumps(7, 2),)), "torch did not write"),
    "plain pickle": (pickle.dumps({"a": 1}), "torch did not write"),
    "other version": (legacy(b"", head=(HEAD[0], pickle.dumps(1000, 2), HEAD[2])), "version"),
    "other byte order": (legacy(b"", head=(*HEAD[:2], pickle.dumps({"little_endian": False}, 2))), "byte order"),
    "evil head": (legacy(b"", head=(pickle.dumps(Evil(), 2),)), "system"),
    "evil keys": (b"".join(HEAD) + word(b"N") + pickle.dumps(Evil(), 2), "system"),
    "head of many steps": (legacy(b"", head=(b"\x80\x02" + b"N0" * 2000 + b"N.",)), "steps"),
    "keys of nothing": (legacy(word(tensor(source=storage(legacy=True))), keys=()), "list of numbers"),
    "a key too many": (legacy(word(tensor(source=storage(legacy=True))), keys=("0", "1")), "list of numbers"),
    "a key twice": (legacy(word(tensor(source=storage(legacy=True))), keys=("0", "0")), "as many"),
    "a key and its numbers twice": (
        legacy(word(tensor(source=storage(legacy=True))), keys=("0", "0"), tail=(struct.pack("<q", 8) + NUMBERS) * 2),
        "as many",
    ),
    "other count": (GOOD_LEGACY.replace(struct.pack("<q", 8), struct.pack("<q", 9)), "as many"),
    "numbers cut short": (GOOD_LEGACY[:-4], "cut short"),
    "something behind": (GOOD_LEGACY + b"\0", "appended"),
    "the same numbers in two types": (
        legacy(
            program(
                text("a"),
                tensor(source=storage(legacy=True)),
                text("b"),
                tensor(source=storage("LongStorage", legacy=True)),
            )
        ),
        "two ways",
    ),
    "views of numbers": (legacy(word(tensor(source=storage(legacy=True).replace(b"NtQ", b")tQ")))), "views"),
}

SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "LoRA": (entries("lora_unet_x.lora_up.weight", "lora_unet_x.lora_down.weight"), "a LoRA"),
    "checkpoint": (entries("model.diffusion_model.out.weight", "cond_stage_model.x"), "a full checkpoint"),
    "autoencoder": (entries("encoder.conv_in.weight", "decoder.conv_in.weight"), "VAE"),
    "Flux": (entries("clip_l", "t5"), "T5"),
    "output vectors": (entries("emp_params_out"), "output vectors"),
    "nothing": (safetensors({}), "holds nothing"),
    "both halves in one": (
        safetensors({"x": {"dtype": "F32", "shape": [1, 2048], "data_offsets": [0, 8192]}}, bytes(8192)),
        "which half is which",
    ),
    "leading blank": (safetensors(b' {"a":{}}'), "no kind|not a JSON|text"),
    "a million tensors": (
        safetensors({f"{n:x}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(500_000)}),
        "header",
    ),
    "10000 tensors": (
        safetensors({f"{n:x}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(10_000)}),
        "10000 tensors",
    ),
    "100000 vectors": (
        safetensors({"x": {"dtype": "F16", "shape": [100_000, 1], "data_offsets": [0, 200_000]}}, bytes(200_000)),
        "100000 x 1",
    ),
    "numbers of no type": (
        safetensors({"x": {"dtype": "\x1b[31m", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "type",
    ),
    "numbers of 8 bits": (
        safetensors({"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
        "F8",
    ),
    "a LoRA with 300 words": (entries(*(f"bundle_emb.{n}.clip_l" for n in range(300))), "300 embeddings"),
    "a LoRA with a broken word": (entries("bundle_emb.a.x", "bundle_emb.a.y"), "no known layout"),
}

OTHERS: dict[str, tuple[bytes, str]] = {
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "gzip"),
    "tar": (bytes(257).replace(b"\0", b"a", 9) + b"ustar\0" + bytes(300), "tar"),
    "web page": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "LFS"),
    "text": (b"a picture of <mira>", "a text"),
    "JSON": (b'[{"a": 1}]', "JSON"),
    "zeros": (bytes(1 << 20), "zeros"),
    "old pickle": (pickle.dumps(Evil(), 0), "pickle"),
    "PNG with a cut picture": (png(64, 64, zlib.compress(bytes(100))), "decode"),
    "PNG with a picture that inflates": (png(64, 64, zlib.compress(bytes(1 << 26))), "carries no word|decode"),
    "PNG of no size": (png(0, 64, b""), "no pixels"),
    "PNG with a huge chunk": (b"\x89PNG\r\n\x1a\n\x80\0\0\0IHDR", "cut short"),
    "PNG with a short header": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1") + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "header",
    ),
    "WebP cut short": (b"RIFF\xff\0\0\0WEBPVP8L", "cut short"),
    "WebP with a cut chunk": (b"RIFF\x10\0\0\0WEBPVP8L\xff\xff\0\0\x2f\0\0\0", "cut short"),
    "WebP of noise": (b"RIFF\x14\0\0\0WEBPVP8L\x08\0\0\0\x2f\xff\xff\x0f\0\0\0\0", "decode|carries no word"),
}


def all_files() -> dict[str, tuple[bytes, str]]:
    """Every file, by a name that says its kind."""
    legacy_programs = {name: (in_legacy(data), pattern) for name, (data, pattern) in PROGRAMS.items()}
    groups = {
        "zip": {name: (archive(data), pattern) for name, (data, pattern) in PROGRAMS.items()},
        "legacy": legacy_programs,
        "archive": ARCHIVES,
        "legacy file": LEGACY,
        "safetensors": SAFETENSORS,
        "other": OTHERS,
    }
    return dict(
        collections.ChainMap(
            *({f"{kind}: {name}": case for name, case in group.items()} for kind, group in groups.items())
        )
    )
