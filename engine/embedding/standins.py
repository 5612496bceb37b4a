"""Inert stand-ins for the few names that the pickles of embeddings mention; everything else is refused by name.

Used by `archive` and `legacy`. A stand-in only writes down what the file says. Nothing is imported on a file's behalf:
the names are keys of a table here, and torch itself is not needed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from engine.embedding.pickles import Global
from engine.embedding.stored import Storage, StoredTensor, broken_tensor, describe_tensor, row_major
from engine.errors import VocableError

ITEM_BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
    **{"C64": 8, "C128": 16},
}
"""Types of number that torch stores, with their bytes."""

STORAGES = {
    **{"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"},
    **{"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8"},
    **{"BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128"},
}

_NUMPY = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32"}
_TORCH = {"float64": "F64", "float32": "F32", "float16": "F16"}
_SPECIAL = {
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without numbers (of the meta device)",
    "_rebuild_tensor_v3": "a tensor of a type that no embedding has",
}
_CHECKPOINTS = ("pytorch_lightning", "lightning", "omegaconf", "transformers", "diffusers", "accelerate")


@dataclass
class ParameterDict:
    """Stands in for torch.nn.ParameterDict, in which the first embeddings were kept."""

    parameters: dict[Any, Any] = field(default_factory=dict)


@dataclass
class _DType:
    """numpy.dtype of one number."""

    code: str
    order: str = "|"


@dataclass(frozen=True)
class _Encoded:
    """Bytes that old protocols write as a text of latin-1; turned back only when they are read."""

    text: str


@dataclass
class _Array:
    """numpy.ndarray: tensors of some devices (MPS, say) are written as such."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    raw: bytes | _Encoded = b""


def explain_unknown(name: str) -> VocableError:
    """The error for a name that no embedding needs, `module name` as in the file."""
    module, _, last = name.partition(" ")
    shown = ascii(f"{module}.{last}")[1:-1][:80]
    if module == "torch._utils" and last in _SPECIAL:
        hint = "Save the embedding again as an ordinary float32 tensor."
        return VocableError("embedding.unreadable", f"The file holds {_SPECIAL[last]}; embeddings have none.", hint)
    if module.partition(".")[0] in _CHECKPOINTS:
        title = f"The file is a full checkpoint or training state, not an embedding: it asks for {shown}."
        return VocableError("embedding.unsupported", title, "Choose a file that holds one textual-inversion embedding.")
    title = f"The file asks for {shown}, which no embedding needs; nothing in it was run."
    return VocableError("embedding.unreadable", title, "It may be made to do harm: delete it, unless you made it.")


def describe_storage(dtype: str, count: Any, load: Callable[[], bytes | memoryview]) -> Storage:
    if type(count) is not int or not 0 <= count < 1 << 48:
        raise broken_tensor("a storage's length is not what it should be")
    return Storage(dtype, count, load)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise ValueError("no storage")
    return describe_tensor(storage, offset, shape, strides)


def _rebuild_tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, _metadata: Any = None
) -> StoredTensor:
    return _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Any, _grad: Any, _hooks: Any) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise ValueError("no tensor")
    return tensor


def _rebuild_with_state(tensor: Any, grad: Any, hooks: Any, _state: Any) -> StoredTensor:
    return _rebuild_parameter(tensor, grad, hooks)


def _rebuild_typed(function: Any, _kind: Any, arguments: Any, _state: Any) -> StoredTensor:
    """A tensor that had attributes of its own, which are left out."""
    if not isinstance(function, Global) or function.call not in (_rebuild_tensor_v2, _rebuild_parameter):
        raise ValueError("no tensor")
    rebuilt: StoredTensor = function.call(*arguments)
    return rebuilt


def _rebuild_from_array(array: Any, dtype: Any, _device: Any, _grad: Any) -> StoredTensor:
    if not isinstance(array, _Array) or not isinstance(dtype, Global):
        raise ValueError("no array")
    if dtype.name != f"torch.{next((name for name, code in _TORCH.items() if code == array.dtype), '')}":
        raise broken_tensor(f"an array of type {array.dtype} is to become {dtype.name}")
    count = prod(array.shape)
    storage = describe_storage(array.dtype, count, lambda: _plain(array.raw))
    return describe_tensor(storage, 0, array.shape, row_major(array.shape))


