"""Interprets pickles of embeddings without Python's unpickler: a small stack machine of harmless steps.

Used by `archive` and `legacy` in the inspector. Opcodes are told apart by `pickletools`; those that could import, call
or extend anything are unknown here. A global is one of the inert stand-ins it is given, or the file is refused.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import VocableError

MAX_BYTES = 1 << 20
MAX_STEPS = 100_000
MAX_TEXT = 1 << 19
MAX_MARKS = 256

_LONGEST_NUMBER = 2048
"""Bits of an integer; torch's own magic number has 77."""

_LONGEST_KEY = 60


@dataclass(frozen=True)
class Limits:
    """How much of a file is looked at before it is refused. As they are, the limits are those of an embedding."""

    pickle_bytes: int = MAX_BYTES
    steps: int = MAX_STEPS
    members: int = 64
    """Of an archive."""
    verify_all: bool = True
    """All checksums are verified at once; else each with the numbers that it is of, when they are read."""


EMBEDDING = Limits()


@dataclass(frozen=True)
class Global:
    """What stands in for a name that a pickle may mention."""

    name: str
    call: Callable[..., Any] | None = None
    """What calling it comes to; it gets what the file says, and raises TypeError or ValueError for what is wrong."""
    build: Callable[[Any, Any], None] | None = None
    """Gives a made object its state, for a class."""
    kind: type | None = None
    """Python type of what `call` makes, where it can be built."""
    is_key: bool = False
    """Dictionaries may have the name itself as a key."""


