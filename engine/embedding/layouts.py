"""Finds the words in what a container holds: the layouts of all programs that write embeddings, in a fixed order.

Called by `read` with plain values and described tensors. Order and meaning follow AUTOMATIC1111's webui where it reads
a layout (`reference/webui.md` 2.2) and the program that writes it elsewhere (`reference/peers.md` b). No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedding.kinds import name_contents
from engine.embedding.standins import ParameterDict
from engine.embedding.stored import StoredTensor
from engine.embedding.vectors import MAX_VECTORS, Embedding, check_shape, check_vectors
from engine.errors import VocableError
from engine.names import sanitize_name

MAX_WORDS = 256
"""Most words that one LoRA may bring."""

_BUNDLE = "bundle_emb."
_OUTPUTS = ("emp_params_out", "clip_l_out", "clip_g_out", "t5_out")
"""OneTrainer's vectors for what comes out of a text encoder, which stand beside the others."""

_INNER = ("string_to_param.*", "clip_l", "clip_g", "emb_params", "emp_params", "t5", "t5xxl", *_OUTPUTS)
_PLAIN = ("*", "emb_params", "emp_params", "clip_l", "clip_g", "string_to_param.*")
"""Keys that name a place in a layout, not a word."""

_T5 = ("t5", "t5xxl")
_BOTH = 2048
_PAIR = (768, 1280)
_MAX_TEXT = 256


def find_words(values: object, name: str, origin: Mapping[str, Any]) -> tuple[str, tuple[Embedding, ...]]:
    """Find the layout and its words.

    Args:
        values: what the container holds.
        name: what to call the word, unless the layout holds several with names of their own.
        origin: mapping with webui's keys `step`, `sd_checkpoint`, `sd_checkpoint_name`, `name`, where they are known.

    Raises:
        VocableError: `embedding.unsupported` for what is no embedding or cannot be used; `.unreadable`, `.shape`,
            `.not_finite` for vectors.
    """
    if isinstance(values, list):
        return "list", (_from_list(values, name),)
    if not isinstance(values, dict):
        raise _unsupported("The file holds a single value, not an embedding.")
    if "string_to_param" in values:
        layout, word = _from_param(values["string_to_param"], name)
    elif any(isinstance(key, str) and key.startswith(_BUNDLE) for key in values):
        return "LoRA with embeddings", _from_bundle(values, name)
    else:
        layout, word = _from_keys(values, name)
    return layout, (_with_origin(word, origin),)


def _from_param(param: object, name: str) -> tuple[str, Embedding]:
    layout = "original" if isinstance(param, ParameterDict) else "webui"
    entries = param.parameters if isinstance(param, ParameterDict) else param
    if not isinstance(entries, dict) or len(entries) != 1:
        count = len(entries) if isinstance(entries, dict) else "no"
        raise _unsupported(f"The file's string_to_param holds {count} tensors, not exactly one.")
    return layout, _single(name, next(iter(entries.values())))


def _from_keys(values: Mapping[Any, Any], name: str) -> tuple[str, Embedding]:
    if "clip_l" in values and "clip_g" in values:
        layout = "Stable Diffusion 3" if any(key in values for key in _T5) else "SDXL"
        return layout, _pair(name, values["clip_l"], values["clip_g"])
    if any(key in values for key in _T5):
        raise _unsupported("The file is an embedding for Flux or another model with a T5 text encoder.")
    if "emb_params" in values:
        return "emb_params", _single(name, values["emb_params"])
    if "emp_params" in values:
        return "OneTrainer", _single(name, values["emp_params"])
    if any(key in values for key in _OUTPUTS):
        raise _unsupported("The file holds output vectors only (OneTrainer's *_out), which replace no token.")
    tensors = {key: value for key, value in values.items() if isinstance(value, StoredTensor)}
    if len(values) != 1 or len(tensors) != 1:
        raise _no_embedding(values)
    key, tensor = next(iter(tensors.items()))
    return "diffusers", replace(_single(name, tensor), trigger="" if key in _PLAIN else _text(key))


