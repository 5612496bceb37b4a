"""What a word may be called: one rule for recipes, files and folders, used by engine and daemon."""

from __future__ import annotations

import unicodedata

MAX_LENGTH = 64
"""Longest name in characters; leaves room for `-STEP.safetensors` inside the 255 bytes of a file name."""

_PUNCTUATION = frozenset("._- ")
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))})


def name_fault(name: str) -> str:
    """Say why `name` cannot name a word, or return an empty string when it can.

    A name is one path component on every system: letters and digits of any script, and `. _ -` and blanks
    inside; in normal form C, so that two spellings of one name cannot exist side by side.
    """
    if not name:
        return "is empty; give the word a name"
    if len(name) > MAX_LENGTH:
        return f"is {len(name)} characters long; at most {MAX_LENGTH} are possible"
    if name != unicodedata.normalize("NFC", name):
        return "is not in Unicode normal form C; type it afresh"
    wrong = sorted({char for char in name if not (char.isalnum() or char in _PUNCTUATION)})
    if wrong:
        shown = " ".join(char if char.isprintable() else f"U+{ord(char):04X}" for char in wrong)
        return f"may hold letters, digits, blanks and . _ - only, not {shown}"
    if name[0] in "._- " or name[-1] in ". ":
        return "may not begin with a dot, dash, underscore or blank, nor end with a dot or blank"
    if name.split(".")[0].casefold() in _RESERVED:
        return "is a device name on Windows; choose another"
    return ""


def sanitize_name(text: str) -> str:
    """Make the nearest lawful name out of foreign text (a file stem, say); empty when nothing is left."""
    kept = "".join(char for char in unicodedata.normalize("NFKC", text) if char.isalnum() or char in _PUNCTUATION)
    kept = unicodedata.normalize("NFC", kept)[:MAX_LENGTH].lstrip("._- ").rstrip(". ")
    return "" if name_fault(kept) else kept


def fold_name(name: str) -> str:
    """What names are compared by: without regard to case, in normal form C."""
    return name if name.isascii() and name.islower() else unicodedata.normalize("NFC", name.casefold())
