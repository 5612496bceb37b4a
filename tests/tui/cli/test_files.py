"""Files of embeddings and prompts looked at from the command line, before a real service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.embedding.read import read_embedding
from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors
from tests.tui.cli.conftest import Vocable

VECTORS = np.linspace(-0.5, 0.5, 3 * 768, dtype=np.float32).reshape(3, 768)


@pytest.fixture
def word(tmp_path: Path) -> Path:
    path = tmp_path / "lyra.safetensors"
    origin = {"model": "some-model", "model_hash": "0123456789", "metadata": {"vocable.init_text": "girl"}}
    path.write_bytes(encode_safetensors(Embedding("lyra", VECTORS, step=120, **origin)))
    return path


def test_inspect_shows_everything_a_file_says(vocable: Vocable, word: Path) -> None:
    (report,) = vocable.json("inspect", str(word))["files"]
    (found,) = report["words"]
    assert len(report["hash"]) == 12
    assert (found["name"], found["vectors"], found["width"], found["family"]) == ("lyra", 3, 768, "sd1")
    assert (found["step"], found["model"], found["model_hash"]) == (120, "some-model", "0123456789")
    assert found["encoders"][0]["norms"] == pytest.approx(np.linalg.norm(VECTORS, axis=1).tolist(), rel=1e-5)
    assert found["fits"] is False
    assert "768" in found["reason"]
    out, _ = vocable("inspect", str(word))
    assert "vectors   3 of 768 (sd1)" in out
    assert "fits      starter: no." in out
    assert f"checksum  {found['checksum']}" in out


def test_inspect_goes_on_behind_a_file_it_cannot_read_and_ends_with_1(
    vocable: Vocable, word: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "evil\x1b[31m.pt"
    hostile.write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    out, _ = vocable("inspect", str(hostile), str(tmp_path / "absent.pt"), str(word), code=1)
    assert "\x1b" not in out
    assert "word      lyra" in out


def test_convert_goes_to_every_format_and_back_bit_for_bit(vocable: Vocable, word: Path, tmp_path: Path) -> None:
    endings = {"webui-pt": "pt", "diffusers": "safetensors", "onetrainer": "safetensors", "png": "png"}
    for to, ending in endings.items():
        folder = tmp_path / to
        folder.mkdir()
        path = folder / f"lyra.{ending}"
        out, err = vocable("convert", str(word), "--to", to, "-o", str(path))
        assert out == f"{path}\n"
        assert ("init text" in err) == (to in ("webui-pt", "png"))
        back = folder / "back.safetensors"
        vocable("convert", str(path), "--to", "safetensors", "-o", str(back))
        assert read_embedding(back.read_bytes(), "back").vectors.tobytes() == VECTORS.tobytes()


def test_convert_replaces_no_file_unless_told(vocable: Vocable, word: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.pt"
    taken.write_bytes(b"mine")
    _, err = vocable("convert", str(word), "--to", "webui-pt", "-o", str(taken), code=2)
    assert "taken.pt" in err
    assert taken.read_bytes() == b"mine"
    vocable("convert", str(word), "--to", "webui-pt", "-o", str(taken), "--overwrite")
    assert taken.read_bytes() != b"mine"


def test_convert_says_what_is_wrong_with_a_name_or_format(vocable: Vocable, word: Path) -> None:
    assert "End it in .pt." in vocable("convert", str(word), "--to", "webui-pt", "-o", "x.safetensors", code=2)[1]
    assert "webui-pt" in vocable("convert", str(word), "--to", "docx", code=2)[1]


def test_tokens_counts_a_word_with_its_vectors(vocable: Vocable) -> None:
    vocable("new", "quillon", "--init", "girl", "--vectors", "6")
    bare = vocable.json("tokens", "portrait of a girl")
    reply = vocable.json("tokens", "portrait of quillon, (portrait of a girl:1.2)")
    assert reply["words"] == ["quillon"]
    assert reply["count"] == 6 + bare["count"] + 3  # portrait, of, the comma
    assert reply["limit"] == 75
    out, _ = vocable("tokens", "quillon BREAK a girl")
    assert out.splitlines()[0].endswith("/ 150")
    assert "words  quillon" in out


def test_tokens_tells_of_words_that_do_not_exist(vocable: Vocable) -> None:
    reply = json.loads(vocable("tokens", "<embedding:nobody> in a garden", "--json")[0])
    assert any("nobody" in note for note in reply["notes"])