class _Machine:
    """Stack, marks and memo; one method for each group of opcodes."""

    def __init__(
        self,
        data: bytes,
        known: Mapping[str, Global],
        explain: Callable[[str], VocableError],
        load: Callable[[Any], Any],
        max_steps: int,
    ) -> None:
        self.data = data
        self.max_steps = max_steps
        self.known = known
        self.explain = explain
        self.load = load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.builders = {item.kind: item.build for item in known.values() if item.kind and item.build}

    def run(self) -> tuple[Any, int]:
        for step, (opcode, argument, position) in enumerate(pickletools.genops(self.data)):
            if step >= self.max_steps:
                raise broken_pickle(f"it takes more than {self.max_steps} steps")
            if opcode.name == "STOP":
                value = self.pop()
                if self.stack or self.marks:
                    raise broken_pickle("it ends with values left over")
                return value, (position or 0) + 1
            if opcode.name not in _STEPS:
                raise broken_pickle(f"it uses the opcode {opcode.name}, which no embedding needs")
            _STEPS[opcode.name](self, argument, position or 0)
        raise broken_pickle("it does not end")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise broken_pickle("it takes a value where there is none")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        if not self.marks:
            raise broken_pickle("it closes what it never opened")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def check_protocol(self, number: int, _: int) -> None:
        if number > 5:
            raise broken_pickle(f"it is of protocol {number}")

    def check_frame(self, length: int, position: int) -> None:
        if position + 9 + length > len(self.data):
            raise broken_pickle("it is cut short")

    def push(self, value: Any, _: int) -> None:
        if isinstance(value, (str, bytes)) and len(value) > MAX_TEXT:
            raise broken_pickle(f"it holds a text of {len(value)} characters")
        if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
            raise broken_pickle(f"it holds a number of {value.bit_length()} bits")
        self.stack.append(value)

    def push_ascii(self, text: str, position: int) -> None:
        if not text.isascii():
            raise broken_pickle("it holds a text of Python 2 that is not ASCII")
        self.push(text, position)

    def mark(self, _: None, __: int) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise broken_pickle(f"it is nested more than {MAX_MARKS} deep")
        self.marks.append(len(self.stack))

    def discard(self, _: None, __: int) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def remember(self, index: int | None, _: int) -> None:
        place = len(self.memo) if index is None else index
        if not 0 <= place < self.max_steps:
            raise broken_pickle(f"it numbers a value {place}")
        self.memo[place] = self.top()

    def recall(self, index: int, _: int) -> None:
        if index not in self.memo:
            raise broken_pickle(f"it refers to a value {index} that it does not hold")
        self.stack.append(self.memo[index])

    def take_tuple(self, length: int) -> None:
        values = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise broken_pickle("it appends to what is no list")
        target.extend(values)

    def forget_members(self, _: None, __: int) -> None:
        """Sets stand among the attributes of a module only, none of which is looked at."""
        self.pop_marked()
        if type(self.top()) is not frozenset:
            raise broken_pickle("it adds to what is no set")

    def set_items(self, target: Any, values: list[Any]) -> None:
        if not isinstance(target, dict) or len(values) % 2:
            raise broken_pickle("it sets entries of what is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Longer numbers could be chosen to collide, others could hide an endless value.
            is_short = type(key) is int and key.bit_length() <= _LONGEST_KEY
            if type(key) is not str and not is_short and not (isinstance(key, Global) and key.is_key):
                raise broken_pickle("a key of a dictionary is neither text nor number")
            target[key] = value

    def set_marked(self, _: None, __: int) -> None:
        values = self.pop_marked()
        self.set_items(self.top(), values)

    def set_one(self, _: None, __: int) -> None:
        value, key = self.pop(), self.pop()
        self.set_items(self.top(), [key, value])

    def make_dictionary(self, _: None, __: int) -> None:
        target: dict[Any, Any] = {}
        self.set_items(target, self.pop_marked())
        self.stack.append(target)

    def name_global(self, name: str, position: int) -> None:
        # The walker resolves escapes that no unpickler knows: the name must stand there as it is.
        if not self.data.startswith(name.replace(" ", "\n").encode() + b"\n", position + 1):
            raise broken_pickle("it spells a name in an odd way")
        self.push_global(name)

    def name_stacked(self, _: None, __: int) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise broken_pickle("it names something by what is no text")
        self.push_global(f"{module} {name}")

    def push_global(self, name: str) -> None:
        if name not in self.known:
            raise self.explain(name)
        self.stack.append(self.known[name])

    def call(self, _: None, __: int) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function.call is None or type(arguments) is not tuple:
            raise broken_pickle("it calls what cannot be called")
        try:
            self.stack.append(function.call(*arguments))
        except (TypeError, ValueError):
            raise broken_pickle(f"it calls {function.name} with the wrong values") from None

    def create(self, _: None, position: int) -> None:
        arguments = self.pop()
        if arguments != () or not isinstance(self.top(), Global) or self.top().kind is None:
            raise broken_pickle("it makes an object of what is no class")
        self.stack.append(arguments)
        self.call(None, position)

    def build(self, _: None, __: int) -> None:
        state, target = self.pop(), self.top()
        builder = self.builders.get(type(target))
        if builder is None:
            raise broken_pickle("it changes a value that has no parts")
        try:
            builder(target, state)
        except (TypeError, ValueError):
            raise broken_pickle("it gives an object a state that is not its own") from None

    def look_up(self, _: None, __: int) -> None:
        self.stack.append(self.load(self.pop()))


_STEPS: dict[str, Callable[[_Machine, Any, int], None]] = {
    "PROTO": _Machine.check_protocol,
    "FRAME": _Machine.check_frame,
    "NONE": lambda machine, _, __: machine.stack.append(None),
    "NEWTRUE": lambda machine, _, __: machine.stack.append(True),
    "NEWFALSE": lambda machine, _, __: machine.stack.append(False),
    "EMPTY_TUPLE": lambda machine, _, __: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _, __: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _, __: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _, __: machine.stack.append(frozenset()),
    "ADDITEMS": _Machine.forget_members,
    "TUPLE": lambda machine, _, __: machine.stack.append(tuple(machine.pop_marked())),
    "LIST": lambda machine, _, __: machine.stack.append(machine.pop_marked()),
    "DICT": _Machine.make_dictionary,
    "TUPLE1": lambda machine, _, __: machine.take_tuple(1),
    "TUPLE2": lambda machine, _, __: machine.take_tuple(2),
    "TUPLE3": lambda machine, _, __: machine.take_tuple(3),
    "APPEND": lambda machine, _, __: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _, __: machine.append(machine.pop_marked()),
    "SETITEM": _Machine.set_one,
    "SETITEMS": _Machine.set_marked,
    "MARK": _Machine.mark,
    "POP": _Machine.discard,
    "GLOBAL": _Machine.name_global,
    "STACK_GLOBAL": _Machine.name_stacked,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.create,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.look_up,
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Machine.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _Machine.push),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _Machine.push_ascii),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
}

HARMLESS = frozenset(_STEPS)
"""Names of the opcodes that are followed, besides STOP."""


def interpret(
    data: bytes,
    known: Mapping[str, Global],
    *,
    explain: Callable[[str], VocableError],
    load: Callable[[Any], Any],
    max_bytes: int = MAX_BYTES,
    max_steps: int = MAX_STEPS,
) -> tuple[Any, int]:
    """Work out the value of the pickle that `data` begins with.

    Args:
        data: at most `max_bytes` of it are looked at.
        known: stand-ins by `module name`.
        explain: the error for a name that is not known.
        load: turns a persistent identifier into a value, or raises VocableError.

    Returns:
        The value, made of None, numbers, texts, tuples, lists, dictionaries and what `known` and `load` return; and
        the length of the pickle in bytes. Values may be shared or hold themselves: do not walk them without limit.

    Raises:
        VocableError: `embedding.unreadable` with the reason.
    """
    machine = _Machine(data[:max_bytes], known, explain, load, max_steps)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return machine.run()
    except (ValueError, DeprecationWarning) as error:
        raise broken_pickle(f"it is malformed ({ascii(str(error))[1:81]})") from None


def broken_pickle(problem: str) -> VocableError:
    hint = "Copy or download the file again; nothing in it was run."
    return VocableError("embedding.unreadable", f"The pickled file cannot be read: {problem}.", hint)
