"""The operations of a child on hostile files, in a process that tells what they cost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.inspector import child
from daemon.inspector.frames import pack, read_frame
from daemon.inspector.operations import OPERATIONS, Answer, Message
from tests.daemon.networks import network_file, webui_file
from tests.daemon.words import word_file
from tests.engine.embedding.hostile_files import all_files
from tests.engine.hypernetwork.test_refused import REFUSED

CODE = """
import json, sys
from pathlib import Path
from daemon.inspector import child
from daemon.inspector.operations import OPERATIONS
from engine.errors import VocableError

child.warm_up()
child.confine()
codes = {}
for path in sorted(Path("files").iterdir()):
    try:
        OPERATIONS[sys.argv[1]]({}, [path.read_bytes()])
        codes[path.name] = "readable"
    except VocableError as error:
        codes[path.name] = error.code
highest = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"codes": codes, "kib": int(highest.split()[1])}))
"""


HOSTILE_WORDS = [data for data, *_ in all_files().values()]
HOSTILE_NETWORKS = [data for name, (data, *_) in REFUSED.items() if name not in ("word", "safetensors of nothing")]
"""Without two that hold a word, of which one is a single tensor."""


KINDS = {"read words": "embedding", "read hypernetwork": "hypernetwork"}


@pytest.mark.parametrize(
    ("operation", "hostile", "expected"),
    [
        ("read words", HOSTILE_NETWORKS, ["readable", "embedding.misplaced", "embedding.misplaced"]),
        ("read hypernetwork", HOSTILE_WORDS, ["hypernetwork.misplaced", "readable", "readable"]),
    ],
)
def test_hostile_files_of_one_kind_are_refused_as_the_other_too_and_take_little(
    tmp_path: Path, operation: str, hostile: list[bytes], expected: list[str]
) -> None:
    files = [*hostile, word_file(), network_file(), webui_file()]
    (tmp_path / "files").mkdir()
    for number, data in enumerate(files):
        (tmp_path / "files" / f"{number:04}").write_bytes(data)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n{CODE}"
    done = subprocess.run(
        [sys.executable, "-c", code, operation], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    codes = list(told["codes"].values())
    assert told["kib"] < 300 << 10
    assert codes[len(hostile) :] == expected
    assert len(codes) == len(files)
    assert {code.split(".")[0] for code in codes[:-3]} == {KINDS[operation]}


def test_a_hypernetwork_is_converted_whatever_its_file_is_called() -> None:
    question = {"stem": "!!!", "word": "", "format": "safetensors", "name": "fox", "has_second": False, "picture": ""}
    answer, files = OPERATIONS["convert"](question, [network_file()])
    assert (answer["kind"], len(files)) == ("hypernetwork", 1)


@pytest.mark.parametrize("noun", ["embedding", "hypernetwork"])
def test_a_file_that_takes_too_much_memory_is_an_unreadable_one_of_its_kind(
    noun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(header: Message, parts: Sequence[bytes]) -> Answer:
        raise MemoryError

    question = {"embedding": "read words", "hypernetwork": "read hypernetwork"}[noun]
    monkeypatch.setattr(child, "OPERATIONS", {question: fill_up})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(pack({"do": question}, [b"x"])))
        assert child.answer(theirs) == 0
        with ours.makefile("rb") as stream:
            reply, _ = read_frame(stream)
    assert reply["error"]["code"] == f"{noun}.unreadable"
