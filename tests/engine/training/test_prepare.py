from __future__ import annotations

from engine.events import Warned
from engine.training.prepare import find_changes

BEFORE = {
    "recipe": {"train.seed": 0, "data.width": None},
    "template": ["[name]"],
    "pictures": {"1.png": "a", "2.png": "b"},
    "model": {"name": "starter", "hash": "0123456789"},
    "versions": {"torch": "2.12"},
}


def changes(**groups: object) -> str:
    (event,) = find_changes(BEFORE, {**BEFORE, **groups})
    assert isinstance(event, Warned)
    return event.title


def test_nothing_changed_means_nothing_is_said() -> None:
    assert not list(find_changes(BEFORE, dict(BEFORE)))


def test_each_change_is_named_with_both_values() -> None:
    title = changes(versions={"torch": "2.13"}, recipe={"train.seed": 1, "data.width": None}, template=["a [name]"])
    for part in ("torch (2.12 became 2.13)", "train.seed (0 became 1)", "the template"):
        assert part in title


def test_changed_pictures_are_named() -> None:
    title = changes(pictures={"2.png": "x", "3.png": "c"})
    for part in ("1.png is gone", "2.png or its caption is another", "3.png is new"):
        assert part in title


def test_many_changes_are_counted() -> None:
    assert "and 7 more" in changes(pictures={**BEFORE["pictures"], **{f"n{n}.png": "n" for n in range(17)}})  # type: ignore[dict-item]
