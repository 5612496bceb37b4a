from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from engine.embedding.create import create_embedding
from engine.embedding.read import read_embedding
from engine.embedding.shelf import Word, shelve
from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from engine.events import Warned
from engine.models.load import Model
from engine.sampling.generate import Picture, PictureRequest, SamplingStep, generate
from engine.sampling.png import save_picture
from engine.sampling.samplers import SAMPLERS

GIRL = "portrait of a girl, pink background"


def request(*pictures: tuple[str, int], **values: Any) -> PictureRequest:
    settings = {"negative_prompt": "", "sampler": "DPM++ 2M", "steps": 4, "cfg_scale": 3.0, "width": 64, "height": 64}
    return PictureRequest(pictures=pictures, **(settings | values))


def make(
    model: Model, asked: PictureRequest, words: tuple[Embedding | Word, ...] = (), **options: Any
) -> list[Picture]:
    shelf = [word if isinstance(word, Word) else shelve(word) for word in words]
    return [item for item in generate(model, asked, shelf, **options) if isinstance(item, Picture)]


def pixels(picture: Picture | Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.image if isinstance(picture, Picture) else picture).astype(int)


def same(one: Picture, two: Picture) -> bool:
    return one.image.tobytes() == two.image.tobytes()


def random_word(name: str, model: Model, seed: int) -> Embedding:
    vectors = np.random.default_rng(seed).normal(scale=0.5, size=(2, model.entry.width))
    return Embedding(name, vectors.astype(np.float32))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_paints_the_background_that_the_prompt_asks_for(starter: Model, sampler: str) -> None:
    asked = {"green": 1, "yellow": None, "blue": 2, "red": 0}
    prompts = [(f"portrait of a man with black short hair, {name} background", 1) for name in asked]
    for picture, (name, channel) in zip(
        make(starter, request(*prompts, sampler=sampler, steps=8)), asked.items(), strict=True
    ):
        corners = pixels(picture)[[2, 2, 12, 12], [2, -3, 2, -3]].mean(axis=0)
        if name == "yellow":
            assert min(corners[:2]) > corners[2] + 30
        else:
            assert corners.argmax() == channel


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M"])
def test_the_vector_of_a_token_gives_bit_for_bit_the_pictures_of_the_token(starter: Model, sampler: str) -> None:
    assert len(starter.tokenizer.ids("girl")) == 1
    word = create_embedding(starter, name="my word", init_text="girl", vectors=1)
    prompts = [GIRL, "girl", "ink drawing of a girl with a hat, smiling girl"]
    plain = make(starter, request(*((prompt, 7) for prompt in prompts), sampler=sampler))
    ours = make(
        starter, request(*((prompt.replace("girl", "MY word"), 7) for prompt in prompts), sampler=sampler), (word,)
    )
    assert all(same(one, two) for one, two in zip(plain, ours, strict=True))


def test_two_words_in_one_prompt_both_show(starter: Model) -> None:
    lyra, vega = random_word("lyra", starter, 1), random_word("vega", starter, 2)
    prompt = ("portrait of lyra with vega", 3)
    both = make(starter, request(prompt), (lyra, vega))[0]
    for changed in ((random_word("lyra", starter, 9), vega), (lyra, random_word("vega", starter, 9))):
        assert not same(both, make(starter, request(prompt), changed)[0])


def test_a_word_works_in_the_negative_prompt(starter: Model) -> None:
    lyra = random_word("lyra", starter, 1)
    with_word = make(starter, request((GIRL, 3), negative_prompt="lyra"), (lyra,))[0]
    assert not same(with_word, make(starter, request((GIRL, 3), negative_prompt="lyra"))[0])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pictures_equal_those_of_diffusers(starter: Model) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        str(starter.entry.path), local_files_only=True, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline(
        GIRL,
        negative_prompt="blue",
        num_inference_steps=6,
        guidance_scale=4.0,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(11),
    ).images[0]
    [ours] = make(starter, request((GIRL, 11), negative_prompt="blue", steps=6, cfg_scale=4.0))
    assert np.abs(pixels(ours) - pixels(theirs)).max() <= 2


@pytest.mark.parametrize("sampler", ["Euler a", "UniPC"])
def test_a_picture_depends_on_its_seed_and_not_on_its_neighbours(starter: Model, sampler: str) -> None:
    first, second, again = make(starter, request((GIRL, 1), (GIRL, 2), (GIRL, 1), sampler=sampler))
    assert same(first, again)
    assert not same(first, second)
    other = make(starter, request((GIRL, 1), ("ink drawing of a man", 5), ("bald man", 6), sampler=sampler))[0]
    assert same(first, other)


