"""What the tasks of the terminal program tell its screens; tasks never touch a widget."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from daemon.protocol.service import State, StreamLine
from tui.link import LinkState


@dataclass
class LinkChanged(Message):
    """The line came up, went down, or tries again."""

    state: LinkState


@dataclass
class SnapshotTaken(Message):
    """Everything anew, after a connection or a doubt."""

    state: State


@dataclass
class LineReceived(Message):
    """A fact or a gauge."""

    line: StreamLine


@dataclass
class ViewChanged(Message):
    """The screen has something new to show; sent at most twice a second."""
