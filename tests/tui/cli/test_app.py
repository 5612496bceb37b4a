"""The border of the command line: every wrong use ends with one sentence, a hint and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tui.cli import app, output
from tui.cli.app import run_command_line


@pytest.fixture(autouse=True)
def _no_service_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCABLE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("runz", "No such command 'runz'. Did you mean 'runs'?"),
        ("runs --wat", "No such option: --wat"),
        ("show", "Missing argument 'ID'"),
        ("train", "There is nothing to train on."),
        ("train absent.toml", "The recipe absent.toml cannot be read: No such file or directory."),
        ("train --images p --steps many", "Invalid value for '--steps'"),
        ("train --images p --name a/b", "name: 'a/b' may hold letters, digits"),
        ("train --images p --set train.learn_rate=fast", "train.learn_rate: 'fast' is not a learning rate"),
        ("train --images p --set trian.steps=5", "The recipe has 1 fault: trian: is not known; did you mean train?\n"),
        ("train --images p --set train.steps=x", "train.steps: input should be a valid integer, not 'x'.\n"),
        ("train --images p --set steps", "steps: is not of the form group.key=value"),
        ("generate", "There is nothing to make: neither a prompt nor a picture to be like."),
        ("generate girl --size 64", "'64' is not a size."),
        ("generate girl --emphasis loud", "emphasis: input should be 'Original', 'No norm', 'Ignore' or 'None'"),
        ("generate girl --clip-skip 0", "clip_skip: input should be greater than or equal to 1"),
        ("generate girl --compat comfy", "compat: input should be '' or 'webui'"),
        ("generate girl --steps 0", "steps: input should be greater than or equal to 1"),
        ("generate girl --sampler Foo", "sampler: input should be 'Euler a'"),
        ("generate girl -o out.jpg", "out.jpg is not a PNG file's name."),
        ("hypernet new x --sizes 2,1", "sizes does not begin and end with 1.\n"),
        ("new zara --vectors 76", "vectors: input should be less than or equal to 75"),
        ("", "The terminal program needs a terminal."),
    ],
)
def test_wrong_use_is_told_in_a_sentence_and_ends_with_2(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(line.split()) == output.MISUSED
    talk = capsys.readouterr()
    assert talk.out == ""
    assert f"error: {sentence}" in talk.err or sentence in talk.err
    assert talk.err.startswith("error: ")
    assert "\nhint: " in talk.err
    assert "Traceback" not in talk.err


def test_a_group_without_a_command_says_so_below_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["hypernet"]) == output.MISUSED
    assert capsys.readouterr().err.startswith("error: A command is missing.\nhint: See: vocable hypernet --help")


def test_every_field_of_a_recipe_is_listed_without_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["train", "--options", "--json"]) == output.DONE
    listed = {item["option"]: item["default"] for item in json.loads(capsys.readouterr().out)}
    assert listed["train.learn_rate"] == "0.005"
    assert listed["name"] is None
    assert run_command_line(["train", "--options"]) == output.DONE
    defaults = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert defaults["data.live"] == "true"


def test_all_faults_of_a_recipe_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", "--images", "p", "--name", "a/b", "--vectors", "0", "--set", "train.learn_rate=fast", "--set", "x"]
    assert run_command_line(line) == output.MISUSED
    listed = capsys.readouterr().err.splitlines()
    assert listed[0] == "error: The recipe has 4 faults:"
    assert [fault.split(":")[0].strip() for fault in listed[1:5]] == ["x", "name", "start.vectors", "train.learn_rate"]


def test_with_json_an_error_is_an_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["train", "--images", "p", "--name", "a/b", "--json"]) == output.MISUSED
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "recipe.invalid"
    assert [fault["path"] for fault in error["faults"]] == ["name"]


def test_status_without_a_service_is_1_and_starts_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command_line(["daemon", "status", "--json"]) == output.FAILED
    status = json.loads(capsys.readouterr().out)
    assert (status["running"], status["pid"], status["worker_pid"]) == (False, None, None)
    assert status["workspace"] == str(tmp_path / "workspace")
    assert not (tmp_path / "workspace").exists()


def test_stopping_what_does_not_run_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["daemon", "stop"]) == output.DONE
    assert "No service runs" in capsys.readouterr().err


def test_absent_logs_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["daemon", "logs"]) == output.FAILED
    assert "There is no log at" in capsys.readouterr().err


def test_logs_show_their_last_lines_without_what_steers_a_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "workspace" / "state" / "worker.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"first\nsecond \x1b[31m\xff\nthird\n")
    assert run_command_line(["daemon", "logs", "--worker", "-n", "2"]) == output.DONE
    assert capsys.readouterr().out == "second \\x1b[31m\ufffd\nthird\n"


def test_a_fault_of_the_program_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise KeyError("inner")

    monkeypatch.setattr(app, "app", break_down)
    assert run_command_line(["runs"]) == output.FAILED
    told = capsys.readouterr().err
    assert told.startswith("error: This is a fault of the program itself (KeyError: 'inner').\nhint: ")
    assert "Traceback" not in told

    monkeypatch.setenv("VOCABLE_DEBUG", "1")
    assert run_command_line(["runs"]) == output.FAILED
    assert "Traceback" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from tui.cli.app import run_command_line\n"
        "assert run_command_line(['train', '--help']) == 0\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*names & {'torch', 'textual', 'PIL', 'numpy', 'httpx2'}, file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == ""
    assert "--images" in result.stdout


def test_a_reader_that_goes_away_is_no_fault() -> None:
    line = f"{sys.executable} -m tui --help | head -1"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert result.stderr == ""