def test_a_long_prompt_beside_a_short_one_does_not_change_it(starter: Model) -> None:
    pair = (GIRL, 1), ("ink drawing of a man", 2)
    mixed = make(starter, request(pair[0], ("portrait " * 80, 3), pair[1]))
    assert [picture.seed for picture in mixed] == [1, 3, 2]
    assert same(mixed[0], make(starter, request(pair[0]))[0])


def test_the_global_random_state_is_neither_used_nor_changed(starter: Model) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = make(starter, request((GIRL, 1), sampler="Euler a"))[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert same(one, make(starter, request((GIRL, 1), sampler="Euler a"))[0])


def test_progress_counts_every_step_of_every_batch(starter: Model) -> None:
    items = list(generate(starter, request(*[(GIRL, seed) for seed in range(3)], steps=2), (), batch_size=2))
    assert [type(item) for item in items] == [
        *[SamplingStep] * 2,
        *[Picture] * 2,
        *[SamplingStep] * 2,
        Picture,
    ]
    assert [(item.done, item.total) for item in items if isinstance(item, SamplingStep)] == [
        (1, 4),
        (2, 4),
        (3, 4),
        (4, 4),
    ]


def test_gradients_stay_on_for_whoever_works_between_two_steps(starter: Model) -> None:
    for _ in generate(starter, request((GIRL, 1), steps=2), ()):
        assert torch.is_grad_enabled()


def warned(model: Model, asked: PictureRequest, *words: Word) -> list[str]:
    """Codes of the warnings, which must all come before the first step."""
    items = list(generate(model, asked, words))
    codes = [item.code for item in items if isinstance(item, Warned)]
    assert all(isinstance(item, Warned) for item in items[: len(codes)])
    return codes


def test_what_people_should_know_of_their_prompts_comes_before_the_first_step(starter: Model) -> None:
    lyra, vega = shelve(random_word("lyra", starter, 1)), shelve(random_word("vega", starter, 2))
    foreign = replace(lyra, model="v1-5", model_hash="6ce0161689")
    own = replace(vega, model="an older name", model_hash=starter.entry.hash)
    asked = request(("lyra, vega", 1), ("lyra <lora:x:1>", 2), negative_prompt="embedding:nobody", steps=1)
    assert warned(starter, asked, foreign, own) == ["prompt.unknown_word", "prompt.tag", "prompt.other_model"]
    assert warned(starter, replace(asked, pictures=((GIRL, 1),), cfg_scale=1.0), foreign, own) == []


@pytest.mark.parametrize(
    ("model", "digest", "is_told"),
    [
        ("", "", False),
        ("Starter", "", False),
        ("other", "", True),
        ("other", "STARTER", False),
        ("starter", "6ce0161689", True),
        ("starter", "7460a6fa", False),
        ("other", "7460a6fa", True),
    ],
)
def test_base_models_are_compared_by_hash_where_both_are_known_and_else_by_name(
    starter: Model, model: str, digest: str, is_told: bool
) -> None:
    word = replace(
        shelve(random_word("lyra", starter, 1)), model=model, model_hash=digest.replace("STARTER", starter.entry.hash)
    )
    assert warned(starter, request(("lyra", 1), steps=1), word) == ["prompt.other_model"] * is_told


def test_clip_skip_is_left_out_where_it_has_no_meaning(starter: Model) -> None:
    asked = request((GIRL, 1), clip_skip=2, steps=1)
    second = replace(starter, entry=replace(starter.entry, family="sd2"))
    assert warned(second, asked) == ["prompt.clip_skip"]
    [picture] = make(second, asked)
    assert same(picture, make(starter, replace(asked, clip_skip=1))[0])
    assert "Clip skip" not in picture.parameters
    assert "Clip skip: 2, " in make(starter, asked)[0].parameters


def test_only_the_words_that_prompts_use_are_read(starter: Model) -> None:
    read: list[str] = []

    def shelved(name: str) -> Word:
        word = shelve(random_word(name, starter, 1))
        return replace(word, load=lambda: read.append(name) or word.load())  # type: ignore[func-returns-value]

    words = tuple(shelved(name) for name in ("lyra", "vega", "mira"))
    make(starter, request(("portrait of lyra", 1), negative_prompt="vega", steps=1), words)
    assert sorted(read) == ["lyra", "vega"]


def test_pictures_with_parts_and_schedules_do_not_change_their_neighbours(starter: Model) -> None:
    prompts = [GIRL, f"{GIRL} AND blue :0.5", "[pink|blue] hat", f"{GIRL} AND (pink:1.3) :0.2", "portrait " * 80]
    together = make(starter, request(*((prompt, 4) for prompt in prompts)))
    for prompt, picture in zip(prompts, together, strict=True):
        assert same(picture, make(starter, request((prompt, 4)))[0])


def test_a_word_that_changed_under_its_name_shows_at_once(starter: Model) -> None:
    asked = request(("portrait of lyra", 1), steps=1)
    first, second, again = (make(starter, asked, (random_word("lyra", starter, seed),))[0] for seed in (1, 2, 1))
    assert not same(first, second)
    assert same(first, again)


def test_closing_the_iterator_ends_the_work(starter: Model) -> None:
    making = generate(starter, request((GIRL, 1), steps=50), ())
    next(making)
    making.close()  # type: ignore[attr-defined]
    assert list(making) == []


def test_without_guidance_the_negative_prompt_plays_no_part(starter: Model) -> None:
    plain = make(starter, request((GIRL, 1), cfg_scale=1.0))[0]
    assert same(plain, make(starter, request((GIRL, 1), cfg_scale=1.0, negative_prompt="pink " * 80))[0])
    assert not same(plain, make(starter, request((GIRL, 1), cfg_scale=3.0))[0])


def test_other_sizes_than_the_native_one_work(starter: Model) -> None:
    [picture] = make(starter, request((GIRL, 1), steps=1, width=96, height=72))
    assert picture.image.size == (96, 72)


@pytest.mark.parametrize("edges", [(66, 64), (64, 0), (64, -64)])
def test_a_size_that_the_model_cannot_make_is_refused(starter: Model, edges: tuple[int, int]) -> None:
    with pytest.raises(VocableError, match="multiples of 4") as caught:
        make(starter, request((GIRL, 1), width=edges[0], height=edges[1]))
    assert caught.value.code == "picture.size"


def test_a_word_of_another_width_is_refused_only_where_it_is_used(starter: Model) -> None:
    foreign = Embedding("lyra", np.zeros((2, 768), np.float32))
    assert len(make(starter, request((GIRL, 1), steps=1), (foreign,))) == 1
    with pytest.raises(VocableError, match="768") as caught:
        make(starter, request(("portrait of lyra", 1)), (foreign,))
    assert caught.value.code == "embedding.width"


def test_a_picture_that_came_out_as_nan_is_an_error(starter: Model) -> None:
    spoilt = Embedding("lyra", np.full((2, starter.entry.width), np.nan, np.float32))
    word = replace(shelve(random_word("lyra", starter, 1)), load=lambda: spoilt)
    with pytest.raises(VocableError) as caught:
        make(starter, request(("portrait of lyra", 1), steps=1), (word,))
    assert caught.value.code == "picture.not_finite"


def test_a_picture_tells_how_to_make_it_again(starter: Model) -> None:
    lyra, vega, unused = (random_word(name, starter, 1) for name in ("lyra", "vega", "unused"))
    asked = request(
        ("lyra: a portrait", 41), negative_prompt="ugly: vega, too", sampler="DPM++ 2M Karras", cfg_scale=3.5
    )
    [picture] = make(starter, asked, (lyra, vega, unused))
    prompt, negative, settings = picture.parameters.split("\n")
    assert (prompt, negative) == ("lyra: a portrait", "Negative prompt: ugly: vega, too")
    assert settings.startswith(
        "Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3.5, Seed: 41, Size: 64x64, "
        f"Model hash: {starter.entry.hash}, Model: starter, RNG: CPU, "
        f'TI hashes: "lyra: {shelve(lyra).hash[:12]}, vega: {shelve(vega).hash[:12]}", Version: vocable '
    )


def test_fields_that_do_not_apply_are_left_out(starter: Model) -> None:
    [picture] = make(starter, request((GIRL, 1), steps=1, sampler="Euler"))
    assert picture.parameters.startswith(f"{GIRL}\nSteps: 1, Sampler: Euler, CFG scale: 3, Seed: 1,")
    assert "TI hashes" not in picture.parameters


def test_a_saved_picture_holds_its_parameters_and_the_word(starter: Model, tmp_path: Path) -> None:
    lyra = random_word("lyra", starter, 1)
    [picture] = make(starter, request(("portrait of lyra, héllo 漢字", 1), steps=1), (lyra,))
    save_picture(tmp_path / "images" / "my lyra.png", picture, lyra)
    with Image.open(tmp_path / "images" / "my lyra.png") as image:
        assert image.text["parameters"] == picture.parameters  # type: ignore[attr-defined]
        assert image.tobytes() == picture.image.tobytes()
    found = read_embedding((tmp_path / "images" / "my lyra.png").read_bytes(), "my lyra")
    assert (found.name, found.vectors.tobytes()) == ("my lyra", lyra.vectors.tobytes())


def test_a_picture_saved_without_a_word_carries_none(starter: Model, tmp_path: Path) -> None:
    [picture] = make(starter, request((GIRL, 1), steps=1))
    save_picture(tmp_path / "plain.png", picture)
    with pytest.raises(VocableError) as caught:
        read_embedding((tmp_path / "plain.png").read_bytes(), "plain")
    assert caught.value.code == "embedding.absent"
