from __future__ import annotations

import itertools
import re
from typing import get_args

import pytest

from daemon.protocol.states import POSSIBLE, RunState
from tests.tui.fake_daemon import make_run
from tui.app import VocableApp
from tui.commands import COMMANDS, Command, Scope, Situation, explain_key, is_offered, make_bindings
from tui.link import LinkWord
from tui.screens.confirm import ConfirmScreen
from tui.screens.new_run import NewRunScreen
from tui.screens.runs import RunsScreen

PLAIN = re.compile(r"[!-~]|f([1-9]|1[0-2])|enter|escape|tab|space|up|down|left|right|home|end|pageup|pagedown")
"""Keys that every terminal sends and nobody on the way takes."""
EXTRA = re.compile(r"shift\+tab|ctrl\+[c-gk-oqrt-z]")
"""Keys that may be bound beside a plain one; ctrl with a, b, h, i, j, m, p and s mean something else somewhere."""
SITUATIONS = [
    Situation(link, run, is_sending)
    for link in get_args(LinkWord)
    for run in [None, *(make_run("r", "cat", state=state) for state in get_args(RunState))]
    for is_sending in (False, True)
]


def test_every_command_has_an_id_of_its_own_and_says_what_it_does() -> None:
    assert len({command.id for command in COMMANDS}) == len(COMMANDS)
    for command in COMMANDS:
        assert re.fullmatch(r"[A-Z][^.]*[^ .].*\.", command.help), command
        assert " " not in command.label, command


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.id)
def test_keys_survive_every_terminal(command: Command) -> None:
    allowed = [key for key in command.keys if PLAIN.fullmatch(key)]
    assert all(PLAIN.fullmatch(key) or EXTRA.fullmatch(key) or key == "ctrl+p" for key in command.keys)
    # Redrawing and suspending have keys that everybody knows; the palette offers them too.
    assert allowed or not command.keys or command.id in ("redraw", "suspend_process")


@pytest.mark.parametrize("scope", ["runs", "form"])
def test_no_key_means_two_things_at_once(scope: Scope) -> None:
    here = [c for c in COMMANDS if c.scope in (scope, "program") and not c.is_documentation]
    for first, second in itertools.combinations(here, 2):
        for situation in SITUATIONS:
            if set(first.keys) & set(second.keys):
                assert first.refuse(situation) or second.refuse(situation), (first.id, second.id, situation)


def test_every_command_has_its_action() -> None:
    owners = {"runs": RunsScreen, "form": NewRunScreen, "question": ConfirmScreen, "program": VocableApp}
    for command in COMMANDS:
        if not command.is_documentation and command.scope in owners:
            assert callable(getattr(owners[command.scope], f"action_{command.id}", None)), command.id


def test_the_plot_has_the_actions_of_its_keys() -> None:
    from tui.widgets.plot_canvas import PlotCanvas

    for command in COMMANDS:
        if command.scope == "plot":
            assert callable(getattr(PlotCanvas, f"action_{command.id}", None)), command.id


@pytest.mark.parametrize("state", get_args(RunState))
def test_pausing_resuming_and_stopping_are_offered_as_the_protocol_allows(state: RunState) -> None:
    situation = Situation(run=make_run("r", "cat", state=state))
    for command in COMMANDS:
        if command.id.endswith("_run") and command.id != "new_run":
            verb = command.id.removesuffix("_run")
            assert (is_offered(command, situation) is True) == (verb in POSSIBLE[state])


def test_one_of_two_commands_on_a_key_is_always_shown() -> None:
    pausing = [command for command in COMMANDS if command.keys[:1] == ("p",)]
    for situation in SITUATIONS:
        shown = [command for command in pausing if is_offered(command, situation) is not False]
        assert len(shown) == 1, situation


def test_a_key_that_does_nothing_says_why() -> None:
    finished = Situation(run=make_run("r", "cat", state="finished"))
    assert explain_key("p", "runs", finished) == "cat is finished and cannot be paused."
    assert explain_key("n", "runs", Situation(link="lost")).startswith("The line to the service is down")
    assert explain_key("p", "runs", Situation(run=make_run("r", "cat"))) == ""
    assert explain_key("w", "runs", finished) == ""


def test_the_footer_fits_eighty_columns_with_help_and_leaving_last() -> None:
    shown = [b for scope in ("runs", "program") for b in make_bindings(scope) if b.show]  # type: ignore[union-attr]
    shown = [b for b in shown if b.action != "resume_run"]  # type: ignore[union-attr]
    assert len(shown) <= 8
    assert sum(len(b.key_display) + len(b.description) + 2 for b in shown) <= 60  # type: ignore[union-attr, arg-type]
    assert [b.action for b in shown[-2:]] == ["show_help", "leave_program"]  # type: ignore[union-attr]
