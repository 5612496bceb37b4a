"""Questions about single files and prompts, asked of a real service whose inspector reads real files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from daemon.inspector.frames import Message
from daemon.inspector.inspector import Inspector
from daemon.protocol.words import (
    FORMAT_SUFFIXES,
    ConvertRequest,
    InspectRequest,
    ParametersRequest,
    TokensRequest,
    WordFormat,
)
from daemon.tables import Target
from daemon.wordfiles import convert_file, inspect_files
from engine.embedding.convert import Format
from engine.embedding.png import SIGNATURE, encode_chunk, walk_chunks
from engine.embedding.read import read_embedding, read_words
from engine.embedding.tensors import encode_tensors
from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors
from engine.errors import VocableError
from engine.models.catalog import find_model
from engine.sampling.infotext import format_parameters
from tests.daemon.conftest import Running
from tests.daemon.words import picture, word_file, word_picture

STARTER = find_model("starter", [])


def word(width: int = STARTER.width, *, split: int = 0, fill: float = 0.5, model: str = "starter") -> Embedding:
    vectors = np.full((2, width), fill, np.float32)
    return Embedding("fox", vectors, step=7, model=model, model_hash=STARTER.hash, split=split)


def read(path: str | Path) -> bytes:
    return Path(path).read_bytes()


def put(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def told_picture(**changes: object) -> bytes:
    """A picture that says how it was made."""
    values = {"prompt": "a fox", "negative_prompt": "", "sampler": "DPM++ 2M", "steps": 12, "cfg_scale": 5.0}
    values |= {"seed": 3, "width": 64, "height": 48, "model": STARTER, "hashes": {}}
    text = format_parameters(**(values | changes))  # type: ignore[arg-type]
    chunks = [(kind, bytes(content)) for kind, content in walk_chunks(picture())]
    chunks.insert(1, (b"tEXt", b"parameters\0" + text.encode()))
    return SIGNATURE + b"".join(encode_chunk(kind, content) for kind, content in chunks)


async def code_of(asking: object) -> str:
    with pytest.raises(VocableError) as caught:
        await asking  # type: ignore[misc]
    return caught.value.code


async def test_files_are_described_and_compared_with_a_model(running: Running, tmp_path: Path) -> None:
    fitting = put(tmp_path / "fox.safetensors", encode_safetensors(word()))
    wide = put(tmp_path / "wide.safetensors", encode_safetensors(word(768 + 1280, split=768)))
    reply = await running.client.inspect(InspectRequest(paths=[fitting, wide, fitting]))
    assert reply.model == "starter"
    assert [report.path for report in reply.files] == [fitting, wide, fitting]
    (report,) = reply.files[0].words
    assert (report.name, report.vectors, report.width, report.step, report.fits) == ("fox", 2, STARTER.width, 7, True)
    assert (report.reason, report.model, len(report.checksum)) == ("", "starter", 4)
    assert report.encoders[0].norms == pytest.approx([0.5 * STARTER.width**0.5] * 2)
    assert reply.files[0].size == len(encode_safetensors(word()))
    (report,) = reply.files[1].words
    assert (report.family, report.fits, [encoder.key for encoder in report.encoders]) == (
        "sdxl",
        False,
        ["clip_l", "clip_g"],
    )
    assert "768 + 1280" in report.reason
    assert str(STARTER.width) in report.reason


async def test_another_model_may_be_named(running: Running, tmp_path: Path) -> None:
    path = put(tmp_path / "fox.safetensors", encode_safetensors(word(32)))
    request = InspectRequest(paths=[path], model="tiny")
    (report,) = (await running.client.inspect(request)).files[0].words
    assert report.fits
    assert "not on tiny" in report.warning
    assert await code_of(running.client.inspect(InspectRequest(paths=[path], model="none"))) == "model.unknown"


async def test_files_that_cannot_be_read_say_why_and_hide_no_other(running: Running, tmp_path: Path) -> None:
    good = put(tmp_path / "good.safetensors", word_file())
    os.mkfifo(tmp_path / "pipe.safetensors")
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.truncate(8 << 30)
    (tmp_path / "link.safetensors").symlink_to(good)
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("pipe", "huge", "none", "link", "good")]
    paths += [put(tmp_path / "cut.pt", b"PK\3\4"), put(tmp_path / "plain.png", picture()), str(tmp_path)]
    files = (await running.client.inspect(InspectRequest(paths=paths))).files
    codes = [file.error.code if file.error else "" for file in files]
    assert codes[:5] == ["file.kind", "file.size", "file.absent", "", ""]
    assert codes[5:] == ["embedding.unreadable", "embedding.absent", "file.kind"]


async def test_what_a_file_says_cannot_steer_a_terminal(running: Running, tmp_path: Path) -> None:
    name = "a\x1b]52;c;eA==\x07\u202eb"
    path = put(tmp_path / f"{name}.safetensors", encode_safetensors(word(model="\x1b[31m\u200b")))
    reply = await running.client.inspect(InspectRequest(paths=[path]))
    assert "\x1b" not in reply.model_dump_json().encode().decode("unicode_escape")
    assert "\u202e" not in reply.files[0].path
    assert reply.files[0].words[0].model == "\\x1b[31m\\u200b"


@pytest.mark.parametrize("form", ["safetensors", "webui-pt", "onetrainer", "png", "diffusers"])
async def test_a_word_is_converted_and_called_like_the_new_file(
    running: Running, tmp_path: Path, form: WordFormat
) -> None:
    source = put(tmp_path / "fox.png", word_picture(0.25, vectors=3))
    output = tmp_path / ("red fox" + {"webui-pt": ".pt", "png": ".png"}.get(form, ".safetensors"))
    reply = await running.client.convert(ConvertRequest(path=source, format=form, output=str(output)))
    assert (reply.paths, reply.name, reply.vectors) == ([str(output)], "red fox", 3)
    assert (read_embedding(output.read_bytes(), "x").vectors == 0.25).all()
    again = ConvertRequest(path=source, format=form, output=str(output))
    before = output.read_bytes()
    assert await code_of(running.client.convert(again)) == "file.exists"
    assert output.read_bytes() == before
    await running.client.convert(again.model_copy(update={"overwrite": True}))


async def test_a_word_of_sdxl_goes_into_two_files_and_back_into_one(running: Running, tmp_path: Path) -> None:
    whole = encode_safetensors(word(768 + 1280, split=768))
    source = put(tmp_path / "fox.safetensors", whole)
    request = ConvertRequest(path=source, format="diffusers", output=str(tmp_path / "halves.safetensors"))
    left, right = (await running.client.convert(request)).paths
    assert right == str(tmp_path / "halves_2.safetensors")
    joined = ConvertRequest(path=left, second=right, format="safetensors", output=str(tmp_path / "again.safetensors"))
    reply = await running.client.convert(joined)
    assert reply.width == 768 + 1280
    again = read_embedding(read(reply.paths[0]), "fox")
    assert (again.split, again.vectors.tobytes()) == (768, read_embedding(whole, "fox").vectors.tobytes())


async def test_a_second_file_in_the_way_stops_both(running: Running, tmp_path: Path) -> None:
    source = put(tmp_path / "fox.safetensors", encode_safetensors(word(768 + 1280, split=768)))
    put(tmp_path / "out_2.safetensors", b"mine")
    request = ConvertRequest(path=source, format="diffusers", output=str(tmp_path / "out.safetensors"))
    assert await code_of(running.client.convert(request)) == "file.exists"
    assert (tmp_path / "out_2.safetensors").read_bytes() == b"mine"
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("before", [None, (b"old left", b"old right")])
async def test_a_second_file_that_cannot_be_written_leaves_both_as_they_were(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[bytes, bytes] | None
) -> None:
    source = put(tmp_path / "both.safetensors", encode_safetensors(word(768 + 1280, split=768)))
    folder = tmp_path / "out"
    folder.mkdir()
    paths = (folder / "out.safetensors", folder / "out_2.safetensors")
    for path, data in zip(paths, before or (), strict=False):
        put(path, data)
    replace, link = os.replace, os.link

    def fail_at(act: Callable[..., None]) -> Callable[..., None]:
        def refuse(source: Any, destination: Any, **options: Any) -> None:
            if Path(destination).name == "out_2.safetensors":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            act(source, destination, **options)

        return refuse

    monkeypatch.setattr(os, "replace", fail_at(replace))
    monkeypatch.setattr(os, "link", fail_at(link))
    request = ConvertRequest(path=source, format="diffusers", output=str(paths[0]), overwrite=before is not None)
    assert await code_of(running.client.convert(request)) == "disk.full"
    assert sorted(os.listdir(folder)) == [path.name for path in paths if before]
    assert [read(path) for path in paths if before] == list(before or ())


async def test_one_word_of_several_must_be_chosen(running: Running, tmp_path: Path) -> None:
    rows = word(768).vectors
    tensors = {f"bundle_emb.{name}.string_to_param.*": rows * factor for name, factor in (("fox", 1), ("owl", 2))}
    source = put(tmp_path / "lora.safetensors", encode_tensors(tensors | {"lora_a": rows}, {}))
    request = ConvertRequest(path=source, format="safetensors", output=str(tmp_path / "owl.safetensors"))
    assert await code_of(running.client.convert(request)) == "embedding.several"
    assert await code_of(running.client.convert(request.model_copy(update={"word": "cat"}))) == "embedding.absent"
    await running.client.convert(request.model_copy(update={"word": "Owl"}))
    assert (read_embedding((tmp_path / "owl.safetensors").read_bytes(), "owl").vectors == 1.0).all()


async def test_a_picture_beside_the_file_carries_the_word(running: Running, tmp_path: Path) -> None:
    from PIL import Image

    source = put(tmp_path / "fox.safetensors", encode_safetensors(word()))
    Image.new("RGB", (320, 256), "red").save(tmp_path / "fox.preview.png")
    request = ConvertRequest(path=source, format="png", output=str(tmp_path / "carrier.png"))
    (path,) = (await running.client.convert(request)).paths
    with Image.open(path) as image:
        assert image.height == 256
        assert image.getpixel((image.width // 2, 128))[0] > 100
    assert read_words(read(path), "fox").words[0].vectors.tobytes() == word().vectors.tobytes()


async def test_a_picture_beside_the_file_that_cannot_be_used_is_named(running: Running, tmp_path: Path) -> None:
    source = put(tmp_path / "fox.safetensors", encode_safetensors(word()))
    beside = put(tmp_path / "fox.png", picture())
    request = ConvertRequest(path=source, format="png", output=str(tmp_path / "carrier.png"))
    assert any("fox.png" in note and "1 x 1" in note for note in (await running.client.convert(request)).notes)
    asked = request.model_copy(update={"picture": beside, "overwrite": True})
    assert await code_of(running.client.convert(asked)) == "picture.small"


@pytest.mark.parametrize("field", ["path", "output", "second", "picture"])
async def test_relative_paths_are_refused(running: Running, tmp_path: Path, field: str) -> None:
    source = put(tmp_path / "fox.safetensors", encode_safetensors(word()))
    values = {"path": source, "format": "png", "output": str(tmp_path / "x.png"), field: "fox.safetensors"}
    assert await code_of(running.client.convert(ConvertRequest.model_validate(values))) == "request.invalid"
    assert not (tmp_path / "x.png").exists()


async def test_a_name_that_could_be_no_word_is_refused(running: Running, tmp_path: Path) -> None:
    source = put(tmp_path / "fox.safetensors", encode_safetensors(word()))
    for name in ("CON.safetensors", "....safetensors", "\u202e.safetensors"):
        request = ConvertRequest(path=source, format="safetensors", output=str(tmp_path / name))
        assert await code_of(running.client.convert(request)) == "embedding.name"


async def test_names_that_are_too_long_are_told_and_hold_nothing_up(running: Running, tmp_path: Path) -> None:
    source = put(tmp_path / f"{'f' * 243}.safetensors", encode_safetensors(word()))
    request = ConvertRequest(path=source, format="safetensors", output=str(tmp_path / f"{'o' * 250}.safetensors"))
    assert await code_of(running.client.convert(request)) == "disk.write"
    request = ConvertRequest(path=source, format="png", output=str(tmp_path / "fox.png"))
    assert (await running.client.convert(request)).paths == [request.output]


async def test_a_folder_in_the_way_is_called_one(running: Running, tmp_path: Path) -> None:
    source = put(tmp_path / "fox.safetensors", encode_safetensors(word()))
    with pytest.raises(VocableError, match="is a folder"):
        await running.client.convert(ConvertRequest(path=source, format="png", output=str(tmp_path), overwrite=True))


@pytest.mark.parametrize("answer", [{}, {"words": [{}]}, {"words": 1}, {"suffixes": ["/"], "kind": "embedding"}])
async def test_what_makes_no_sense_is_not_believed(tmp_path: Path, answer: Message) -> None:
    class Confused(Inspector):
        async def ask(self, question: Message, parts: Sequence[bytes]) -> tuple[Message, list[bytes]]:
            return answer, [b"x"]

    source = put(tmp_path / "fox.safetensors", b"x")
    reply = await inspect_files(Confused(), InspectRequest(paths=[source]), Target("starter", STARTER.width))
    assert reply.files[0].error is not None
    assert reply.files[0].error.code == "inspector.lost"
    request = ConvertRequest(path=source, format="safetensors", output=str(tmp_path / "new.safetensors"))
    assert await code_of(convert_file(Confused(), request)) == "inspector.lost"
    assert os.listdir(tmp_path) == ["fox.safetensors"]


async def test_tokens_are_counted_with_the_words_of_the_folder(running: Running) -> None:
    folder = running.workspace.embeddings
    put(folder / "zorbfox.safetensors", encode_safetensors(word()))
    put(folder / "other.safetensors", encode_safetensors(word(model="elsewhere")))
    put(folder / "wide.safetensors", encode_safetensors(word(768)))
    while len([known for known in await running.client.words() if known.hash]) < 3:
        pass
    reply = await running.client.tokens(TokensRequest(prompt="zorbfox"))
    assert (reply.model, reply.count, reply.limit, reply.chunks) == ("starter", 2, 75, [2])
    assert (reply.words, reply.notes) == (["zorbfox"], [])
    plain = await running.client.tokens(TokensRequest(prompt="<embedding:nowhere> <hypernet:x:1> <embedding:wide>"))
    assert plain.words == []
    assert len([note for note in plain.notes if "nowhere" in note or "wide" in note or "hypernet" in note]) == 3
    new = await running.client.tokens(TokensRequest(prompt="zorbfox, zorbfox", new_words={"zorbfox": 70}))
    assert (new.limit, len(new.chunks)) == (150, 2)
    long = await running.client.tokens(TokensRequest(prompt=", ".join(["zorbfox"] * 60)))
    assert long.limit == 75 * len(long.chunks)


async def test_new_words_that_cannot_be_are_refused(running: Running) -> None:
    for words in ({"": 1}, {"a/b": 1}, {"fox": 0}, {"fox": 76}):
        assert await code_of(running.client.tokens(TokensRequest(prompt="x", new_words=words))) == "request.invalid"


async def test_a_picture_becomes_the_request_that_made_it(running: Running, tmp_path: Path) -> None:
    data = told_picture(prompt="a (fox:1.2)", negative_prompt="blue", clip_skip=2, emphasis="No norm")
    reply = await running.client.parameters(ParametersRequest(path=put(tmp_path / "a.png", data)))
    made = reply.request
    assert (made.prompts, made.negative_prompt, made.sampler) == (["a (fox:1.2)"], "blue", "DPM++ 2M")
    assert (made.steps, made.cfg_scale, made.seed, made.width, made.height) == (12, 5.0, 3, 64, 48)
    assert (made.clip_skip, made.emphasis, made.model) == (2, "No norm", "starter")
    assert made.output == str(tmp_path / "a-again.png")
    assert reply.notes == []
    assert reply.text.startswith("a (fox:1.2)\nNegative prompt: blue\n")


async def test_words_that_are_others_or_gone_are_told(running: Running, tmp_path: Path) -> None:
    put(running.workspace.embeddings / "fox.safetensors", encode_safetensors(word()))
    while not await running.client.words():
        pass
    data = told_picture(hashes={"fox": "0" * 64, "owl": "1" * 64})
    notes = (await running.client.parameters(ParametersRequest(path=put(tmp_path / "a.png", data)))).notes
    assert any("'fox'" in note and "another" in note for note in notes)
    assert any("'owl'" in note and "not here" in note for note in notes)


async def test_a_picture_that_says_nothing_is_refused(running: Running, tmp_path: Path) -> None:
    for data in (picture(), b"no picture", word_picture()):
        request = ParametersRequest(path=put(tmp_path / "a.png", data))
        assert await code_of(running.client.parameters(request)) == "picture.silent"


def test_the_formats_that_are_offered_are_those_that_are_written() -> None:
    assert get_args(WordFormat) == get_args(Format) == tuple(FORMAT_SUFFIXES)
