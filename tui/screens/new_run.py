"""The form for a new run: the fields nobody can guess, and those most often changed with their defaults shown.

Labels are ours; help, defaults and all rules come from the recipe. What only the service can know (is the folder there,
is the model known) comes back from it and is shown under the same fields.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.suggester import Suggester
from textual.widgets import Footer, Input, Static

from daemon.protocol.runs import RunView
from engine.errors import Fault, RecipeError, VocableError
from engine.recipe import build_recipe, iter_fields
from engine.schedule import parse_schedule
from engine.text import escape
from tui.commands import Scope, explain_key, find_command, is_offered, make_bindings
from tui.messages import ViewChanged
from tui.screens.confirm import ConfirmScreen
from tui.screens.run_kinds import ACTIVATIONS, KINDS, hidden_paths, list_defaults
from tui.widgets.completion import FolderSuggester, NameSuggester, find_images_folder
from tui.widgets.field import Field
from tui.widgets.notice_line import Kind, NoticeLine
from tui.widgets.prompt_count import count_prompt
from tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from tui.app import VocableApp

LABELS = {
    "name": "Name",
    "data.folder": "Images",
    "start.init_text": "Init text",
    "start.vectors": "Vectors",
    "kind": "Kind",
    "start.sizes": "Layers",
    "start.activation": "Activation",
    "train.steps": "Steps",
    "train.learn_rate": "Learning rate",
    "data.template": "Template",
    "model": "Model",
    "preview.prompt": "Preview prompt",
}
"""Fields of the form by their path in the recipe, in order; those that mean nothing for the run's kind are hidden."""

REQUIRED = {
    "name": "a new word, such as sunny-girl",
    "data.folder": "a path, or a name from datasets/",
    "start.init_text": "what it is in a word or two, such as girl; * for nothing in particular",
}
"""Fields that nobody can guess, with what to write there."""

COUNTED = frozenset({"preview.prompt", "name", "start.vectors", "model"})
"""Fields on which the tokens of the preview's prompt depend."""

COUNT_DELAY_S = 0.3
"""Tokens are counted when nobody has typed for so long."""


