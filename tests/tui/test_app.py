"""The live screen at 80x24 before a service on a real socket."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from textual.widgets import DataTable, Footer, Static
from textual.worker import WorkerFailed

from daemon.client import socket_for
from daemon.paths import Workspace
from daemon.protocol.runs import ErrorInfo
from daemon.protocol.runs import Warning as RunWarning
from tests.tui.conftest import open_app, screen_text, see, see_no, until
from tests.tui.fake_daemon import FakeDaemon, fill_with_examples, make_losses, make_run
from tests.tui.test_pictures import write_preview
from tui.glyphs import ASCII
from tui.messages import ViewChanged
from tui.screens.runs import RunsScreen
from tui.terminal import Terminal
from tui.theme import Options, read_options
from tui.widgets.loss_plot import LossPlot
from tui.widgets.preview import Preview

HALF = Terminal("half", ("half", "ascii", "off"))

# textual-image reads pixels in a way that Pillow 14 will not know; the pinned Pillow does.
pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata is deprecated:DeprecationWarning")


def commands_sent(daemon: FakeDaemon) -> list[str]:
    return [target.rpartition("/")[2] for method, target in daemon.requests if method == "POST"]


async def test_runs_and_the_chosen_run_s_figures_are_shown(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        text = await see(pilot, "connected", "sunny-girl", "lowest")
    for shown in (
        *("▸ running", "‖ paused", "· queued", "! failed", "✓ finished"),
        *("240/500", "48 %", "3.42", "1 min 16 s"),
        *("step 240 of 500", "3.42 steps/s", "1 min 16 s left", "learning rate 0.005", "id k3x9ab"),
        *("prompt a portrait of sunny-girl", "loss 0.1184", "mean 0.1031"),
    ):
        assert shown in text, text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("theme", ["vocable-light", "vocable-dark", "nord"])
async def test_a_theme_of_the_environment_is_used(
    workspace: Workspace, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, theme: str
) -> None:
    monkeypatch.setattr("textual.constants.DEFAULT_THEME", theme)
    options = read_options({"TEXTUAL_THEME": theme})
    async with open_app(workspace, options=options) as pilot:
        await see(pilot, "No runs yet.")
        assert pilot.app.current_theme.name == theme
        wanted = pilot.app.get_theme(theme)
        assert wanted is not None
        assert pilot.app.get_css_variables()["primary"].lower() == wanted.primary.lower()


async def test_without_runs_the_screen_says_how_to_begin(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with open_app(workspace) as pilot:
        await see(pilot, "No runs yet.", "Press n to teach a new word.")


async def test_the_cursor_chooses_what_is_shown(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        await see(pilot, "id k3x9ab")
        await pilot.press("j", "j", "j")
        await see(pilot, "id f5h8rr", "error: The folder /data/hats holds no pictures.", "resume the run.")
        await pilot.press("G")
        await see(pilot, "id a6b6cc")
        await pilot.press("g")
        await see(pilot, "id k3x9ab")


async def test_gauges_and_facts_change_rows_in_place(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        await see(pilot, "240/500")
        await daemon.wait_for_stream()
        await pilot.press("j")
        await see(pilot, "id p7d2mm")
        daemon.progress("k3x9ab", step=250)
        await see(pilot, "250/500")
        daemon.change("k3x9ab", state="finished", phase="", step=500, ended_at=1e10)
        text = await see(pilot, "✓ finished    sunny-girl")
        # The cursor stays on the run that was chosen, although rows moved.
        assert "id p7d2mm" in text


async def test_a_burst_of_gauges_is_shown_at_most_twice_a_second(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat"))
    updates = 0
    async with open_app(workspace) as pilot:
        await see(pilot, "0/500")
        await daemon.wait_for_stream()
        screen = pilot.app.screen
        original = screen.post_message

        def count(message: object) -> bool:
            nonlocal updates
            updates += isinstance(message, ViewChanged)
            return original(message)  # type: ignore[arg-type]

        screen.post_message = count  # type: ignore[method-assign, assignment]
        begun = time.monotonic()
        for step in range(1, 301):
            daemon.progress("a", step=step)
        await see(pilot, "300/500")
        elapsed_s = time.monotonic() - begun
    assert updates <= 2 * elapsed_s + 2


async def test_losses_are_drawn_and_fetched_no_more_often_than_they_can_be_seen(
    workspace: Workspace, daemon: FakeDaemon
) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        await until(pilot, lambda: bool(pilot.app.screen.query("PlotCanvas")))
        await see(pilot, "lowest", "0.1")
        await daemon.wait_for_stream()
        for step in range(241, 261):
            daemon.progress("k3x9ab", step=step)
        await see(pilot, "260/500")
        fetched = [target for _, target in daemon.requests if "/losses" in target]
        assert len(fetched) <= 2


async def test_the_plot_zooms_and_goes_back_to_following(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        await until(pilot, lambda: bool(pilot.app.screen.query("PlotCanvas")))
        await pilot.press("tab")
        canvas = pilot.app.screen.query_one("PlotCanvas")
        assert canvas.has_focus
        assert (canvas._x_min, canvas._x_max) == (0, 500)  # type: ignore[attr-defined]
        await pilot.press("+")
        assert canvas._x_max < 500  # type: ignore[attr-defined]
        zoomed = canvas._x_max  # type: ignore[attr-defined]
        daemon.losses["k3x9ab"] = make_losses(300, 150)
        await daemon.wait_for_stream()
        daemon.progress("k3x9ab", step=300)
        loss = pilot.app.screen.query_one(LossPlot)
        await until(pilot, lambda: len(loss._points) == 150)
        assert canvas._x_max == zoomed  # type: ignore[attr-defined]
        await pilot.press("a")
        assert (canvas._x_min, canvas._x_max) == (0, 500)  # type: ignore[attr-defined]


async def test_p_pauses_and_resumes_and_s_stops_only_after_yes(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat", step=7))
    async with open_app(workspace) as pilot:
        await see(pilot, "▸ running", "p Pause")
        await pilot.press("p")
        await see(pilot, "‖ paused", "p Resume")
        await pilot.press("p")
        await see(pilot, "· queued", "p Pause")
        await pilot.press("s")
        await see(pilot, "Stop cat at step 7 of 500?", "Its embedding is saved")
        await pilot.press("enter")
        await see_no(pilot, "Stop cat")
        assert commands_sent(daemon) == ["pause", "resume"]
        await pilot.press("s")
        await see(pilot, "Stop cat at step 7 of 500?")
        await pilot.press("y")
        await see(pilot, "■ stopped")
        assert commands_sent(daemon) == ["pause", "resume", "stop"]


async def test_an_impossible_key_says_why(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat", state="finished", step=500))
    async with open_app(workspace) as pilot:
        await see(pilot, "✓ finished")
        await pilot.press("p")
        await see(pilot, "cat is finished and cannot be paused.")
        await pilot.press("s")
        await see(pilot, "cat is finished and cannot be stopped.")
        assert commands_sent(daemon) == []


async def test_what_the_service_refuses_is_said_with_its_hint(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat"))
    daemon.refusal = {"code": "run.state", "title": "The run has just ended.", "hint": "Look again."}
    async with open_app(workspace) as pilot:
        await see(pilot, "▸ running")
        await pilot.press("p")
        await see(pilot, "error: The run has just ended. Look again.", "▸ running")


async def test_a_command_on_a_broken_line_is_not_believed(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat"))
    daemon.drops_commands = True
    async with open_app(workspace) as pilot:
        await see(pilot, "▸ running")
        await pilot.press("p")
        await see(pilot, "The line broke before cat confirmed 'pause'")
        daemon.drops_commands = False
        await see(pilot, "‖ paused")


async def test_freezing_keeps_the_picture_and_lets_data_come_in(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat", step=10))
    async with open_app(workspace) as pilot:
        await see(pilot, "10/500")
        await daemon.wait_for_stream()
        await pilot.press("z")
        await see(pilot, "FROZEN at", "connected")
        daemon.progress("a", step=99)
        await until(pilot, lambda: pilot.app.view.runs[0].step == 99)  # type: ignore[attr-defined]
        await pilot.pause(0.6)
        assert "10/500" in screen_text(pilot)
        await pilot.press("z")
        await see(pilot, "99/500")
        await see_no(pilot, "FROZEN")


async def test_with_no_daemon_the_screen_opens_says_so_and_finds_one_later(workspace: Workspace) -> None:
    async with open_app(workspace) as pilot:
        await see(pilot, "daemon not running (S = start it)", "The daemon is not running. S starts it.")
        await pilot.press("n")
        await see(pilot, "warning: The daemon is not running; S starts it.")
        daemon = FakeDaemon(socket_for(workspace))
        daemon.add(make_run("a", "cat"))
        await daemon.start()
        try:
            await pilot.press("r")
            await see(pilot, "connected", "cat")
        finally:
            await daemon.die()


async def test_when_the_daemon_dies_data_stays_with_its_time_and_nothing_can_be_changed(
    workspace: Workspace, daemon: FakeDaemon
) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        await see(pilot, "connected", "id k3x9ab")
        await daemon.die()
        await see(pilot, "lost", "as of ", "(r = now)", "sunny-girl", "step 240 of 500", "The daemon is not running")
        assert pilot.app.screen.has_class("-stale")
        sent = len(daemon.requests)
        await pilot.press("p")
        await see(pilot, "The line to the service is down; what you see is old.")
        await pilot.press("j")
        await see(pilot, "id p7d2mm")
        await pilot.press("question_mark")
        await see(pilot, "Keys", "esc closes")
        await pilot.press("escape")
        assert len(daemon.requests) == sent
        daemon.boot_id = "boot2"
        daemon.runs["p7d2mm"] = daemon.runs["p7d2mm"].model_copy(update={"step": 1234})
        await daemon.start()
        await pilot.press("r")
        await see(pilot, "reconnected", "connected", "1234/3000")
        assert not pilot.app.screen.has_class("-stale")
        await see_no(pilot, "as of")


async def test_another_version_is_said_and_the_daemon_is_not_started_again(
    workspace: Workspace, daemon: FakeDaemon
) -> None:
    daemon.api = 7
    async with open_app(workspace) as pilot:
        await see(pilot, "wrong version", "version 7 of the protocol", "vocable daemon stop")
        await pilot.press("S")
        await see(pilot, "The daemon is running.")


async def test_a_silent_daemon_is_noticed(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat"))
    async with open_app(workspace, silence_timeout_s=0.4) as pilot:
        await see(pilot, "cat")
        await see(pilot, "fallen silent")


async def test_a_degraded_service_and_a_failed_worker_are_told(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.problem = "The disk is full."
    async with open_app(workspace) as pilot:
        await see(pilot, "warning: The disk is full.")
        await daemon.wait_for_stream()
        daemon.fact("problem", {"problem": ""})
        daemon.fact("worker", {"state": "failed", "note": "It ended five times in ten minutes."})
        await see(pilot, "error: The worker failed: It ended five times")


async def test_errors_warnings_and_restarts_of_a_run_are_told(workspace: Workspace, daemon: FakeDaemon) -> None:
    warnings = [RunWarning(code="x", title=f"Picture {n} could not be read.", step=n) for n in (3, 9)]
    daemon.add(make_run("a", "cat", warnings=warnings, restarts=2))
    error = ErrorInfo(code="train.nan", title="The loss is no number.", hint="Lower the learning rate.")
    daemon.add(make_run("b", "fox", state="failed", error=error))
    async with open_app(workspace) as pilot:
        await see(pilot, "warning (2, newest at step 9): Picture 9 could not be read.", "the worker was lost 2 times")
        await pilot.press("j")
        await see(pilot, "error: The loss is no number. Lower the learning rate.")


HOSTILE = "\x1b]0;gotcha\x07[red]x[/red]\u202e[/"


async def test_foreign_text_is_shown_escaped_everywhere(workspace: Workspace, daemon: FakeDaemon) -> None:
    error = ErrorInfo(code="x", title=HOSTILE, hint=HOSTILE)
    values = {"prompt": HOSTILE, "error": error, "model": HOSTILE, "embedding": HOSTILE, "phase": HOSTILE}
    daemon.add(make_run("a", HOSTILE, **values))
    daemon.problem = HOSTILE
    async with open_app(workspace, size=(160, 50)) as pilot:
        text = await see(pilot, "\\x1b]0;gotcha\\x07[red]x[/red]\\u202e[/")
        assert "\x1b" not in text
        assert "\u202e" not in text
        await pilot.press("s")
        await see(pilot, "Stop \\x1b]0;gotcha")


async def test_the_newest_preview_is_drawn_with_its_words(
    workspace: Workspace, daemon: FakeDaemon, tmp_path: Path
) -> None:
    preview = write_preview(tmp_path / "cat-200.png")
    daemon.add(make_run("a", "cat", preview=str(preview), preview_step=200))
    async with open_app(workspace, terminal=HALF) as pilot:
        await see(pilot, "preview step 200 · seed 42 · a cat, sitting", "cat-200.png", "▀▀▀▀▀▀▀▀▀▀")
        await pilot.press("v")
        await see(pilot, "@@@@@@@@", "Previews are shown: ascii.")
        await pilot.press("v")
        await see(pilot, "picture off (v shows it)", "preview step 200")
        await pilot.press("v")
        await see(pilot, "▀▀▀▀▀▀▀▀▀▀")


async def test_a_new_preview_takes_the_place_of_the_old_one(
    workspace: Workspace, daemon: FakeDaemon, tmp_path: Path
) -> None:
    first, second = write_preview(tmp_path / "1.png"), write_preview(tmp_path / "2.png", "a fox\nSteps: 1, Seed: 8")
    daemon.add(make_run("a", "cat", preview=str(first), preview_step=100))
    async with open_app(workspace, terminal=HALF) as pilot:
        await see(pilot, "step 100 · seed 42")
        await daemon.wait_for_stream()
        daemon.change("a", preview=str(second), preview_step=200)
        await see(pilot, "step 200 · seed 8 · a fox")
        assert len(pilot.app.screen.query(Preview).only_one().query("HalfcellImage")) == 1


async def test_a_preview_that_cannot_be_read_is_said(workspace: Workspace, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.add(make_run("a", "cat", preview=str(tmp_path / "gone.png"), preview_step=1))
    async with open_app(workspace, terminal=HALF) as pilot:
        await see(pilot, "cannot be")
        await pilot.press("j")


async def test_a_run_without_a_preview_says_so(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat"))
    daemon.add(make_run("b", "fox", state="finished", loss=0.1))
    daemon.losses["b"] = make_losses(500, 100)
    async with open_app(workspace, terminal=HALF) as pilot:
        await see(pilot, "no preview yet", "no losses yet")
        await pilot.press("j")
        await see(pilot, "━━━━")
        await pilot.press("k")
        await see(pilot, "no losses yet")
        await see_no(pilot, "━━━━")


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (100, 28), (120, 40), (160, 50), (200, 60)])
async def test_nothing_important_is_cut_at_any_size(
    workspace: Workspace, daemon: FakeDaemon, size: tuple[int, int]
) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace, size=size) as pilot:
        text = await see(pilot, "connected", "sunny-girl", "step 240 of 500", "q Quit", "? Help")
        lines = text.splitlines()
        assert len(lines) == size[1]
        assert "48 %" in text
        detail = next(number for number, line in enumerate(lines) if "id k3x9ab" in line)
        assert (detail == 1) == (size[0] >= 100)


async def test_a_terminal_that_is_too_small_says_so_and_recovers(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace, size=(59, 24)) as pilot:
        text = await see(pilot, "needs 60x16, have 59x24")
        assert text.strip() == "needs 60x16, have 59x24"
        await pilot.resize_terminal(80, 15)
        await see(pilot, "needs 60x16, have 80x15")
        await pilot.resize_terminal(80, 24)
        await see(pilot, "connected", "sunny-girl", "3.42 steps/s")
        await see_no(pilot, "needs")


async def test_plain_glyphs_are_plain(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    terminal = Terminal("ascii", ("ascii", "off"))
    async with open_app(workspace, options=Options(glyphs=ASCII), terminal=terminal) as pilot:
        text = await see(pilot, "> running", "= paused", "! failed", "v finished", "*")
        title = next(line for line in text.splitlines() if "id k3x9ab" in line)
        assert title.isascii()
        assert not pilot.app.screen.query("PlotCanvas")


async def test_no_color_means_no_colour_but_every_word(
    workspace: Workspace, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    options = read_options({"NO_COLOR": "1", "TERM": "xterm-256color"})
    assert options.theme == "ansi-dark"
    fill_with_examples(daemon)
    async with open_app(workspace, options=options) as pilot:
        await see(pilot, "▸ running", "! failed", "connected")
        strips = pilot.app.screen._compositor.render_strips()
        colours = {
            colour.name
            for strip in strips
            for segment in strip
            if segment.style is not None
            for colour in (segment.style.color, segment.style.bgcolor)
            if colour is not None and not colour.is_default
        }
        assert not any(name.startswith("#") for name in colours), colours


async def test_help_lists_every_key_and_what_is_not_possible_now(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat", state="finished"))
    async with open_app(workspace, size=(100, 60)) as pilot:
        await see(pilot, "cat")
        await pilot.press("f1")
        text = await see(pilot, "Runs", "Loss plot", "Everywhere", "Pause the chosen run")
        assert "Not now: cat is finished and cannot be paused." in " ".join(text.split())
        await pilot.press("q")
        await see_no(pilot, "Everywhere")
        assert isinstance(pilot.app.screen, RunsScreen)


async def test_the_palette_finds_commands_and_does_not_blink(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat"))
    async with open_app(workspace) as pilot:
        await see(pilot, "▸ running")
        await pilot.press("colon")
        await until(pilot, lambda: bool(pilot.app.screen.query("CommandInput")))
        await until(pilot, lambda: pilot.app.screen.query_one("CommandInput").cursor_blink is False)  # type: ignore[attr-defined]
        await pilot.press(*"pause")
        await see(pilot, "Pause run")
        await pilot.press("down", "enter")
        await see(pilot, "‖ paused")
        assert commands_sent(daemon) == ["pause"]


async def test_y_copies_the_path_that_matters_most(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat", embedding="/w/embeddings/cat.safetensors"))
    async with open_app(workspace) as pilot:
        await see(pilot, "cat")
        await pilot.press("y")
        await see(pilot, "Copied /w/embeddings/cat.safetensors")
        assert pilot.app.clipboard == "/w/embeddings/cat.safetensors"


async def test_q_leaves_and_says_what_goes_on(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        await see(pilot, "sunny-girl")
        await pilot.press("q")
        await until(pilot, lambda: pilot.app._exit)
        assert pilot.app.parting_words().startswith("2 runs go on in the daemon.")  # type: ignore[attr-defined]
    assert pilot.app.return_code == 0


async def test_ctrl_c_leaves_at_the_second_time(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with open_app(workspace) as pilot:
        await see(pilot, "No runs yet.")
        await pilot.press("ctrl+c")
        await see(pilot, "Press ctrl+c again to leave. Runs go on in the daemon.")
        await pilot.press("ctrl+c")
        await until(pilot, lambda: pilot.app._exit)


async def test_an_idle_screen_has_nothing_that_moves(workspace: Workspace, daemon: FakeDaemon) -> None:
    fill_with_examples(daemon)
    async with open_app(workspace) as pilot:
        await see(pilot, "lowest")
        await pilot.pause(0.5)
        assert pilot.app.screen.query_one(DataTable).has_focus
        assert not pilot.app.screen.query("LoadingIndicator, ProgressBar")
        assert all(not widget.auto_refresh for widget in pilot.app.screen.query(Static))
        assert pilot.app.screen.query_one(Footer)


async def test_a_run_without_a_preview_never_shows_another_run_s(
    workspace: Workspace, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.add(make_run("a", "cat", preview=str(write_preview(tmp_path / "1.png")), preview_step=100))
    daemon.add(make_run("b", "fox", state="queued"))
    async with open_app(workspace, terminal=HALF) as pilot:
        await see(pilot, "step 100 · seed 42", "▀▀▀▀▀▀▀▀▀▀")
        await pilot.press("j")
        await see(pilot, "id b", "no preview yet")
        await see_no(pilot, "▀▀▀▀▀▀▀▀▀▀")
        await pilot.press("k")
        await see(pilot, "▀▀▀▀▀▀▀▀▀▀")
        # Back and forth faster than pictures load.
        await pilot.press("j", "k", "j", "k", "j")
        await see(pilot, "id b", "no preview yet")
        await see_no(pilot, "▀▀▀▀▀▀▀▀▀▀")
        await pilot.press("k")
        await see(pilot, "▀▀▀▀▀▀▀▀▀▀")
        await pilot.press("n", *"new", "enter", *"/tmp", "enter", *"x", "f2")
        await see(pilot, "new is queued.", "id new001", "no preview yet")
        await see_no(pilot, "▀▀▀▀▀▀▀▀▀▀")


@pytest.mark.parametrize("where", ["handler", "task"])
async def test_a_fault_of_ours_is_written_down_and_told_in_a_sentence(
    workspace: Workspace, daemon: FakeDaemon, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def use() -> None:
        async with open_app(workspace) as pilot:
            await see(pilot, "connected")
            if where == "handler":
                pilot.app.call_later(fail)
            else:
                pilot.app.run_worker(fail())
            await until(pilot, lambda: pilot.app._exception is not None)

    async def fail() -> None:
        raise ZeroDivisionError("a fault of ours")

    with pytest.raises((ZeroDivisionError, WorkerFailed)):
        await use()
    log = (workspace.state / "screen.log").read_text()
    assert "a fault of ours" in log
    assert "Traceback" in log
    told = capsys.readouterr().err
    assert "Vocable's screen ended because of a fault in it." in told
    assert "Traceback" not in told
