"""What people are told of each word, and who has a name: real files, a real tokenizer, awkward names."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from daemon.inspector.facts import WordFacts
from daemon.inspector.verdicts import Verdict
from daemon.protocol.service import WordView
from daemon.tables import Found, Table, Target
from daemon.targets import read_tokenizer
from daemon.words import describe, tabulate
from engine.models.catalog import find_model
from engine.names import name_fault

ROOT = Path("/w/embeddings")
STARTER = find_model("starter", [])
TARGET = Target(STARTER.name, STARTER.width, STARTER.hash, vocabulary=read_tokenizer(STARTER))


def facts(name: str = "", *, width: int = STARTER.width, split: int = 0, **changes: str) -> WordFacts:
    values = {"trigger": "", "family": "other", "model": "", "model_hash": "", "canonical": "c" * 64} | changes
    return WordFacts(name=name, vectors=2, width=width, split=split, step=3, **values)  # type: ignore[arg-type]


def found(name: str, *words: WordFacts, **error: str) -> tuple[Path, Found[WordFacts]]:
    path = ROOT / name
    return path, describe(path, "a" * 64, Verdict("webui .pt (zip)", words, **error))


def table(*files: tuple[Path, Found[WordFacts]], target: Target | None = TARGET) -> Table:
    return tabulate(dict(files), ROOT, target, lambda sha256: Path("/w/cache") / f"{sha256}.safetensors")


def views(*files: tuple[Path, Found[WordFacts]], target: Target | None = TARGET) -> dict[str, WordView]:
    return {view["name"]: WordView.model_validate(view) for view in table(*files, target=target).views}


def test_a_word_of_another_width_tells_both_widths() -> None:
    told = views(found("xl.safetensors", facts(width=768 + 1280, split=768)), found("big.pt", facts(width=768)))
    assert (told["xl"].verdict, told["xl"].usable) == ("wrong_width", False)
    assert "768 + 1280" in told["xl"].reason
    assert f"starter {STARTER.width}" in told["big"].reason


def test_a_pair_does_not_fit_a_model_of_one_encoder_of_the_same_sum() -> None:
    told = views(found("pair.safetensors", facts(split=STARTER.width // 2)))
    assert told["pair"].verdict == "wrong_width"


def test_a_word_of_equal_tokens_is_shadowed_and_says_by_whom() -> None:
    told = table(found("zorb-fox.pt", facts()), found("sub/zorb - fox.pt", facts()), found("other.pt", facts()))
    by_name = {view["name"]: view for view in told.views}
    assert by_name["zorb-fox"]["verdict"] == "usable"
    assert by_name["zorb - fox"]["verdict"] == "shadowed"
    assert "zorb-fox.pt" in by_name["zorb - fox"]["reason"]
    assert told.usable == 2


def test_a_word_of_another_width_shadows_nothing() -> None:
    told = table(found("fox.safetensors", facts(width=768)), found("sub/fox.pt", facts()))
    assert [view["verdict"] for view in told.views] == ["wrong_width", "usable"]
    assert sorted(word["width"] for word in told.wire) == [STARTER.width, 768]


def test_an_ordinary_word_is_usable_with_a_warning() -> None:
    told = views(found("hair.pt", facts()), found("zorbfox.pt", facts()))
    assert (told["hair"].verdict, told["zorbfox"].warning) == ("usable", "")
    assert "ordinary word" in told["hair"].warning


@pytest.mark.parametrize(
    ("model", "model_hash", "warns"),
    [
        ("", "", False),
        ("starter", "", False),
        ("Starter", "0a1b2c3d", False),
        ("renamed", STARTER.hash, False),
        ("anime", "", True),
        ("starter", "0123456789", True),
        ("anime\x1b[31m", "0a1b2c3d", True),
    ],
)
def test_a_word_of_another_base_model_is_told_apart_by_hash_then_by_name(
    model: str, model_hash: str, warns: bool
) -> None:
    told = views(found("zorbfox.pt", facts(model=model, model_hash=model_hash)))["zorbfox"]
    assert told.usable
    assert ("trained on" in told.warning) == warns
    assert told.warning.isprintable()


def test_a_file_of_several_words_gives_each() -> None:
    told = table(found("lora.safetensors", facts("zorbfox"), facts("zorbowl")), found("zorbowl.pt", facts()))
    assert [(view["name"], view["verdict"]) for view in told.views] == [
        ("zorbfox", "usable"),
        ("zorbowl", "usable"),
        ("zorbowl", "shadowed"),
    ]


def test_the_wire_has_what_the_worker_needs() -> None:
    (word,) = table(found("zorbfox.pt", facts(model="anime", model_hash="0a1b2c3d"))).wire
    assert word == {
        "name": "zorbfox",
        "path": f"/w/cache/{'c' * 64}.safetensors",
        "canonical": "c" * 64,
        "hash": "a" * 64,
        "vectors": 2,
        "width": STARTER.width,
        "split": 0,
        "model": "anime",
        "model_hash": "0a1b2c3d",
    }


def test_a_picture_without_a_word_is_not_listed_and_a_broken_file_is() -> None:
    told = table(
        found("plain.png", code="embedding.absent"), found("cut.pt", code="embedding.unreadable", title="Cut.")
    )
    assert [(view["name"], view["verdict"], view["reason"]) for view in told.views] == [("cut", "unreadable", "Cut.")]
    assert told.wire == []


AWKWARD = [
    "CON",
    "nul.txt",
    "trailing ",
    ".hidden-not",
    "-dash",
    "...",
    "a" * 240,
    "\u202eevil",
    "zero\u200bwidth",
    "\U0001f98a",
    "fox\U0001f98afox",
    "\x1b]52;c;eA==\x07",
    "line\nbreak",
    "<embedding:x>",
    "(a:1.5)",
    "..\\..\\x",
    os.fsdecode(b"\xff\xfe"),
    "عربي",
    "狐",
]


@pytest.mark.parametrize("stem", AWKWARD)
def test_a_name_is_lawful_or_the_file_is_no_word(stem: str) -> None:
    told = table(found(f"{stem}.pt", facts()))
    for word in told.wire:
        assert name_fault(word["name"]) == "" or word["name"] == ""
    told.json.decode()
    assert all(char.isprintable() for view in told.views for char in view["name"] + view["path"] + view["reason"])


def test_spellings_of_one_name_are_one_word() -> None:
    spellings = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")] + ["CAFÉ"]
    told = table(*(found(f"{number}/{name}.pt", facts()) for number, name in enumerate(spellings)))
    assert sorted(view["verdict"] for view in told.views) == ["shadowed", "shadowed", "usable"]
    assert len(told.wire) == 1


def test_thousands_of_words_are_told_as_json_that_reads_back() -> None:
    told = table(*(found(f"zorb {number}.pt", facts()) for number in range(1000)))
    assert json.loads(told.json) == told.views
    assert json.loads(table().json) == []
