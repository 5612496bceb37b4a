"""Templates and datasets as a service lists them."""

from __future__ import annotations

import os
from pathlib import Path

from daemon.listings import list_datasets, list_templates
from engine.dataset.templates import shipped_templates
from tests.daemon.conftest import Running


def test_own_templates_replace_shipped_ones_and_faulty_ones_say_why(tmp_path: Path) -> None:
    (tmp_path / "style.txt").write_text("a [name]\n\n# a remark\nthe [name]\n")
    (tmp_path / "broken.txt").write_text("no word here\n")
    (tmp_path / ".hidden.txt").write_text("a [name]\n")
    views = {view.name: view for view in list_templates([tmp_path])}
    assert (views["style"].prompts, views["style"].shipped) == (2, False)
    assert views["broken"].error is not None
    assert views["broken"].error.code == "template.invalid"
    shipped = {path.stem for path in shipped_templates().glob("*.txt")}
    assert set(views) == shipped | {"broken"}
    assert all(views[name].shipped and views[name].prompts for name in shipped - {"style"})


def test_datasets_are_counted_and_the_first_of_a_name_stands(tmp_path: Path) -> None:
    for name in (
        "a/faces/10.png",
        "a/faces/2.JPG",
        "a/faces/2.txt",
        "a/faces/notes.txt",
        "a/faces/.x.png",
        "b/faces/x",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "b" / "zoo10").mkdir()
    (tmp_path / "b" / "zoo2").mkdir()
    (tmp_path / "b" / "file").touch()
    views = list_datasets([tmp_path / "a", tmp_path / "b", tmp_path / "none"])
    assert [(view.name, view.pictures, view.captions) for view in views] == [
        ("faces", 2, 1),
        ("zoo2", 0, 0),
        ("zoo10", 0, 0),
    ]
    assert views[0].path == str(tmp_path / "a" / "faces")


def test_names_that_could_steer_a_terminal_are_shown_escaped(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/a\x1b[31m\xff")
    (view,) = list_datasets([tmp_path])
    assert view.name.isprintable()
    assert view.name.startswith("a\\x1b[31m")


async def test_a_client_asks_for_both(running: Running) -> None:
    assert [view.name for view in await running.client.datasets()] == ["faces"]
    assert "subject" in [view.name for view in await running.client.templates()]


async def test_a_model_whose_name_is_no_text_is_listed_like_any_other(running: Running) -> None:
    starter = next(model.path for model in await running.client.models() if model.name == "starter")
    os.symlink(starter, os.fsencode(running.workspace.models) + b"/a\xff")
    assert "a\\udcff" in [model.name for model in await running.client.models()]
