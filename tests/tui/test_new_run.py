"""The form for a new run, before a service on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from daemon.paths import Workspace
from engine.recipe import build_recipe, iter_fields
from tests.tui.conftest import open_app, screen_text, see, see_no, until
from tests.tui.fake_daemon import FakeDaemon, make_run
from tui.screens.new_run import COUNT_DELAY_S, LABELS, NewRunScreen, describe_schedule, list_templates
from tui.screens.run_kinds import hidden_paths
from tui.screens.runs import RunsScreen
from tui.widgets.field import Field


@asynccontextmanager
async def open_form(workspace: Workspace, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    async with open_app(workspace, size=size) as pilot:
        await see(pilot, "connected")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen) and bool(pilot.app.screen.query(Field)))
        yield pilot


def field(pilot: Pilot[None], path: str) -> Field:
    return next(field for field in pilot.app.screen.query(Field) if field.path == path)


def hint(pilot: Pilot[None], path: str) -> str:
    return str(field(pilot, path).query_one(".hint").visual)


async def fill(pilot: Pilot[None], **values: str) -> None:
    """Type values into fields; dots of their paths are written as double underscores."""
    for path, value in values.items():
        field(pilot, path.replace("__", ".")).query_one(Input).value = value
    await pilot.pause()


def accepted(daemon: FakeDaemon) -> list[dict[str, object]]:
    return list(daemon.recipes.values())


@pytest.fixture
def pictures(workspace: Workspace) -> Path:
    folder = workspace.datasets / "sunny"
    folder.mkdir(parents=True)
    return folder


async def test_a_filled_form_becomes_a_run_that_is_chosen(
    workspace: Workspace, daemon: FakeDaemon, pictures: Path
) -> None:
    daemon.add(make_run("old", "other"))
    async with open_form(workspace) as pilot:
        await pilot.press(*"sunny", "enter", *"sunny", "enter", *"girl", "f2")
        await see(pilot, "sunny is queued.", "id new001")
        assert isinstance(pilot.app.screen, RunsScreen)
    (recipe,) = accepted(daemon)
    assert build_recipe(recipe) == build_recipe(
        {"name": "sunny", "start": {"init_text": "girl"}, "data": {"folder": "sunny"}}
    )


async def test_what_is_typed_goes_to_the_service_and_a_path_from_here_becomes_absolute(
    workspace: Workspace, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cats").mkdir()
    monkeypatch.chdir(tmp_path)
    async with open_form(workspace) as pilot:
        await fill(
            pilot,
            name="my cat",
            data__folder="cats",
            start__init_text="cat",
            start__vectors="8",
            train__steps="1200",
            train__learn_rate="0.005:100, 1e-3",
        )
        await pilot.press("f2")
        await see(pilot, "my cat is queued.")
    recipe = build_recipe(accepted(daemon)[0])
    assert recipe.data.folder == str(tmp_path / "cats")
    assert (recipe.start.vectors, recipe.train.steps, recipe.train.learn_rate) == (8, 1200, "0.005:100, 1e-3")


async def test_defaults_and_help_are_the_recipe_s(workspace: Workspace, daemon: FakeDaemon) -> None:
    known = {path: (help, default) for path, help, default in iter_fields()}
    async with open_form(workspace, size=(80, 40)) as pilot:
        for path in ("start.vectors", "train.steps", "train.learn_rate", "data.template", "model"):
            assert field(pilot, path).text == str(known[path][1])
            assert hint(pilot, path) == known[path][0]
        text = screen_text(pilot)
    assert all((label in text) != (path in hidden_paths("embedding")) for path, label in LABELS.items())


async def test_a_hypernetwork_has_fields_and_defaults_of_its_own(
    workspace: Workspace, daemon: FakeDaemon, pictures: Path
) -> None:
    async with open_form(workspace, size=(80, 40)) as pilot:
        await fill(pilot, name="ink", data__folder="sunny", train__steps="700", kind="hypernetwork")
        text = await see(pilot, "Layers", "Activation")
        assert "Init text" not in text
        assert "Vectors" not in text
        assert field(pilot, "train.learn_rate").text == "1e-5"
        assert field(pilot, "start.sizes").text == "1, 2, 1"
        await fill(pilot, start__sizes="1, 0.5, 1", start__activation="relu")
        await pilot.press("f2")
        await see(pilot, "ink is queued.")
    recipe = build_recipe(accepted(daemon)[0])
    assert (recipe.kind, recipe.start.sizes, recipe.start.activation) == ("hypernetwork", (1, 0.5, 1), "relu")
    assert (recipe.train.learn_rate, recipe.train.steps, recipe.data.template) == ("1e-5", 700, "hypernetwork")


async def test_a_kind_that_is_taken_back_leaves_the_form_as_it_was(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with open_form(workspace) as pilot:
        before = {path: field(pilot, path).text for path in LABELS}
        await fill(pilot, kind="hypernetwork")
        await fill(pilot, train__learn_rate="2e-5")
        await fill(pilot, kind="embedding")
        after = {path: field(pilot, path).text for path in LABELS}
        await see(pilot, "Init text", "Vectors")
    assert after == before | {"train.learn_rate": "2e-5"}


async def test_nobody_is_told_off_before_he_leaves_a_field(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with open_form(workspace) as pilot:
        await pilot.press(*"a/b")
        assert "may hold" not in screen_text(pilot)
        await pilot.press("tab")
        await see(pilot, "Name 'a/b' may hold letters, digits, blanks")
        assert "Images is missing" not in screen_text(pilot)
        await pilot.press("shift+tab", "backspace", "backspace", "tab")
        await see_no(pilot, "may hold letters")
        assert "Images is missing" in screen_text(pilot)


async def test_wrong_values_are_marked_all_at_once_and_nothing_is_sent(
    workspace: Workspace, daemon: FakeDaemon, pictures: Path
) -> None:
    async with open_form(workspace, size=(80, 40)) as pilot:
        await fill(pilot, name="ok", start__vectors="many", train__steps="0", train__learn_rate="0.005:x")
        await pilot.press("f2")
        text = await see(pilot, "5 fields are not right yet.", "Images is missing", "Init text is missing")
        assert "not 'many'" in text
        assert "greater than or equal to 1, not '0'" in text
        assert "'0.005:x' is not a learning rate" in text
        assert field(pilot, "data.folder").has_focus_within
    assert accepted(daemon) == []
    assert ("POST", "/v1/runs") not in daemon.requests


async def test_what_only_the_service_knows_comes_back_under_the_fields(
    workspace: Workspace, daemon: FakeDaemon, pictures: Path
) -> None:
    faults = [
        {"path": "data.folder", "message": "holds no pictures"},
        {"path": "model", "message": "is not known: stater; did you mean starter?"},
        {"path": "preview.sampler", "message": "is too slow"},
    ]
    daemon.refusal = {"code": "recipe.invalid", "title": "The recipe has 3 faults.", "hint": "", "faults": faults}
    async with open_form(workspace) as pilot:
        await fill(pilot, name="cat", data__folder="sunny", start__init_text="cat", model="stater")
        await pilot.press("f2")
        await see(pilot, "Images holds no pictures", "did you mean starter?", "preview.sampler: is too slow")
        assert field(pilot, "data.folder").has_focus_within
        # A fault of the service stands until its own field changes.
        await pilot.press("tab", "tab")
        await see(pilot, "Images holds no pictures")
        await fill(pilot, model="starter")
        await until(pilot, lambda: "did you mean" not in hint(pilot, "model"))
        daemon.refusal = None
        await pilot.press("f2")
        await see(pilot, "cat is queued.")


async def test_a_folder_that_is_not_there_is_said_on_leaving_the_field(
    workspace: Workspace, daemon: FakeDaemon
) -> None:
    async with open_form(workspace) as pilot:
        await pilot.press("enter", *"/nowhere", "enter")
        await see(pilot, "Images there is no folder /nowhere")


async def test_a_broken_line_keeps_the_form_and_sending_again_makes_one_run(
    workspace: Workspace, daemon: FakeDaemon, pictures: Path
) -> None:
    daemon.drops_commands = True
    async with open_form(workspace) as pilot:
        await fill(pilot, name="cat", data__folder="sunny", start__init_text="cat")
        await pilot.press("f2")
        await see(pilot, "F2 sends it again; it makes one run only.")
        daemon.drops_commands = False
        await pilot.press("f2")
        await see(pilot, "cat is queued.")
    assert daemon.requests.count(("POST", "/v1/runs")) == 2
    assert len(daemon.runs) == 1


async def test_with_the_daemon_gone_the_form_stays_and_says_why(
    workspace: Workspace, daemon: FakeDaemon, pictures: Path
) -> None:
    async with open_form(workspace) as pilot:
        await fill(pilot, name="cat", data__folder="sunny", start__init_text="cat")
        await daemon.die()
        await see(pilot, "The daemon is not running.", "What you wrote stays here.")
        await pilot.press("f2")
        await see(pilot, "The line to the service is down")
        assert field(pilot, "name").text == "cat"
        await daemon.start()
        pilot.app.link.retry_now()  # type: ignore[attr-defined]
        await see(pilot, "reconnected")
        await pilot.press("f2")
        await see(pilot, "cat is queued.")


async def test_an_untouched_form_is_left_at_once_and_an_edited_one_after_a_question(
    workspace: Workspace, daemon: FakeDaemon
) -> None:
    async with open_form(workspace) as pilot:
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("n")
        await until(pilot, lambda: bool(pilot.app.screen.query(Field)))
        await pilot.press("x", "escape")
        await see(pilot, "Leave this form?", "What you wrote here is lost.")
        await pilot.press("escape")
        await see_no(pilot, "Leave this form?")
        assert field(pilot, "name").text == "x"
        await pilot.press("ctrl+q")
        await see(pilot, "Leave Vocable?")
        await pilot.press("n", "escape", "y")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_folders_are_completed_with_the_right_arrow(
    workspace: Workspace, daemon: FakeDaemon, pictures: Path
) -> None:
    async with open_form(workspace) as pilot:
        await pilot.press("enter", *"sun")
        await see(pilot, "sunny")
        await pilot.press("right")
        assert field(pilot, "data.folder").text == "sunny"


async def test_a_schedule_is_told_in_words(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with open_form(workspace) as pilot:
        await fill(pilot, train__learn_rate="0.005:100, 1e-3")
        field(pilot, "train.learn_rate").focus_input()
        await pilot.press("tab")
        await see(pilot, "0.005 until step 100, then 0.001 until step 500")


async def test_foreign_text_in_faults_is_escaped(workspace: Workspace, daemon: FakeDaemon, pictures: Path) -> None:
    hostile = "\x1b[31m[red]\u202e"
    faults = [{"path": "model", "message": hostile}]
    daemon.refusal = {"code": "recipe.invalid", "title": "The recipe has 1 fault.", "hint": "", "faults": faults}
    async with open_form(workspace) as pilot:
        await fill(pilot, name="cat", data__folder="sunny", start__init_text="cat")
        await pilot.press("f2")
        await see(pilot, "Model \\x1b[31m[red]\\u202e")


async def test_the_form_s_keys_are_explained(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with open_form(workspace) as pilot:
        await pilot.press("f1")
        await see(pilot, "New run", "Check the form and queue the run.", "Take over the grey completion.")


def test_schedules_that_do_not_parse_are_not_told() -> None:
    assert describe_schedule("0.005:x", "500") == ""
    assert describe_schedule("0.005", "many") == ""


def test_templates_are_the_shipped_ones_and_the_workspace_s(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("[name]")
    assert {"mine", "subject_filewords"} <= set(list_templates(tmp_path))
    assert "subject_filewords" in list_templates(tmp_path / "absent")


async def test_the_previews_prompt_is_counted_while_it_is_written(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with open_form(workspace) as pilot:
        await fill(pilot, name="lyra", start__vectors="6", preview__prompt="ink drawing of [name]")
        await until(pilot, lambda: hint(pilot, "preview.prompt") == "9 / 75 tokens, words: lyra")
        await fill(pilot, start__vectors="8")
        await until(pilot, lambda: hint(pilot, "preview.prompt") == "11 / 75 tokens, words: lyra")
        await fill(pilot, preview__prompt="")
        await until(pilot, lambda: hint(pilot, "preview.prompt").startswith("Prompt, with [name]"))


async def test_a_form_that_is_left_while_its_tokens_are_counted_is_left(
    workspace: Workspace, daemon: FakeDaemon
) -> None:
    async with open_form(workspace) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, NewRunScreen)
        gone = field(pilot, "preview.prompt")
        await fill(pilot, preview__prompt="a cat")
        screen.dismiss(None)
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and not gone.is_attached)
        gone.show_help("late")
        await pilot.pause(1.5 * COUNT_DELAY_S)
        assert isinstance(pilot.app.screen, RunsScreen)
