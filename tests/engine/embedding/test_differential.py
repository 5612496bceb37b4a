"""Damaged files are accepted only where the libraries that others use accept them too, and with equal numbers.

The oracle for pickled files is torch.load with weights_only; for opcodes of newer protocols, which that refuses, it is
torch.load with an unpickler that knows our names only. For safetensors it is the library itself.
"""

from __future__ import annotations

import io
import pickle
import random
import types
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from engine.embedding.read import read_words
from engine.embedding.standins import KNOWN
from engine.embedding.vectors import Embedding
from engine.errors import VocableError

ROWS = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module} {name}" not in KNOWN:
            raise pickle.UnpicklingError(name)
        return super().find_class(module, name)


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


RESTRICTED = types.SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="restricted")


def pickled(values: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(values, file, **options)
    return file.getvalue()


WEBUI = {"string_to_token": {"*": 265}, "string_to_param": {"*": ROWS}, "name": "mira", "step": 60}
OLD = {"_use_new_zipfile_serialization": False}
ORIGINAL = {"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(ROWS)})}
GOOD = {
    "original, zip": pickled(ORIGINAL),
    "webui, zip": pickled(WEBUI),
    "webui, legacy": pickled(WEBUI, **OLD),
    "diffusers, zip": pickled({"<mira>": ROWS.half()}),
    "diffusers, legacy": pickled({"<mira>": ROWS[0].bfloat16()}, **OLD),
    "parameter, zip, protocol 4": pickled({"emb_params": torch.nn.Parameter(ROWS)}, pickle_protocol=4),
    "SDXL, legacy": pickled({"clip_l": ROWS, "clip_g": ROWS.double()}, **OLD),
    "emb_params, safetensors": safetensors.torch.save({"emb_params": ROWS}, {"vocable.step": "60"}),
    "SDXL, safetensors": safetensors.torch.save({"clip_l": ROWS, "clip_g": ROWS.half() * 2}),
    "bundle, safetensors": safetensors.torch.save({"bundle_emb.a.emb_params": ROWS, "x.lora_up.weight": ROWS[0] + 1}),
}


def load_elsewhere(data: bytes) -> Any:
    """What the library makes of a file; raises whatever it raises."""
    if data[8:9] == b"{":
        return safetensors.torch.load(data)
    with suppress(Exception):
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return torch.load(io.BytesIO(data), weights_only=False, pickle_module=RESTRICTED, map_location="cpu")


def tensors_of(values: Any) -> Iterable[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_of(value)
    elif isinstance(values, torch.nn.ParameterDict):
        yield from tensors_of(vars(values).get("_parameters"))


def assert_held(word: Embedding, values: Any) -> None:
    """Every encoder's vectors are among the tensors, bit for bit."""
    tensors = [tensor.detach().to(torch.float32).numpy() for tensor in tensors_of(values) if tensor.is_floating_point()]
    for rows in word.encoders().values():
        assert any(np.array_equal(rows, np.atleast_2d(tensor)) for tensor in tensors if tensor.size == rows.size)


def mutate(data: bytes, random_: random.Random) -> bytes:
    """Change a few bytes, mostly where there is structure; cut, double or move a piece now and then."""
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        place = random_.randrange(len(changed))
        kind = random_.random()
        if kind < 0.35:
            changed[place] ^= 1 << random_.randrange(8)
        elif kind < 0.6:
            changed[place] = random_.choice((0, 1, 2, 3, 4, 8, 0x2E, 0x28, 0x71, 0x74, 0x7F, 0x80, 0xFF))
        elif kind < 0.75:
            end = place + random_.randrange(1, 9)
            source = random_.randrange(len(changed))
            changed[place:end] = changed[source : source + end - place]
        elif kind < 0.9:
            del changed[place : place + random_.randrange(1, 5)]
        else:
            changed[place:place] = random_.randbytes(random_.randrange(1, 5))
        if not changed:
            return b""
    return bytes(changed)


def check(data: bytes) -> bool:
    """Whether we accept a file; if so, it must be accepted elsewhere with equal numbers."""
    try:
        words = read_words(data, "mira").words
    except VocableError:
        return False
    values = load_elsewhere(data)
    for word in words:
        assert_held(word, values)
    return True


def fuzz(data: bytes, seed: int, count: int) -> int:
    random_ = random.Random(seed)
    return sum(check(mutated) for mutated in (mutate(data, random_) for _ in range(count)))


@pytest.mark.parametrize("case", GOOD)
def test_the_files_themselves_are_accepted_by_both(case: str) -> None:
    assert check(GOOD[case])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", GOOD)
def test_what_is_accepted_here_is_accepted_elsewhere(case: str) -> None:
    fuzz(GOOD[case], seed=7, count=300)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", GOOD)
def test_what_is_accepted_here_is_accepted_elsewhere_for_10000_changes(case: str) -> None:
    assert fuzz(GOOD[case], seed=11, count=10_000) > 0
