"""Settings read and changed over the API."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest

from daemon.settings import Settings, make_page, read_settings
from engine.errors import VocableError
from tests.daemon.conftest import Running

WRITTEN = """# ours
[service]
idle_unload_s = 30 # seconds

[paths]
models = ["/more"] # the big disk
"""


def text(running: Running) -> str:
    return running.workspace.settings.read_text()


async def test_a_change_is_written_with_the_comments_kept_and_is_in_force(running: Running) -> None:
    running.workspace.settings.write_text(WRITTEN)
    view = await running.client.settings()
    assert view.settings["service"] == {"idle_unload_s": 30.0, "group": ""}
    settings = view.settings | {"service": {"idle_unload_s": 40}}
    changed = await running.client.change_settings(settings, view.revision)
    assert changed.settings["service"]["idle_unload_s"] == 40.0
    assert changed.revision != view.revision
    assert text(running) == WRITTEN.replace("30", "40.0")


async def test_settings_that_are_left_out_get_their_defaults(running: Running) -> None:
    running.workspace.settings.write_text(WRITTEN)
    view = await running.client.change_settings({}, (await running.client.settings()).revision)
    assert view.settings["paths"]["models"] == []
    assert "# the big disk" in text(running)


async def test_of_two_changes_for_one_revision_only_one_is_made(running: Running) -> None:
    revision = (await running.client.settings()).revision
    answers = await asyncio.gather(
        *(running.client.change_settings({"service": {"idle_unload_s": n}}, revision) for n in (5, 6)),
        return_exceptions=True,
    )
    (refused,) = [answer for answer in answers if isinstance(answer, VocableError)]
    assert refused.code == "settings.stale"
    kept = (await running.client.settings()).settings["service"]["idle_unload_s"]
    assert f"idle_unload_s = {kept}" in text(running)


async def test_a_faulty_change_writes_nothing(running: Running) -> None:
    revision = (await running.client.settings()).revision
    with pytest.raises(VocableError, match="did you mean service"):
        await running.client.change_settings({"service": {"idle_unload": 5}}, revision)
    assert not running.workspace.settings.exists()


async def test_a_file_that_is_faulty_already_is_left_to_people(running: Running) -> None:
    revision = (await running.client.settings()).revision
    running.workspace.settings.write_text("service = 5")
    for asking in (running.client.settings(), running.client.change_settings({}, revision)):
        with pytest.raises(VocableError) as caught:
            await asking
        assert caught.value.code in ("settings.invalid", "settings.stale")
    assert text(running) == "service = 5"


@pytest.mark.parametrize("value", ["0.5", "0", "-1", "nan", "inf", "'60'", "true", "1e10"])
def test_a_deadline_that_no_worker_could_keep_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "vocable.toml"
    path.write_text(f"[deadlines]\nstep_s = {value}\n")
    with pytest.raises(VocableError, match=r"deadlines\.step_s"):
        read_settings(path)


def test_a_misspelt_deadline_is_told_its_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "vocable.toml"
    path.write_text("[deadlines]\nfirststep_s = 60\n")
    with pytest.raises(VocableError, match=r"did you mean deadlines\.first_step_s\?"):
        read_settings(path)


def test_the_page_about_the_settings_is_current_and_its_file_holds_the_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == make_page(), "make it again: python -m daemon.settings > docs/settings.md"
    written = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    assert written == Settings().model_dump()


@pytest.mark.parametrize("line", ['[paths]\nmodels = ["~nobody-here/m"]', '[preprocess]\nblip = "~nobody-here"'])
def test_a_folder_of_a_user_that_there_is_not_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "vocable.toml").write_text(line)
    with pytest.raises(VocableError, match=r": there is no user for ~nobody-here\.") as caught:
        read_settings(tmp_path / "vocable.toml")
    assert caught.value.code == "settings.invalid"


def test_a_path_that_no_system_takes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocable.toml").write_text('[paths]\nruns = "a\\u0000b"')
    with pytest.raises(VocableError, match="NUL"):
        read_settings(tmp_path / "vocable.toml")
