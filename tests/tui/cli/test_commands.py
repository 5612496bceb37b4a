"""The commands against a real service: what they print, what they leave behind, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.tui.cli.conftest import PICTURES, QUICK, Vocable


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with two good pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("0000.png", "0000.txt", "0001.png", "0001.txt"):
        (folder / name).write_bytes((Path(PICTURES) / name).read_bytes())
    return folder


def test_starting_twice_gives_one_service(vocable: Vocable) -> None:
    first = vocable.json("daemon", "start")
    again = vocable.json("daemon", "start")
    status = vocable.json("daemon", "status")
    assert first["pid"] == again["pid"] == status["pid"]
    assert Path(status["socket"]).is_socket()
    assert status["running"] is True
    assert status["workspace"] == str(vocable.root)
    assert str(status["pid"]) in vocable("daemon", "status")[0]


def test_a_run_is_followed_to_its_word_and_the_word_is_usable(vocable: Vocable, tmp_path: Path) -> None:
    out, err = vocable("train", "--name", "my cat", "--images", PICTURES, "--steps", "3", *QUICK)
    embedding = vocable.root / "embeddings" / "my cat.safetensors"
    assert out == f"{embedding}\n"
    assert embedding.is_file()
    assert "training my cat: 3 of 3 (100 %)" in err
    assert "my cat finished after 3 of 3 steps" in err
    assert f"vocable --workspace {vocable.root} generate 'portrait of my cat'" in err

    run = next(run for run in vocable.json("runs") if run["name"] == "my cat")
    assert (run["state"], run["step"], run["steps"]) == ("finished", 3, 3)
    assert vocable.json("show", "my cat")["recipe"]["train"]["steps"] == 3
    assert vocable.json("follow", run["id"][:4])["id"] == run["id"]
    shown, _ = vocable("show", run["id"])
    assert "train.batch_size=1" in shown
    assert f"embedding  {embedding}" in shown
    word = next(word for word in vocable.json("words") if word["name"] == "my cat")
    assert (word["usable"], word["vectors"], word["step"]) == (True, 4, 3)

    picture = tmp_path / "out.png"
    out, _ = vocable("generate", "portrait of my cat", "-o", str(picture), "--steps", "2", "--size", "64x48")
    assert out == f"{picture}\n"
    with Image.open(picture) as image:
        assert image.size == (64, 48)
        assert "portrait of my cat" in str(image.info["parameters"])
    assert isinstance(vocable.json("daemon", "status")["worker_pid"], int)


def test_tables_are_for_people_and_keep_whole_names_in_a_pipe(vocable: Vocable) -> None:
    name = "a name of many letters " * 2 + "end"
    vocable("new", name, "--init", "girl", "--vectors", "2")
    out, _ = vocable("words")
    assert out.splitlines()[0].split() == ["NAME", "VECTORS", "WIDTH", "STEP", "MODEL", "VERDICT"]
    assert any(line.startswith(name) and line.split()[-1] == "usable" for line in out.splitlines())


def test_several_pictures_are_numbered_and_counted_up_from_a_drawn_seed(
    vocable: Vocable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = vocable.json("generate", "portrait of a girl", "--count", "2", "--steps", "1")
    stem = f"vocable-{made['seed']}"
    assert made["pictures"] == [str(tmp_path / f"{stem}-1.png"), str(tmp_path / f"{stem}-2.png")]
    assert all(Path(path).is_file() for path in made["pictures"])


def test_a_recipe_file_is_queued_without_waiting(vocable: Vocable, tmp_path: Path) -> None:
    recipe = tmp_path / "hat.toml"
    recipe.write_text(f'name = "hat"\n[data]\nfolder = "{PICTURES}"\n[train]\nsteps = 900\n')
    out, err = vocable("train", str(recipe), "--detach", *QUICK)
    identifier = out.strip()
    assert f"follow {identifier}" in err
    assert vocable.json("pause", "hat")["id"] == identifier
    refused = vocable.json("train", str(recipe), "--detach", code=2)["error"]
    assert refused["code"] == "run.name_taken"
    assert vocable.json("stop", identifier)["id"] == identifier
    assert vocable.json("follow", identifier)["state"] == "stopped"


def test_interrupting_a_follower_leaves_the_run_going_on(vocable: Vocable) -> None:
    program = vocable.start("train", "--name", "long", "--images", PICTURES, "--steps", "5000", *QUICK)
    program.wait_for("long (")
    program.process.send_signal(signal.SIGINT)
    code, _, err = program.end()
    assert code == 130
    assert "The run goes on; vocable" in err
    assert "Traceback" not in err
    run = vocable.json("show", "long")
    assert run["state"] in ("queued", "running")
    vocable("stop", run["id"])
    assert vocable.json("follow", run["id"])["state"] == "stopped"


def test_interrupting_a_generation_cancels_it(vocable: Vocable, tmp_path: Path) -> None:
    output = tmp_path / "never.png"
    program = vocable.start("generate", "a girl", "-o", str(output), "--steps", "500", "--count", "64")
    program.wait_for("sampling: ")
    program.process.send_signal(signal.SIGINT)
    code, _, err = program.end()
    assert (code, err) == (130, "Cancelled.\n")
    # Were it not cancelled, this picture would have to wait for minutes behind 64 others.
    vocable("generate", "a girl", "-o", str(tmp_path / "next.png"), "--steps", "1")
    assert not output.exists()


def test_a_corrupt_picture_among_good_ones_is_named_and_left_out(vocable: Vocable, copied: Path) -> None:
    (copied / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    _, err = vocable("train", "--name", "brave", "--images", str(copied), "--steps", "1", *QUICK)
    assert "broken.png" in err
    assert "brave finished" in err


def test_bad_inputs_are_refused_with_2_and_queue_nothing(vocable: Vocable, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nameless.txt").write_text("a picture\n")
    template = str(tmp_path / "nameless.txt")
    cases = {
        ("--images", str(tmp_path / "empty")): "holds no pictures",
        ("--images", str(tmp_path / "absent")): "there is no folder",
        ("--images", str(copied), "--template", template): "has no [name]",
        ("--images", str(copied), "--model", "sdxl"): "there is no model 'sdxl'",
        ("--images", str(copied), "--template", "cubist"): "cubist",
    }
    before = vocable.json("runs")
    for flags, sentence in cases.items():
        out, err = vocable("train", "--name", "refused", *flags, code=2)
        assert out == ""
        assert sentence in err.splitlines()[0]
        assert err.startswith("error: ")
    assert vocable.json("runs") == before


def test_faults_that_only_the_disk_knows_are_told_together(vocable: Vocable, tmp_path: Path) -> None:
    flags = ("--name", "n", "--images", str(tmp_path / "absent"), "--model", "sdxl")
    error = vocable.json("train", *flags, code=2)["error"]
    assert [fault["path"] for fault in error["faults"]] == ["model", "data.folder"]


def test_wrong_references_names_and_models_end_with_2(vocable: Vocable, tmp_path: Path) -> None:
    vocable("new", "twice", "--init", "girl")
    cases = {
        ("show", "zzz"): "There is no run 'zzz'.",
        ("pause", "zzz"): "There is no run 'zzz'.",
        ("new", "a/b"): "'a/b' may hold letters",
        ("new", "twice"): "There is a word 'twice' already",
        ("generate", "x", "-o", str(tmp_path / "x.png"), "--model", "sdxl"): "There is no model 'sdxl'.",
    }
    for line, sentence in cases.items():
        out, err = vocable(*line, code=2)
        assert (out, sentence in err, "hint: " in err) == ("", True, True), err


def test_a_replaced_word_goes_to_the_trash(vocable: Vocable) -> None:
    vocable("new", "again", "--init", "girl")
    before = (vocable.root / "embeddings" / "again.safetensors").read_bytes()
    vocable("new", "again", "--init", "boy", "--overwrite")
    assert before in [path.read_bytes() for path in (vocable.root / "trash").rglob("*.safetensors")]


def test_a_second_service_is_refused_with_its_exit_code(vocable: Vocable) -> None:
    vocable("daemon", "start")
    second = subprocess.run(
        [sys.executable, "-m", "daemon", "--workspace", str(vocable.root)], capture_output=True, text=True
    )
    assert second.returncode == 75
    assert "runs on this workspace already" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_follower_starts_a_killed_service_again_and_the_run_goes_on(own_vocable: Vocable) -> None:
    settings = ("save.checkpoint_every=1", "save.images_every=2", "preview.steps=1")
    flags = ("--steps", "5000", *QUICK, *(flag for setting in settings for flag in ("--set", setting)))
    program = own_vocable.start("train", "--name", "orphan", "--images", PICTURES, *flags)
    program.wait_for("preview at step ")
    os.kill(own_vocable.json("daemon", "status")["pid"], signal.SIGKILL)
    program.wait_for("The service was lost")
    program.wait_for("orphan (")
    own_vocable("stop", "orphan")
    code, out, err = program.end()
    assert code == 0, err
    assert out == f"{own_vocable.root / 'embeddings' / 'orphan.safetensors'}\n"


def test_a_follower_of_a_service_that_is_stopped_says_how_to_go_on(own_vocable: Vocable) -> None:
    run = own_vocable.json("train", "--name", "later", "--images", PICTURES, "--steps", "5000", "--detach", *QUICK)
    program = own_vocable.start("follow", run["id"])
    program.wait_for("later (")
    own_vocable("daemon", "stop")
    code, out, err = program.end()
    assert (code, out) == (1, "")
    assert "error: The service was stopped; later is at step" in err
    assert f"vocable follow {run['id']}" in err
    assert own_vocable.json("daemon", "status", code=1)["running"] is False
