"""Makes `clip_tokenizer/`, the tokenizer folder of Stable Diffusion 1.x, from the vocabulary that OpenAI published.

    python -m engine.models.configs.build_clip_tokenizer SOURCE engine/models/configs/clip_tokenizer

The source is `bpe_simple_vocab_16e6.txt.gz` of OpenAI's CLIP; the package open-clip-torch ships it too. Equal sources
give equal files. Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from pathlib import Path

SOURCE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
START, END = "<|startoftext|>", "<|endoftext|>"
SIZE = 49408
_MERGES = SIZE - 2 - 2 * 256
"""What is left for merges beside start, end and two tokens for each byte; the source lists more than CLIP uses."""

_SPECIAL_TOKENS = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
_CONFIG = {
    "add_prefix_space": False,
    **_SPECIAL_TOKENS,
    "do_lower_case": True,
    "errors": "replace",
    "model_max_length": 77,
    "tokenizer_class": "CLIPTokenizer",
}


def build_tokenizer(source: bytes) -> dict[str, bytes]:
    """The folder's files by name.

    Raises:
        ValueError: the source is not the published file.
    """
    digest = hashlib.sha256(source).hexdigest()
    if digest != SOURCE_SHA256:
        raise ValueError(f"the source's SHA-256 is {digest}, not {SOURCE_SHA256}")
    merges = gzip.decompress(source).decode().split("\n")[1 : 1 + _MERGES]
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *(pair.replace(" ", "") for pair in merges), START, END]
    vocabulary = json.dumps({token: number for number, token in enumerate(tokens)}, ensure_ascii=False)
    return {
        "vocab.json": f"{vocabulary}\n".encode(),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]).encode(),
        "special_tokens_map.json": _format_json(_SPECIAL_TOKENS),
        "tokenizer_config.json": _format_json(_CONFIG),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, data in build_tokenizer(options.source.read_bytes()).items():
        (options.folder / name).write_bytes(data)


def _byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes, printable bytes first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(0x100 + offset) for offset in range(len(others)))]


def _format_json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


if __name__ == "__main__":
    main()
