"""Hostile and mistaken files are refused with a human reason; nothing in them runs, and none takes much memory."""

from __future__ import annotations

import json
import pickletools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.embedding.pickles import HARMLESS
from engine.embedding.read import read_words
from engine.errors import VocableError
from tests.engine.embedding.hostile_files import (
    CANARY,
    FOREIGN_OPCODES,
    GOOD_ARCHIVE,
    GOOD_LEGACY,
    all_files,
    archive,
    word,
)

FILES = all_files()
CODES = {"embedding.unreadable", "embedding.unsupported", "embedding.shape", "embedding.absent"}

CONFINED = """
import json, resource, sys
from pathlib import Path
from engine.embedding.read import read_words
from engine.errors import VocableError

files = {path.name: path.read_bytes() for path in sorted(Path("files").iterdir())}
read_words(Path("good").read_bytes(), "good")
seen = []
HARMFUL = ("os.", "subprocess.", "socket.", "exec", "import", "open", "compile", "ctypes.", "pickle.", "shutil.")
sys.addaudithook(lambda event, arguments: seen.append(event) if event.startswith(HARMFUL) else None)
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
refused = 0
for name, data in files.items():
    try:
        read_words(data, "mira")
    except VocableError:
        refused += 1
result = {"seen": sorted(set(seen)), "refused": refused}
highest = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps(result | {"kib": int(highest.split()[1])}))
"""


@pytest.mark.parametrize("data", [GOOD_ARCHIVE, GOOD_LEGACY], ids=["zip", "legacy"])
def test_what_the_hostile_files_are_made_of_is_read_when_left_alone(data: bytes) -> None:
    assert read_words(data, "mira").words[0].vectors.shape == (2, 4)


def test_every_opcode_is_either_known_to_be_harmless_or_tried_here() -> None:
    everything = {opcode.name for opcode in pickletools.opcodes}
    refused = {name for name in everything if "opcode" in reason(archive(word(FOREIGN_OPCODES.get(name, b"N"))))}
    assert refused == set(FOREIGN_OPCODES)
    assert everything - set(HARMLESS) - {"STOP"} == refused


def reason(data: bytes) -> str:
    with pytest.raises(VocableError) as caught:
        read_words(data, "mira")
    return caught.value.title


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_file_is_refused_with_its_reason(case: str) -> None:
    data, pattern = FILES[case]
    with pytest.raises(VocableError) as caught:
        read_words(data, "mira")
    assert caught.value.code in CODES
    assert re.search(pattern, caught.value.title), caught.value.title
    assert caught.value.hint
    assert len(str(caught.value)) < 400
    assert caught.value.title.isascii()
    assert caught.value.title.isprintable()


def test_reading_hostile_files_runs_nothing_opens_nothing_and_takes_little(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number, (data, _) in enumerate(FILES.values()):
        (tmp_path / "files" / str(number)).write_bytes(data)
    (tmp_path / "good").write_bytes(GOOD_ARCHIVE)
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{CONFINED}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["seen"] == []
    assert report["refused"] == len(FILES)
    assert report["kib"] < 300 << 10
    assert not (tmp_path / CANARY).exists()
    assert not Path(CANARY).exists()
