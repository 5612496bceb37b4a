"""The operations of a child on hostile files, in a process that tells what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
