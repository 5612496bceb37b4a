"""The newest preview of the chosen run: a picture, drawn the way this terminal can, or the reason why there is none.

Files are read and the drawing library is imported in threads; one picture widget changes its picture.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from textual import events, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from engine.errors import VocableError
from tui.pictures import Picture, draw_ascii, load_picture, load_widget
from tui.terminal import Renderer, Terminal


class Preview(Container):
    """Shows one file at a time."""

    class Loaded(Message):
        """The file was read; the screen shows its words."""

        def __init__(self, picture: Picture) -> None:
            super().__init__()
            self.picture = picture

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(id="preview")
        self._terminal = terminal
        self._renderer: Renderer = terminal.renderer
        self._path: str | None = None
        self._picture: Picture | None = None
        self._drawing: Any = None
        """The library's widget; it draws whatever its `image` is."""
        self._drawn_by: Renderer = "off"

    def compose(self) -> ComposeResult:
        yield Static(id="preview-text", markup=False)

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    def show(self, path: str) -> None:
        """Show the picture in this file, an absolute path; empty when there is none yet."""
        if path == self._path:
            return
        self._path = path
        if path:
            self._load(path)
        else:
            self._picture = None
            self._clear("no preview yet")

    def switch(self, renderer: Renderer) -> None:
        """Draw another way from now on."""
        self._renderer = renderer
        self._draw()

    def on_resize(self, _: events.Resize) -> None:
        if self._renderer == "ascii":
            self._draw()

    @work(exclusive=True, group="preview-load")
    async def _load(self, path: str) -> None:
        try:
            picture, fault = await asyncio.to_thread(load_picture, Path(path)), ""
        except VocableError as error:
            picture, fault = None, error.title
        if path != self._path or not self.is_attached:
            return
        self._picture = picture
        if picture is None:
            self._clear(fault)
        else:
            self.post_message(self.Loaded(picture))
            self._draw()

    @work(exclusive=True, group="preview-draw")
    async def _draw(self) -> None:
        picture, renderer = self._picture, self._renderer
        if picture is None:
            return
        if renderer in ("off", "ascii"):
            self._clear("picture off (v shows it)" if renderer == "off" else self._characters(picture))
            return
        if self._drawing is not None and self._drawn_by == renderer:
            self._drawing.image = picture.image
            return
        kind: Any = await asyncio.to_thread(load_widget, renderer, self._terminal)
        if picture is not self._picture or not self.is_attached:
            return
        self._clear("")
        self._drawing, self._drawn_by = kind(picture.image), renderer
        self._drawing.styles.width = self._drawing.styles.height = "auto"
        await self.mount(self._drawing)

    def _characters(self, picture: Picture) -> str:
        width, height = self.size
        if not width or not height:
            return ""
        return draw_ascii(picture.image, width, height, on_dark=self.app.current_theme.dark)

    def _clear(self, text: str) -> None:
        """Take the picture away and say `text` instead."""
        if self._drawing is not None:
            self._drawing.remove()
        self._drawing, self._drawn_by = None, "off"
        label = self.query_one("#preview-text", Static)
        label.update(Content(text))
        label.display = bool(text)