def _build_parameters(target: ParameterDict, state: Any) -> None:
    parameters = state.get("_parameters") if isinstance(state, dict) else None
    if not isinstance(parameters, dict):
        raise ValueError("no parameters")
    target.parameters = parameters


def _build_ordered(_target: Any, state: Any) -> None:
    """Attributes of a dictionary (versions of modules, say) are left out."""
    if not isinstance(state, dict):
        raise ValueError("no attributes")


def _make_dtype(code: Any, _align: Any = False, _copy: Any = True) -> _DType:
    if type(code) is not str:
        raise ValueError("no type")
    return _DType(code)


def _build_dtype(target: _DType, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|"):
        raise ValueError("no byte order that is read")
    target.order = state[1]


def _build_array(target: _Array, state: Any) -> None:
    _, shape, dtype, fortran, raw = state
    if not isinstance(dtype, _DType) or dtype.code not in _NUMPY or fortran or not isinstance(raw, (bytes, _Encoded)):
        raise ValueError("no array of numbers")
    if not isinstance(shape, tuple) or len(shape) > 2 or not all(type(edge) is int and edge >= 0 for edge in shape):
        raise ValueError("no shape")
    target.shape, target.dtype, target.raw = shape, _NUMPY[dtype.code], raw


def _make_scalar(dtype: Any, raw: Any) -> int | float:
    """A lone number: steps are sometimes counted by numpy."""
    if not isinstance(dtype, _DType) or dtype.order != "<" or dtype.code not in ("i8", "i4", "f8", "f4"):
        raise ValueError("no number")
    data = _plain(raw) if isinstance(raw, (bytes, _Encoded)) and _length(raw) == int(dtype.code[1]) else b""
    if not data:
        raise ValueError("no number")
    if dtype.code[0] == "i":
        return int.from_bytes(data, "little", signed=True)
    return float(memoryview(data).cast("d" if dtype.code == "f8" else "f")[0])


def _make_encoded(text: Any, encoding: Any) -> _Encoded:
    if type(text) is not str or encoding != "latin1":
        raise ValueError("no bytes")
    return _Encoded(text)


def _plain(raw: bytes | _Encoded) -> bytes:
    return raw.text.encode("latin-1", "replace") if isinstance(raw, _Encoded) else raw


def _length(raw: bytes | _Encoded) -> int:
    return len(raw.text) if isinstance(raw, _Encoded) else len(raw)


def _forget(_values: Any = ()) -> None:
    """Sets only stand among the attributes of a module, none of which is looked at."""


def _table() -> Mapping[str, Global]:
    known = [
        Global("collections.OrderedDict", lambda: OrderedDict(), _build_ordered, OrderedDict),
        Global("torch._utils._rebuild_tensor", _rebuild_tensor),
        Global("torch._utils._rebuild_tensor_v2", _rebuild_tensor_v2),
        Global("torch._utils._rebuild_parameter", _rebuild_parameter),
        Global("torch._utils._rebuild_parameter_with_state", _rebuild_with_state),
        Global("torch._utils._rebuild_device_tensor_from_numpy", _rebuild_from_array),
        Global("torch._tensor._rebuild_from_type_v2", _rebuild_typed),
        Global("torch.Tensor"),
        Global("torch.nn.parameter.Parameter"),
        Global("torch.nn.modules.container.ParameterDict", ParameterDict, _build_parameters, ParameterDict),
        Global("numpy.ndarray"),
        Global("numpy.dtype", _make_dtype, _build_dtype, _DType),
        Global("numpy.core.multiarray._reconstruct", lambda _kind, _shape, _code: _Array(), _build_array, _Array),
        Global("numpy._core.multiarray._reconstruct", lambda _kind, _shape, _code: _Array(), _build_array, _Array),
        Global("numpy.core.multiarray.scalar", _make_scalar),
        Global("numpy._core.multiarray.scalar", _make_scalar),
        Global("_codecs.encode", _make_encoded),
        Global("__builtin__.set", _forget),
        Global("builtins.set", _forget),
        *(Global(f"torch.{name}") for name in (*STORAGES, *_TORCH)),
    ]
    return {" ".join(item.name.rsplit(".", 1)): item for item in known}


KNOWN = _table()
