"""The inspector process: one foreign file on stdin, what it holds on stdout, then gone.

Started by daemon.inspector.judge as `python -I -m daemon.inspector.main --parent PID --stem NAME`. It gives up every
right and resource that reading does not need before it looks at the first byte.
"""

from __future__ import annotations

import argparse
import base64
import resource
import sys

from daemon.worker import guards
from daemon.worker.wire import Message, encode
from engine.embedding.read import read_embedding
from engine.embedding.write import encode_safetensors
from engine.errors import VocableError

ADDRESS_SPACE = 1 << 30
CPU_S = 10
OPEN_FILES = 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--stem", required=True)
    options = parser.parse_args()
    guards.die_with_parent(options.parent)
    confine()
    frame = encode(inspect(sys.stdin.buffer.read(), options.stem))
    sys.stdout.buffer.write(frame)
    sys.stdout.buffer.flush()


def confine() -> None:
    """Limit this process for good: memory, processor time, files, rights. What it needs is imported already."""
    guards.renounce_privileges()
    guards.be_killed_first()
    limits = {
        resource.RLIMIT_AS: ADDRESS_SPACE,
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))


def inspect(data: bytes, stem: str) -> Message:
    """Read an embedding and say in plain values what it is; its canonical file comes along in base64."""
    try:
        embedding = read_embedding(data, stem)
        canonical = encode_safetensors(embedding)
    except VocableError as error:
        return {"error": error.to_dict()}
    except MemoryError:
        title = f"Reading the file takes more than {ADDRESS_SPACE >> 20} MiB of memory."
        return {"error": {"code": "embedding.unreadable", "title": title, "hint": ""}}
    vectors, width = embedding.vectors.shape
    return {
        "vectors": vectors,
        "width": width,
        "step": embedding.step,
        "model": embedding.model,
        "safetensors": base64.b64encode(canonical).decode(),
    }


if __name__ == "__main__":
    main()
