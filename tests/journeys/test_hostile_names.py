"""Names and texts of foreign files on a real terminal: nothing of them steers it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from engine.models.catalog import find_model
from tests.journeys.conftest import Place

WIDTH = find_model("starter", []).width

NAMES = [
    b"\x1b]52;c;aGk=\x07bell",
    b"\x1b]52;c;aGk=\x1b\\st",
    b"\x1b]0;title",
    "\x9b31mcsi".encode(),
    "\u202ertl".encode(),
    "\u200bzero".encode(),
    b"two\nlines",
    b"[bold]markup[@click=app.bell]",
    b"\xff\xfelatin",
]
HOSTILE = "\x1b]52;c;aGk=\x07\x9b31m\u202e\u200b"
FORBIDDEN = [b"\x1b]", b"\x07", "\x9b".encode(), "\u202e".encode(), "\u200b".encode(), b"\xff", b"\xfe"]


def word_file(trigger: str, model: str) -> bytes:
    """A word in diffusers' layout whose every text is somebody else's."""
    entry = {"dtype": "F32", "shape": [1, WIDTH], "data_offsets": [0, 4 * WIDTH]}
    header = json.dumps({"__metadata__": {"vocable.model": model}, trigger: entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * WIDTH)


def shown(place: Place, *arguments: str) -> bytes:
    """All that a command writes to a terminal."""
    fd, inside = pty.openpty()
    command = [sys.executable, "-m", "tui", "--workspace", str(place.root), *arguments]
    process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, cwd=place.root)
    os.close(inside)
    received = b""
    try:
        while piece := os.read(fd, 65536):
            received += piece
    except OSError:
        pass  # how Linux says that nobody has the other end any more
    process.wait()
    os.close(fd)
    return received


def test_no_name_or_text_of_a_file_reaches_the_terminal_as_it_is(place: Place) -> None:
    folder = place.root / "embeddings"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        content = word_file(HOSTILE, HOSTILE) if number % 2 else b"\x80\x02c" + HOSTILE.encode() + b"\nx\n."
        Path(os.fsdecode(bytes(folder) + b"/" + name + b".pt")).write_bytes(content)
    place.vocable("daemon", "start")
    (folder / "good.safetensors").write_bytes(word_file("<good>", "somewhere"))
    place.wait_for_words(lambda words: "good" in words)

    files = [str(path) for path in folder.iterdir()]
    for output in (shown(place, "words"), shown(place, "inspect", *files), shown(place, "words", "--json")):
        assert b"good" in output
        assert not [bad for bad in FORBIDDEN if bad in output]
    assert len(place.json("words")) == len(NAMES) + 1
