"""The text of a picture, against the order, quoting and reading rules of webui.md 9."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.catalog import ModelEntry
from engine.sampling.infotext import (
    Parameters,
    format_parameters,
    join_sampler,
    parse_parameters,
    split_sampler,
    word_hashes,
)

MODEL = ModelEntry("v1-5, pruned", Path("/nowhere"), "sd1", 768, 512, "6ce0161689")
OURS = f"Version: vocable {version('vocable')}"


def write(**values: Any) -> str:
    plain = {
        "prompt": "portrait of lyra",
        "negative_prompt": "",
        "sampler": "Euler a",
        "steps": 20,
        "cfg_scale": 7.0,
        "seed": 4294967295,
        "width": 512,
        "height": 768,
        "model": MODEL,
        "hashes": {},
    }
    return format_parameters(**(plain | values))


def test_what_applies_is_written_in_the_order_that_other_programs_write_it() -> None:
    text = write(
        prompt="portrait of lyra,\n[a:b:5]",
        negative_prompt="ugly: vega\nand more",
        sampler="DPM++ 2M Karras",
        cfg_scale=6.5,
        hashes={"lyra": "a" * 64, "ve,ga:": "0123456789ab" + "c" * 52},
        clip_skip=2,
        emphasis="No norm",
        compat="webui",
    )
    assert text == (
        "portrait of lyra,\n[a:b:5]\n"
        "Negative prompt: ugly: vega\nand more\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 4294967295, Size: 512x768, "
        'Model hash: 6ce0161689, Model: "v1-5, pruned", Clip skip: 2, RNG: CPU, '
        'TI hashes: "lyra: aaaaaaaaaaaa, vega: 0123456789ab", Emphasis: No norm, Prompt switching: webui, ' + OURS
    )


def test_what_does_not_apply_is_left_out() -> None:
    assert write(prompt="girl") == (
        "girl\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 4294967295, Size: 512x768, "
        f'Model hash: 6ce0161689, Model: "v1-5, pruned", RNG: CPU, {OURS}'
    )


def test_reading_gives_back_what_was_written() -> None:
    text = write(prompt='a "girl", (pink:1.2)\n\nAND b', negative_prompt="ugly\nNegative", cfg_scale=1 / 3, clip_skip=3)
    found = parse_parameters(text)
    assert (found.prompt, found.negative_prompt) == ('a "girl", (pink:1.2)\n\nAND b', "ugly\nNegative")
    assert float(found.settings["CFG scale"]) == 1 / 3
    assert (found.settings["Size-1"], found.settings["Size-2"]) == ("512", "768")
    assert (found.settings["Model"], found.settings["Clip skip"]) == ("v1-5, pruned", "3")


@given(
    prompt=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60),
    negative=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20),
)
@settings(max_examples=60)
def test_any_prompt_reads_back_but_for_blanks_around_it(prompt: str, negative: str, name: str) -> None:
    model = ModelEntry(f"{name}:", Path("/nowhere"), "sd1", 768, 512, "6ce0161689")
    found = parse_parameters(write(prompt=prompt, negative_prompt=negative, model=model))
    assert (found.prompt, found.negative_prompt) == (prompt.strip(), negative.strip())
    assert found.settings["Model"] == f"{name}:".strip()
    assert found.settings["Seed"] == "4294967295"


FOREIGN = [
    (  # AUTOMATIC1111's webui 1.9, hires fix
        "masterpiece, (girl:1.2) <lora:foo:0.8>\nsecond line\nNegative prompt: lowres,\nbad hands\n"
        "Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 7.5, Seed: 12, Size: 512x512, "
        "Model hash: 6ce0161689, Model: v1-5-pruned, Denoising strength: 0.7, Clip skip: 2, "
        'Hires upscale: 2, Lora hashes: "foo: abcdef123456, bar: 12", Version: v1.9.4',
        "masterpiece, (girl:1.2) <lora:foo:0.8>\nsecond line",
        "lowres,\nbad hands",
        {"Sampler": "DPM++ 2M SDE", "Seed": "12", "Lora hashes": "foo: abcdef123456, bar: 12", "Version": "v1.9.4"},
    ),
    (  # old webui
        "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 7460a6fa",
        "a cat",
        "",
        {"Model hash": "7460a6fa", "Size-1": "512", "Size-2": "512"},
    ),
    (  # civitai.com: JSON that is not quoted
        "a cat\nNegative prompt: dog\nSteps: 25, Sampler: Euler, CFG scale: 4.0, Seed: 9, Size: 832x1216, "
        'Clip skip: 2, Civitai resources: [{"type":"checkpoint","modelVersionId":1}], Civitai metadata: {}',
        "a cat",
        "dog",
        {"Steps": "25", "CFG scale": "4.0", "Clip skip": "2"},
    ),
    ("a cat: on a mat, colour: red", "a cat: on a mat, colour: red", "", {}),
    ("Steps: 3, Sampler: Euler, Seed: 4", "", "", {"Steps": "3", "Sampler": "Euler", "Seed": "4"}),
    ("Negative prompt: only this", "", "only this", {}),
    ("a\r\nNegative prompt: b\r\nSteps: 1, Seed: 2, Sampler: LMS\r\n", "a", "b", {"Seed": "2"}),
    ("", "", "", {}),
]


@pytest.mark.parametrize(("text", "prompt", "negative", "some"), FOREIGN)
def test_texts_of_other_programs_are_read(text: str, prompt: str, negative: str, some: dict[str, str]) -> None:
    found = parse_parameters(text)
    assert (found.prompt, found.negative_prompt) == (prompt, negative)
    assert some.items() <= found.settings.items()
    assert bool(some) == bool(found.settings)


@given(st.text(max_size=200) | st.text('Steps: 1,"\\xN\n', max_size=200))
@settings(max_examples=100)
def test_no_text_fails(text: str) -> None:
    found = parse_parameters(text)
    assert all(isinstance(value, str) for value in found.settings.values())
    word_hashes(found)


@pytest.mark.parametrize("piece", ["a", "a: ", 'a: "', "a ", '"\\', ",aa:", 'aa:"\\",', "/", "-a: b\n"])
def test_long_nonsense_is_read_too(piece: str) -> None:
    text = "a: " + piece * (65536 // len(piece))
    found = parse_parameters(text)  # a quadratic reading would take minutes
    assert found.prompt or found.settings


@pytest.mark.parametrize(
    ("name", "schedule", "ours"),
    [
        ("Euler a", "", "Euler a"),
        ("euler a", "Automatic", "Euler a"),
        ("DPM++ 2M", "Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "", "DPM++ 2M Karras"),  # before webui 1.9
        ("DPM++ 2M", "Automatic", "DPM++ 2M Karras"),  # what webui takes there
        ("DPM++ 2M", "Uniform", "DPM++ 2M"),
        ("DPM++ 2M", "", "DPM++ 2M"),  # before webui 1.9
        ("Euler", "Karras", None),
        ("DPM++ SDE", "", None),
    ],
)
def test_samplers_are_found_by_the_names_that_other_programs_give_them(
    name: str, schedule: str, ours: str | None
) -> None:
    assert join_sampler(name, schedule) == ours
    if ours is not None:
        assert join_sampler(*split_sampler(ours)) == ours


def test_hashes_of_words_are_read() -> None:
    found = parse_parameters("a\n" + 'Steps: 1, Seed: 2, TI hashes: "my word: 0123456789AB, vega: ba9876543210"')
    assert word_hashes(found) == {"my word": "0123456789ab", "vega": "ba9876543210"}
    assert word_hashes(Parameters("")) == {}
