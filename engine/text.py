"""Foreign text made harmless: file names, captions, prompts and errors before they reach a terminal or a log.

Used by engine (logs), daemon (everything it sends) and tui (which does not trust the daemon's age). No torch.
"""

from __future__ import annotations

import unicodedata

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that steer a terminal, reorder a line or show nothing: control, format (bidi, zero width, tags),
surrogate, private, unassigned, line and paragraph separators."""


def escape(text: str, limit: int = 1000) -> str:
    """Show `text` on one line, with every character that is no visible one written like `\\x1b` or `\\u202e`.

    Args:
        text: anything, lone surrogates included.
        limit: longest result in characters; what is cut is marked by an ellipsis.
    """
    normal = unicodedata.normalize("NFC", text[: limit + 1])
    shown = "".join(_visible(char) for char in normal)
    return shown if len(shown) <= limit and len(text) <= limit else f"{shown[: limit - 1]}…"


def _visible(char: str) -> str:
    if unicodedata.category(char) not in _INVISIBLE:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def end_sentence(text: str) -> str:
    """The text with the full stop that it lacks; a question has its mark already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."
