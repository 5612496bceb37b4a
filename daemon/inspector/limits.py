"""What a child of the inspector may take, by the size of its question. Supervisor, fork server and child go by this.

Files up to LARGE get the same. Above are hypernetworks only, of which real ones have 80 to 450 MB: reading one and
making its canonical file takes a multiple of its size.
"""

from __future__ import annotations

LARGE = 64 << 20
"""Bytes of a question above which it gets more."""

_ADDRESS_SPACE = 1 << 30
_SPACE_FACTOR = 8
"""For each byte above LARGE: the question itself, numbers in half precision that double, and the answer."""

_CPU_S = 10
_BYTES_PER_S = 16 << 20
"""One second more for so many bytes above LARGE, on a slow machine."""

_ANSWER = 96 << 20


def address_space(size: int) -> int:
    """Bytes that a child may map; some hundred million of them numpy and its libraries only reserve."""
    return _ADDRESS_SPACE + _SPACE_FACTOR * max(0, size - LARGE)


def cpu_s(size: int) -> int:
    """Seconds of processor time."""
    return _CPU_S + extra_s(size)


def extra_s(size: int) -> int:
    """Seconds that a question may take beyond those of a small one."""
    return max(0, size - LARGE) // _BYTES_PER_S


def answer_bytes(size: int) -> int:
    """Longest answer: half precision doubles when it becomes canonical."""
    return _ANSWER + 2 * size
