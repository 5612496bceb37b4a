"""A process that prepares pictures for another: `python -m engine.preprocess.child --parent PID --fd N`.

Started by crew.py only. It takes a picture's path, answers with the prepared pictures or with the reason why there are
none, and ends with its parent. A decoder that crashes on foreign bytes crashes nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from engine.errors import VocableError
from engine.preprocess.prepare import measure, prepare
from engine.preprocess.request import PreprocessOptions
from engine.processes import die_with_parent

_MAX_ADDRESS_SPACE = 6 << 30
"""Room for the largest picture that is decoded, with all that is made of it; what wants more is refused."""


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("parent", "fd"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESS_SPACE, _MAX_ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Connection(arguments.fd) as line:
        serve(line)


def serve(line: Connection) -> None:
    """Answer one request after the other until the line is closed."""
    try:
        options = PreprocessOptions.model_validate_json(line.recv_bytes())
        while True:
            request = json.loads(line.recv_bytes())
            line.send_bytes(_answer(Path(request["path"]), request["do"], options))
    except (EOFError, BrokenPipeError):
        return


def pack(header: object, blobs: list[bytes]) -> bytes:
    """A message: one line of JSON, then the blobs, whose sizes the JSON tells."""
    return b"".join([json.dumps(header).encode(), b"\n", *blobs])


def _answer(path: Path, do: str, options: PreprocessOptions) -> bytes:
    try:
        if do == "measure":
            return pack({"facts": asdict(measure(path))}, [])
        prepared = prepare(path, options)
    except VocableError as error:
        return pack({"error": error.to_dict()}, [])
    except Exception as error:
        # One picture that a library chokes on must not take the others with it; it is named with the reason.
        title = f"The picture '{path.name}' could not be prepared ({type(error).__name__}: {error})."
        return pack({"error": VocableError("preprocess.picture", title).to_dict()}, [])
    blobs = [piece.data for piece in prepared.pieces]
    pieces = [[piece.step, piece.width, piece.height, piece.flipped, len(piece.data)] for piece in prepared.pieces]
    header = {"facts": asdict(prepared.facts), "pieces": pieces, "debug": len(prepared.debug)}
    return pack(header, [*blobs, prepared.debug])


if __name__ == "__main__":
    main()
