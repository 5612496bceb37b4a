"""Which kind of picture this terminal can show, found out before the screen opens.

Called once by `app.run`, while the terminal still answers to us alone. The question that every terminal answers comes
last, so when its reply is in, no other reply can follow and be taken for typing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import select
import struct
import termios
import time
import tty
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Renderer = Literal["off", "ascii", "half", "sixel", "kitty"]
Wanted = Literal["auto", "off", "ascii", "half", "sixel", "kitty"]

REPLY_TIMEOUT_S = 1.0
"""Longer than a line around the world takes; a terminal that never answers costs this once."""

_KITTY_QUERY = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_CELL_QUERY = b"\x1b[16t"
_ATTRIBUTES_QUERY = b"\x1b[c"

_KITTY_REPLY = re.compile(rb"\x1b_Gi=31;OK\x1b\\")
_CELL_REPLY = re.compile(rb"\x1b\[6;(\d{1,4});(\d{1,4})t")
_ATTRIBUTES_REPLY = re.compile(rb"\x1b\[\?([\d;]*)c")

_CACHE_ENTRIES = 32


@dataclass(frozen=True)
class Replies:
    """What a terminal said of itself."""

    sixel: bool = False
    kitty: bool = False
    cell_width: int = 10
    cell_height: int = 20
    """Size of a character cell in pixels; the defaults are those of the VT340."""


@dataclass(frozen=True)
class Terminal:
    """How pictures are shown here."""

    renderer: Renderer
    """What to begin with."""
    possible: tuple[Renderer, ...]
    """What the user may switch to, in order."""
    cell_width: int = 10
    cell_height: int = 20

    def after(self, renderer: Renderer) -> Renderer:
        """The next possible way to show pictures."""
        place = self.possible.index(renderer) if renderer in self.possible else -1
        return self.possible[(place + 1) % len(self.possible)]


def examine_terminal(wanted: Wanted, environ: Mapping[str, str], in_fd: int, out_fd: int, cache: Path) -> Terminal:
    """Decide how to show pictures; asks the terminal only when nothing else decides.

    Args:
        in_fd, out_fd: the terminal; asked when both are one.
        cache: file that remembers replies for as long as the line or the terminal program is the same.
    """
    is_tty = os.isatty(in_fd) and os.isatty(out_fd)
    decided = decide_unasked(wanted, environ, is_tty=is_tty)
    if decided in ("off", "ascii", "half") or not is_tty:
        width, height = _cell_from_kernel(out_fd) or (Replies.cell_width, Replies.cell_height)
        first = decided or "half"
        return Terminal(first, _cycle(first, Replies()), width, height)
    replies = _recall(cache, environ) or _ask_and_remember(in_fd, out_fd, cache, environ)
    cell = _cell_from_kernel(out_fd) or (replies.cell_width, replies.cell_height)
    first = decided or choose_renderer(replies)
    return Terminal(first, _cycle(first, replies), *cell)


def decide_unasked(wanted: Wanted, environ: Mapping[str, str], *, is_tty: bool) -> Renderer | None:
    """What the user, the environment or the lack of a terminal decide; None when only the terminal can tell."""
    if wanted != "auto":
        return wanted
    if not is_tty or environ.get("TERM") == "dumb":
        return "off"
    if "NO_COLOR" in environ or environ.get("TERM") == "linux":
        return "ascii"
    if environ.get("TMUX") or environ.get("STY"):
        return "half"
    return None


def choose_renderer(replies: Replies) -> Renderer:
    """Sixel goes before Kitty's protocol, since several terminals claim the latter without its placeholders."""
    if replies.sixel:
        return "sixel"
    return "kitty" if replies.kitty else "half"


def ask_terminal(in_fd: int, out_fd: int, timeout_s: float = REPLY_TIMEOUT_S) -> Replies:
    """Ask for Kitty graphics, cell size and device attributes, and read until the last reply or the deadline.

    Whatever was typed meanwhile is dropped with the replies.
    """
    before = termios.tcgetattr(in_fd)
    deadline = time.monotonic() + timeout_s
    received = b""
    try:
        tty.setcbreak(in_fd, termios.TCSANOW)
        os.write(out_fd, _KITTY_QUERY + _CELL_QUERY + _ATTRIBUTES_QUERY)
        while not _ATTRIBUTES_REPLY.search(received) and (left := deadline - time.monotonic()) > 0:
            if select.select([in_fd], [], [], left)[0]:
                chunk = os.read(in_fd, 4096)
                if not chunk:
                    break
                received += chunk
    finally:
        termios.tcsetattr(in_fd, termios.TCSAFLUSH, before)
    return parse_replies(received)


def parse_replies(received: bytes) -> Replies:
    """Read the replies out of whatever came in."""
    attributes = _ATTRIBUTES_REPLY.search(received)
    cell = _CELL_REPLY.search(received)
    height, width = (int(cell[1]), int(cell[2])) if cell else (0, 0)
    return Replies(
        sixel=bool(attributes) and b"4" in attributes[1].split(b";")[1:] if attributes else False,
        kitty=bool(_KITTY_REPLY.search(received)),
        cell_width=width or Replies.cell_width,
        cell_height=height or Replies.cell_height,
    )


def _cycle(first: Renderer, replies: Replies) -> tuple[Renderer, ...]:
    offered: dict[Renderer, bool] = {
        "half": True,
        "sixel": replies.sixel,
        "kitty": replies.kitty,
        "ascii": True,
        "off": True,
    }
    return tuple(renderer for renderer, possible in offered.items() if possible or renderer == first)


def _cell_from_kernel(fd: int) -> tuple[int, int] | None:
    try:
        packed = fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return None
    rows, columns, width, height = struct.unpack("HHHH", packed)
    return (width // columns, height // rows) if rows and columns and width >= columns and height >= rows else None


def _ask_and_remember(in_fd: int, out_fd: int, cache: Path, environ: Mapping[str, str]) -> Replies:
    replies = ask_terminal(in_fd, out_fd)
    key = _cache_key(environ)
    if key:
        entries = dict(list(_read_cache(cache).items())[-_CACHE_ENTRIES + 1 :])
        entries[key] = asdict(replies)
        _write_cache(cache, entries)
    return replies


def _recall(cache: Path, environ: Mapping[str, str]) -> Replies | None:
    entry = _read_cache(cache).get(_cache_key(environ))
    try:
        return Replies(**entry) if isinstance(entry, dict) else None
    except TypeError:
        return None


def _cache_key(environ: Mapping[str, str]) -> str:
    """One line or terminal program; empty when nothing tells this terminal from another."""
    if not (environ.get("SSH_CONNECTION") or environ.get("TERM_PROGRAM")):
        return ""
    names = ("SSH_CONNECTION", "SSH_TTY", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM")
    return hashlib.sha256("\0".join(environ.get(name, "") for name in names).encode(errors="replace")).hexdigest()[:16]


def _read_cache(cache: Path) -> dict[str, object]:
    try:
        entries = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write_cache(cache: Path, entries: dict[str, object]) -> None:
    """Losing this costs one question, so a folder that cannot be written is passed over."""
    temporary = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entries), "utf-8")
        temporary.replace(cache)
    except OSError:
        temporary.unlink(missing_ok=True)