class NewRunScreen(Screen[RunView | None]):
    """Ends with the queued run, or None."""

    SCOPE: ClassVar[Scope] = "form"
    BINDINGS: ClassVar[list[BindingType]] = make_bindings("form")
    AUTO_FOCUS = "Input"
    app: VocableApp

    def __init__(self) -> None:
        super().__init__()
        self._models: list[str] = []
        self._begin: dict[str, str] = {}
        self._sent: tuple[dict[str, Any], str] | None = None
        """The values last sent and the key they went with."""
        self._is_sending = False
        self._was_stale = False
        self._count = ""
        """What the preview's prompt takes."""
        self._refused: dict[str, str] = {}
        """Faults that the service found, by path; they stand until the field changes."""

    def compose(self) -> ComposeResult:
        known = {path: help for path, help, _ in iter_fields()}
        defaults, hidden = list_defaults("embedding"), hidden_paths("embedding")
        yield Static(" New run", id="title", markup=False)
        with VerticalScroll(id="fields", can_focus=False):
            for path, label in LABELS.items():
                help, value = known[path], defaults[path]
                if path in REQUIRED:
                    # What an empty field would mean does not matter where it may not stay empty.
                    help, value = help.partition(";")[0].rstrip(".") + ".", ""
                self._begin[path] = value
                field = Field(
                    path,
                    label,
                    value=value,
                    help=help,
                    placeholder=REQUIRED.get(path, ""),
                    suggester=self._suggester(path),
                )
                field.display = path not in hidden
                yield field
        yield NoticeLine()
        yield Footer(compact=True, show_command_palette=False)
        yield TooSmall()

    def on_mount(self) -> None:
        self._fetch_models()
        self._say("F1 shows the keys. vocable train sets everything that has no field here.")

    @property
    def is_edited(self) -> bool:
        return any(field.text != self._begin[field.path] for field in self.query(Field))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        command = find_command(action)
        return True if command is None else is_offered(command, self.app.situation)

    def on_key(self, event: Any) -> None:
        reason = explain_key(event.key, "form", self.app.situation)
        if reason:
            self._say(reason, "warning")

    @on(ViewChanged)
    def _follow_link(self) -> None:
        if self.app.is_stale:
            self._say(f"{self.app.link_reason()} What you wrote stays here.", "warning")
        elif self._was_stale:
            self._say("reconnected")
        self._was_stale = self.app.is_stale

    @on(Input.Changed)
    def _forget_refusal(self, event: Input.Changed) -> None:
        field = event.input.query_ancestor(Field)
        if self._refused.pop(field.path, None) is not None:
            field.show_help()
        if field.path in COUNTED:
            self._count_tokens()
        if field.path == "kind":
            self._show_kind(field.text)

    @on(Field.Left)
    def _look_at(self, event: Field.Left) -> None:
        self._show_faults(self._find_faults()[1])

    @on(Input.Submitted)
    def _next_field(self) -> None:
        fields = [field for field in self.query(Field) if field.display]
        at = next((number for number, field in enumerate(fields) if field.has_focus_within), 0)
        if at + 1 < len(fields):
            fields[at + 1].focus_input()
        else:
            self.action_submit()

    def action_submit(self) -> None:
        if self._is_sending:
            return
        for field in self.query(Field):
            field.was_left = True
        self._refused.clear()
        values, faults = self._find_faults()
        self._show_faults(faults)
        if any(fault for path, fault in faults.items() if path != "data.folder" or not values["data"].get("folder")):
            self._point_at(faults)
        else:
            self._send(values)

    @work(exclusive=True, group="question")
    async def action_leave(self) -> None:
        question = ConfirmScreen("Leave this form?", "What you wrote here is lost.")
        if not self.is_edited or await self.app.push_screen_wait(question):
            self.dismiss(None)

    @work(exclusive=True, group="submit")
    async def _send(self, values: dict[str, Any]) -> None:
        client = self.app.link.client
        if client is None:
            self._say(self.app.link_reason(), "warning")
            return
        # The same values go with the same key, so that a request repeated after a lost line makes one run.
        if self._sent is None or self._sent[0] != values:
            self._sent = values, uuid.uuid4().hex
        self._is_sending = True
        self._say("sending" + self.app.options.glyphs.ellipsis)
        try:
            run = await client.create_run(values, self._sent[1])
        except RecipeError as error:
            self._sent = None
            self._show_refusal(error.faults)
        except VocableError as error:
            if not error.code.startswith("link."):
                self._sent = None
            again = " F2 sends it again; it makes one run only." if error.code.startswith("link.") else ""
            self._say(escape(f"{error.title} {error.hint}".strip()) + again, "error")
        else:
            self.app.add_run(run)
            self.app.say(f"{escape(run.name)} is {run.state}.")
            self.dismiss(run)
        finally:
            self._is_sending = False

    @work(exclusive=True, group="models")
    async def _fetch_models(self) -> None:
        """Names for completion only, so a service that does not tell them costs nothing else."""
        if self.app.link.client is not None:
            try:
                self._models = [model.name for model in await self.app.link.client.models()]
            except VocableError:
                self._models = []

    @work(exclusive=True, group="tokens")
    async def _count_tokens(self) -> None:
        await asyncio.sleep(COUNT_DELAY_S)
        fields = {field.path: field for field in self.query(Field)}
        client = self.app.link.client
        if not fields.keys() >= COUNTED:
            return  # the form is being left
        prompt, self._count = fields["preview.prompt"], ""
        if prompt.text and client is not None:
            values = {path.split(".")[-1]: fields[path].text for path in COUNTED - {prompt.path}}
            values["vectors"] = values["vectors"] if fields["start.vectors"].display else ""
            self._count = await count_prompt(client, prompt.text, **values)
        if not prompt.has_class("-wrong"):
            prompt.show_help(self._explain(prompt))

    def _show_kind(self, kind: str) -> None:
        """Show the fields of a kind; what nobody changed becomes what the kind begins with."""
        if kind not in KINDS:
            return
        hidden, defaults = hidden_paths(kind), list_defaults(kind)
        others = [list_defaults(other) for other in KINDS]
        for field in self.query(Field):
            field.display = field.path not in hidden
            is_untouched = field.text in {other[field.path] for other in others}
            if is_untouched and field.path not in REQUIRED and field.path != "kind":
                field.replace_text(defaults[field.path])

    def _find_faults(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The recipe's values as nested plain values, and what is wrong, by path."""
        values: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for field in self.query(Field):
            text = field.text
            if not field.display:
                continue
            if field.path == "data.folder":
                text, fault = find_images_folder(text, Path.cwd(), self.app.workspace.datasets)
                faults[field.path] = fault
            *groups, key = field.path.split(".")
            group = values
            for name in groups:
                group = group.setdefault(name, {})
            group[key] = text
        try:
            build_recipe(values)
        except RecipeError as error:
            faults |= {fault.path: fault.message for fault in error.faults}
        for path in REQUIRED:
            if self._field(path).display and not self._field(path).text:
                faults[path] = f"is missing: {REQUIRED[path]}"
        return values, {path: fault for path, fault in faults.items() if fault}

    def _show_faults(self, faults: dict[str, str]) -> None:
        for field in self.query(Field):
            fault = self._refused.get(field.path) or faults.get(field.path, "")
            if fault and field.was_left:
                field.show_fault(escape(fault))
            else:
                field.show_help(self._explain(field))

    def _show_refusal(self, faults: list[Fault]) -> None:
        self._refused = {fault.path: fault.message for fault in faults}
        self._show_faults({})
        elsewhere = [f"{fault.path}: {fault.message}" for fault in faults if fault.path not in LABELS]
        text = "; ".join(elsewhere) or "The service refused the recipe; see the marked fields."
        self._point_at(self._refused)
        self._say(escape(text), "error")

    def _point_at(self, faults: dict[str, str]) -> None:
        first = next((field for field in self.query(Field) if field.path in faults), None)
        if first is not None:
            first.focus_input()
            first.scroll_visible(animate=False)
        count = "1 field is" if len(faults) == 1 else f"{len(faults)} fields are"
        self._say(f"{count} not right yet.", "error")

    def _explain(self, field: Field) -> str:
        """What the value means, where that says more than the help; empty otherwise."""
        if field.path == "preview.prompt":
            return self._count
        if field.path != "train.learn_rate" or "," not in field.text:
            return ""
        return describe_schedule(field.text, self._field("train.steps").text)

    def _field(self, path: str) -> Field:
        return next(field for field in self.query(Field) if field.path == path)

    def _suggester(self, path: str) -> Suggester | None:
        match path:
            case "data.folder":
                return FolderSuggester(self.app.workspace.datasets)
            case "data.template":
                return NameSuggester(lambda: list_templates(self.app.workspace.templates))
            case "model":
                return NameSuggester(lambda: self._models)
            case "kind":
                return NameSuggester(lambda: KINDS)
            case "start.activation":
                return NameSuggester(lambda: ACTIVATIONS)
        return None

    def _say(self, text: str, kind: Kind = "note") -> None:
        self.query_one(NoticeLine).show(text, kind)


def describe_schedule(text: str, steps: str) -> str:
    """A schedule in words, or nothing when it does not parse; its faults come from the recipe."""
    try:
        schedule = parse_schedule(text, int(steps))
    except (VocableError, ValueError):
        return ""
    return ", then ".join(f"{segment.rate:g} until step {segment.until}" for segment in schedule.segments)


def list_templates(folder: Path) -> Iterable[str]:
    """Names of the workspace's and the shipped templates, for completion."""
    own = {path.stem for path in folder.glob("*.txt")}
    shipped = {
        entry.name.removesuffix(".txt")
        for entry in importlib.resources.files("templates").iterdir()
        if entry.name.endswith(".txt")
    }
    return sorted(own | shipped)