def _from_list(items: list[Any], name: str) -> Embedding:
    """ComfyUI's reading of a list: the rows of all tensors, those of each text encoder for themselves."""
    found: dict[int, list[StoredTensor]] = {}
    keys = []
    for item in items[:MAX_VECTORS]:
        for key, value in islice(item.items(), MAX_VECTORS) if isinstance(item, dict) else ():
            if isinstance(value, StoredTensor) and value.shape and len(value.shape) <= 2:
                found.setdefault(value.shape[-1], []).append(value)
                keys.append(key)
    for tensors in found.values():
        check_shape(name, (sum(len(item.shape) == 1 or item.shape[0] for item in tensors), tensors[0].shape[-1]))
    if len(found) == 1:
        word = _checked(name, _stack(name, next(iter(found.values()))))
    elif set(found) == set(_PAIR):
        word = _join(name, *(_stack(name, found[width]) for width in _PAIR))
    else:
        raise _unsupported("The file is a list that holds no embedding.")
    return replace(word, trigger="" if keys[0] in _PLAIN else _text(keys[0]))


def _from_bundle(values: Mapping[Any, Any], name: str) -> tuple[Embedding, ...]:
    """The embeddings that a LoRA brings along, each called as its keys say."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if isinstance(key, str) and key.startswith(_BUNDLE):
            rest = key.removeprefix(_BUNDLE)
            known = next((inner for inner in _INNER if rest.endswith(f".{inner}")), "")
            own, inner = (rest.removesuffix(f".{known}"), known) if known else rest.partition(".")[::2]
            groups.setdefault(own, {})[inner] = value
    if len(groups) > MAX_WORDS:
        raise _unsupported(f"The LoRA brings {len(groups)} embeddings; at most {MAX_WORDS} are read.")
    words: dict[str, Embedding] = {}
    for own, group in groups.items():
        word_name = _free_name(sanitize_name(own) or name, words)
        if "string_to_param.*" in group:
            word = _single(word_name, group["string_to_param.*"])
        else:
            _, word = _from_keys(group, word_name)
        words[word_name] = replace(word, trigger=_text(own))
    return tuple(words.values())


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    """The name itself, or numbered, where two keys come to the same lawful name."""
    used = {other.casefold() for other in taken}
    numbered = (f"{name[:58].rstrip('. ')} {number}" for number in range(2, MAX_WORDS + 2))
    return name if name.casefold() not in used else next(free for free in numbered if free.casefold() not in used)


def _single(name: str, tensor: object) -> Embedding:
    rows = _read(name, tensor)
    if rows.shape[1] == _BOTH:
        raise _unsupported(
            f"The vectors of the word '{name}' are {_BOTH} wide, both text encoders of SDXL in one, and nothing says"
            " which half is which."
        )
    return Embedding(name, rows)


def _pair(name: str, left: object, right: object) -> Embedding:
    return _join(name, _read(name, left), _read(name, right))


def _join(name: str, left: NDArray[np.float32], right: NDArray[np.float32]) -> Embedding:
    if len(left) != len(right):
        title = f"The word '{name}' has {len(left)} vectors for the first text encoder and {len(right)} for the second."
        raise VocableError("embedding.shape", title, "Use a file in which both have as many.")
    return replace(_checked(name, np.concatenate([left, right], axis=1)), split=left.shape[1])


def _stack(name: str, tensors: list[StoredTensor]) -> NDArray[np.float32]:
    return np.concatenate([_read(name, tensor) for tensor in tensors])


def _checked(name: str, rows: NDArray[np.float32]) -> Embedding:
    return Embedding(name, check_vectors(name, rows))


def _read(name: str, tensor: object) -> NDArray[np.float32]:
    """Rows of a tensor; its described shape is checked before its numbers are touched."""
    if not isinstance(tensor, StoredTensor):
        raise _unsupported("Where the file should hold a tensor it holds something else.")
    check_shape(name, tensor.shape)
    return check_vectors(name, tensor.read())


def _with_origin(word: Embedding, origin: Mapping[str, Any]) -> Embedding:
    step = origin.get("step")
    return replace(
        word,
        step=step if type(step) is int and 0 <= step < 1 << 53 else 0,
        model=_text(origin.get("sd_checkpoint_name")),
        model_hash=_text(origin.get("sd_checkpoint")),
        trigger=word.trigger or _text(origin.get("name")),
    )


def _text(value: object) -> str:
    """Text of a file, which may be of any length and hold halves of characters."""
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _no_embedding(values: Mapping[Any, Any]) -> VocableError:
    if what := name_contents(values):
        return _unsupported(f"The file is {what}, not an embedding.")
    shown = ", ".join(ascii(str(key)[:40]) for key in list(values)[:4] if isinstance(key, (str, int))) or "nothing"
    more = " ..." if len(values) > 4 else ""
    return _unsupported(f"The file holds {shown}{more}, which is no known layout of an embedding.")


def _unsupported(title: str) -> VocableError:
    return VocableError("embedding.unsupported", title, "Choose a file that holds one textual-inversion embedding.")
