from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.manifest import Entry
from engine.training.journal import Journal, open_journal

FIRST = {"a.png": Entry("1", "one"), "b.png": Entry("2", "two")}
SECOND = {"b.png": Entry("2", "another"), "c\udcff.png": Entry("3", "\u202e")}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = open_journal(tmp_path)
    journal.begin(0, 0, FIRST)
    journal.change(6, 3, SECOND)
    return journal


def test_what_was_noted_is_read_back(journal: Journal) -> None:
    read = open_journal(journal.path.parent)
    assert (read.records, read.mark, read.fault) == (journal.records, journal.mark, "")
    assert [(record.after_step, record.epoch, record.manifest) for record in read.records] == [
        (0, 0, FIRST),
        (6, 3, SECOND),
    ]


def test_a_new_beginning_replaces_what_came_at_that_step_or_later(journal: Journal) -> None:
    journal.begin(0, 0, SECOND)
    assert [record.manifest for record in open_journal(journal.path.parent).records] == [SECOND]


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_was_never_written(journal: Journal, cut: int) -> None:
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-cut])
    read = open_journal(journal.path.parent)
    assert (len(read.records), read.fault) == (1, "")
    read.change(6, 3, SECOND)
    assert journal.path.read_bytes() == whole


@pytest.mark.parametrize(
    ("old", "new"), [(b"one", b"two"), (b'"after_step": 0', b'"after_step": 1'), (b"{", b"["), (b"\n", b"\n\n")]
)
def test_a_damaged_line_ends_what_is_believed_and_is_kept_aside(journal: Journal, old: bytes, new: bytes) -> None:
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole.replace(old, new, 1))
    read = open_journal(journal.path.parent)
    assert read.fault
    assert not read.follows(journal.mark)
    assert list(journal.path.parent.glob("dataset-damaged-1.jsonl"))
    assert not open_journal(journal.path.parent).fault


def test_a_line_that_was_taken_out_is_noticed(journal: Journal) -> None:
    journal.path.write_bytes(journal.path.read_bytes().split(b"\n", 1)[1])
    assert open_journal(journal.path.parent).fault


def test_a_journal_follows_its_own_earlier_states_only(journal: Journal, tmp_path: Path) -> None:
    before = journal.mark
    journal.begin(0, 0, FIRST)
    assert journal.follows(before)
    other = open_journal(tmp_path / "other")
    other.begin(0, 0, SECOND)
    assert not other.follows(before)
    assert not open_journal(tmp_path / "none").follows(before)
