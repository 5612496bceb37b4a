"""A dataset's pictures with their captions, and changes of captions, which can be taken back. Called in threads.

Captions are the text files beside pictures. A change names the text that it replaces, so that no edit made elsewhere
meanwhile is lost; the text that was replaced is answered, and given back undoes the change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from daemon.listings import find_dataset
from daemon.protocol.data import CaptionChange, CaptionsReply, DatasetDetail, PictureView
from daemon.runs import describe_error
from engine.dataset.captions import MAX_CAPTION_BYTES, read_caption
from engine.dataset.folder import PICTURE_SUFFIXES, natural_key
from engine.errors import VocableError
from engine.files import sync_folder, write_atomically, write_error
from engine.text import escape

MAX_PICTURES = 10_000
"""Pictures that are shown at most."""

_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def show_dataset(name: str, folders: Sequence[Path]) -> DatasetDetail:
    """A dataset with its pictures in natural order; names that cannot be shown as they are are left out.

    Raises:
        VocableError: `dataset.missing` or `dataset.unreadable`.
    """
    folder = find_dataset(name, folders)
    names = _list_names(folder)
    pictures = [entry for entry in sorted(names, key=natural_key) if _is_picture(entry) and escape(entry) == entry]
    views = [_describe(folder / picture) for picture in pictures[:MAX_PICTURES]]
    return DatasetDetail(
        name=name,
        path=escape(str(folder), 5000),
        pictures=len(pictures),
        captions=sum(Path(picture).with_suffix(".txt").name in names for picture in pictures),
        files=[view for view in views if view],
    )


def open_picture(name: str, picture: str, folders: Sequence[Path]) -> int:
    """A descriptor of one picture of a dataset; links are followed, as training does.

    Raises:
        VocableError: `dataset.missing`; `file.absent`; `file.kind`; `file.unreadable`.
    """
    path = find_dataset(name, folders) / _check_picture(picture)
    try:
        handle = os.open(path, _FILE)
    except FileNotFoundError:
        raise _absent(picture) from None
    except OSError as error:
        title = f"The picture '{escape(picture)}' cannot be read ({error.strerror})."
        raise VocableError("file.unreadable", title, "Check its permissions.") from None
    if not path.is_file():
        os.close(handle)
        raise VocableError("file.kind", f"'{escape(picture)}' is no file.", "List the dataset's pictures.")
    return handle


def change_captions(name: str, changes: Sequence[CaptionChange], folders: Sequence[Path]) -> CaptionsReply:
    """Write or remove captions, all of them or, if one is not what the change says that it was, none.

    A fault of the disk can leave some of them written, each as a whole; the error says how many.

    Raises:
        VocableError: `dataset.missing`; `file.absent`; `caption.changed`; `dataset.caption` for one that cannot be
            read, or a picture that stands twice; `disk.full` or `disk.write`.
    """
    folder = find_dataset(name, folders)
    paths = [(folder / _check_picture(change.picture)).with_suffix(".txt") for change in changes]
    if len(set(paths)) < len(paths):
        raise VocableError("dataset.caption", "Two changes are of the same caption.", "Send one for each picture.")
    for change in changes:
        if not (folder / change.picture).is_file():
            raise _absent(change.picture)
    stale = [escape(path.name) for path, change in zip(paths, changes, strict=True) if _read(path) != change.was]
    if stale:
        title = f"{len(stale)} of the captions changed meanwhile: {', '.join(stale[:5])}. Nothing was written."
        raise VocableError("caption.changed", title, "Read the dataset again, and change what is there now.")
    for done, (path, change) in enumerate(zip(paths, changes, strict=True)):
        try:
            _write(path, change.text)
        except VocableError as error:
            raise VocableError(error.code, f"{error.title} {done} captions were written before.", error.hint) from None
    return CaptionsReply(undo=[CaptionChange(picture=old.picture, text=old.was, was=old.text) for old in changes])


def _describe(path: Path) -> PictureView | None:
    try:
        status = path.stat()
    except OSError:
        return None  # it went away meanwhile
    if not stat.S_ISREG(status.st_mode):
        return None
    view = PictureView(name=path.name, size=status.st_size, modified_at=status.st_mtime_ns / 1e9)
    try:
        return view.model_copy(update={"caption": read_caption(path), "text": _read(path.with_suffix(".txt"))})
    except VocableError as error:
        return view.model_copy(update={"error": describe_error(error)})


def _read(path: Path) -> str | None:
    """The whole text of a caption file, None when there is none. Raises VocableError `dataset.caption`."""
    try:
        data = _read_bytes(path)
        if len(data) > MAX_CAPTION_BYTES:
            raise _unreadable(path, f"it is larger than {MAX_CAPTION_BYTES // 1024} KiB")
        return data.decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not UTF-8") from None


def _read_bytes(path: Path) -> bytes:
    """The beginning of a file, one byte more than a caption may have; a pipe is not waited for."""
    handle = os.open(path, _FILE)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _unreadable(path, "it is no file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(MAX_CAPTION_BYTES + 1)
    finally:
        os.close(handle)


def _write(path: Path, text: str | None) -> None:
    if text is not None:
        write_atomically(path, text.encode())
        return
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from None


def _list_names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError as error:
        title = f"The folder '{escape(str(folder), 5000)}' could not be read ({error.strerror})."
        raise VocableError("dataset.unreadable", title, "Check its permissions.") from None


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def _check_picture(name: str) -> str:
    if not _is_picture(name) or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise _absent(name)
    return name


def _absent(name: str) -> VocableError:
    title = f"The dataset has no picture '{escape(name, 200)}'."
    return VocableError("file.absent", title, "List the dataset's pictures.")


def _unreadable(path: Path, why: str) -> VocableError:
    title = f"The caption '{escape(path.name)}' cannot be read ({escape(why)})."
    return VocableError("dataset.caption", title, "Save it as a short UTF-8 text.")
