"""From what a picture says to the request that makes it again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.protocol.jobs import GenerateRequest
from engine.sampling.infotext import parse_parameters
from engine.sampling.reuse import request_fields

BASE = "Steps: 30, Sampler: Euler a, CFG scale: 6.5, Seed: 7, Size: 512x768, RNG: CPU"


def read(settings: str, prompt: str = "a girl") -> tuple[dict[str, Any], list[str]]:
    return request_fields(parse_parameters(f"{prompt}\nNegative prompt: ugly\n{settings}"))


def test_everything_that_a_request_has_is_carried_over() -> None:
    fields, notes = read(f"{BASE}, Clip skip: 2, Emphasis: No norm, Version: v1.10.1")
    assert fields == {
        "prompts": ["a girl"],
        "negative_prompt": "ugly",
        "sampler": "Euler a",
        "steps": 30,
        "cfg_scale": 6.5,
        "seed": 7,
        "width": 512,
        "height": 768,
        "clip_skip": 2,
        "emphasis": "No norm",
        "compat": "",
    }
    assert notes == []


@pytest.mark.parametrize(
    ("prompt", "version", "compat"),
    [
        ("[a:b:5]", "Version: v1.10.1", "webui"),
        ("[a|b]", "Model: x", "webui"),
        ("a girl", "Version: v1.10.1", ""),
        ("[a:b:5]", "Version: vocable 0.1", ""),
        ("[a:b:5]", "Prompt switching: webui, Version: vocable 0.1", "webui"),
    ],
)
def test_prompts_switch_as_in_the_program_that_made_the_picture(prompt: str, version: str, compat: str) -> None:
    assert read(f"{BASE}, {version}", prompt)[0]["compat"] == compat


@pytest.mark.parametrize(
    ("change", "field", "note"),
    [
        (("Sampler: Euler a", "Sampler: DPM++ SDE"), "sampler", "'DPM++ SDE' is not known here; the usual"),
        (("Steps: 30", "Steps: 3000"), "steps", "Steps '3000' is left out: 1 to 500"),
        (("CFG scale: 6.5", "CFG scale: nan"), "cfg_scale", "CFG scale 'nan'"),
        (("Seed: 7", "Seed: 99999999999"), "seed", "Seed '99999999999'"),
        (("512x768", "500x768"), "width", "Size '500' is left out: 8 to 4096 in steps of 8"),
        (("RNG: CPU", "Clip skip: x"), "clip_skip", "Clip skip 'x'"),
        (("RNG: CPU", "Emphasis: loud"), "emphasis", "Emphasis 'loud' is not known"),
    ],
)
def test_what_a_request_cannot_take_is_left_out_and_named(change: tuple[str, str], field: str, note: str) -> None:
    fields, notes = read(BASE.replace(*change))
    assert field not in fields
    assert any(note in said for said in notes)


def test_unknown_noise_levels_leave_the_sampler() -> None:
    fields, notes = read(f"{BASE}, Schedule type: SGM Uniform")
    assert fields["sampler"] == "Euler a"
    assert notes == ["The sampler 'Euler a SGM Uniform' is not known here; Euler a is used."]


def test_what_nothing_here_does_is_named_without_steering_a_terminal() -> None:
    _, notes = read(f"{BASE.removesuffix('RNG: CPU')}Hires upscale: 2, Refiner: \x1b[31mx, Model: y")
    assert "noise was not drawn on a CPU" in notes[0]
    assert notes[1] == r"Left out, because nothing here does the like: Hires upscale: 2, Refiner: \x1b[31mx."


def test_a_hypernetwork_of_old_texts_becomes_a_tag() -> None:
    assert read(f"{BASE}, Hypernet: mine, Hypernet strength: 0.5")[0]["prompts"] == ["a girl<hypernet:mine:0.5>"]
    assert read(f"{BASE}, Hypernet: mi>ne")[0]["prompts"] == ["a girl"]


def test_a_picture_with_nothing_but_a_prompt_says_so() -> None:
    assert request_fields(parse_parameters("a girl")) == (
        {"prompts": ["a girl"], "negative_prompt": ""},
        ["The picture says nothing of its sampler, steps, size and seed."],
    )


VALUES = st.sampled_from(["1", "-1", "1e9", "nan", "12x12", "9" * 30, "x", "", "7.5", "٣", "1_0", '"\\ud800"'])
KEYS = ["Steps", "Seed", "CFG scale", "Size", "Clip skip", "Sampler", "Emphasis", "Hypernet", "Version", "\x1b"]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES), st.text(max_size=30), st.sampled_from([0, 20_000]))
@settings(max_examples=100)
def test_whatever_a_picture_says_the_service_takes_the_request(said: dict[str, str], prompt: str, length: int) -> None:
    text = ", ".join(f"{key}: {value}" for key, value in said.items())
    fields, notes = request_fields(parse_parameters(f"{prompt}\nNegative prompt: {'x' * length}\n{text}"))
    GenerateRequest(**fields, output="/x.png")
    assert all(note.isprintable() for note in notes)
