"""Captions as names of files: `00012-0-a man in suit.png`, which engine.dataset.captions reads back.

Called where pictures are written. No torch. The invariant: what comes out is a lawful name everywhere, and reading it
gives the caption that went in, but for characters that no name may hold and for what is too long.
"""

from __future__ import annotations

import re
import unicodedata

MAX_NAME_BYTES = 255
"""Longest name on the file systems there are, in bytes."""

_FORBIDDEN = re.compile(r'[/\\:*?"<>|]')
"""Forbidden on one system or another; a dataset may travel."""

_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_ESCAPED = re.compile(r"\\([\\()])")
"""As taggers write brackets for prompts; a name cannot hold the backslash."""

_EATEN = re.compile(r"[-\d]")
"""At the start of a caption, these would be taken for part of the number."""


def stem_with_caption(number: str, caption: str, *, room_bytes: int = len(".png")) -> str:
    """The name, without its ending, of a picture with this number (`00012-0`) and caption.

    Args:
        number: digits and dashes.
        caption: any text; empty leaves the number alone.
        room_bytes: what the ending, or anything else that is put to the name, needs.
    """
    caption = _clean(caption)
    gap = " " if _EATEN.match(caption) else ""
    left = MAX_NAME_BYTES - room_bytes - len(f"{number}-{gap}".encode())
    caption = _cut(caption, left)
    return f"{number}-{gap}{caption}" if caption else number


def _clean(caption: str) -> str:
    visible = "".join(" " if unicodedata.category(char) in _INVISIBLE else char for char in caption)
    plain = _ESCAPED.sub(r"\1", unicodedata.normalize("NFC", visible))
    return " ".join(_FORBIDDEN.sub(" ", plain).split())


def _cut(caption: str, size: int) -> str:
    """As many whole words as fit into `size` bytes; of a first word that is too long, as many characters."""
    data = caption.encode()
    if len(data) <= size:
        return caption
    kept = data[: size + 1].decode(errors="ignore")
    words = kept.rpartition(" ")[0] or data[:size].decode(errors="ignore")
    return words.rstrip(" ,;")
