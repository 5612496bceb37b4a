"""What is said about a picture: the text file beside it, or else words taken from its file name.

Called by preflight (to find unreadable files early), training and evaluation. No torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import VocableError

MAX_CAPTION_BYTES = 64 * 1024
"""Longer than any caption; what is larger is some other text file."""

_LEADING_NUMBER = re.compile(r"^[-\d]+\s*")


def read_caption(picture: Path, *, word_regex: str = "", word_join: str = " ") -> str:
    """The caption of `picture` on one line: from `<stem>.txt` beside it when there is one, else from the name.

    Raises:
        VocableError: `dataset.caption` when the text file cannot be read, is too large or is not UTF-8.
    """
    path = picture.with_suffix(".txt")
    if not path.is_file():
        return caption_from_name(picture.stem, word_regex=word_regex, word_join=word_join)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        raise _fault(path, f"could not be read ({error.strerror})", "Check its permissions.") from error
    if len(data) > MAX_CAPTION_BYTES:
        raise _fault(path, f"is larger than {MAX_CAPTION_BYTES // 1024} KiB", "Shorten it, or move it elsewhere.")
    try:
        return " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise _fault(path, f"is not UTF-8 (byte {error.start + 1})", "Save it as UTF-8.") from None


def caption_from_name(stem: str, *, word_regex: str = "", word_join: str = " ") -> str:
    """Make a caption of a file name without its ending.

    A leading number with its dashes and blanks is dropped. Then, with `word_regex`, every match counts as one word and
    they are joined by `word_join`; of a match with groups, the groups that took part are the words. Bytes of the name
    that are no UTF-8 are left out: no tokenizer takes them.
    """
    text = _LEADING_NUMBER.sub("", stem.encode("utf-8", "ignore").decode())
    if word_regex:
        matches = re.finditer(word_regex, text)
        words = [word for match in matches for word in (match.groups() or (match.group(),)) if word]
        text = word_join.join(words)
    return " ".join(text.split())


def _fault(path: Path, what: str, hint: str) -> VocableError:
    return VocableError("dataset.caption", f"The caption '{path}' {what}.", hint)
