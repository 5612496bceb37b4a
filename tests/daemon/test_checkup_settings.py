"""What doctor says of the settings, with no service there."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.checkup_settings import check_settings
from daemon.paths import Workspace


def check(root: Path, text: str) -> list[tuple[str, str]]:
    (root / "vocable.toml").write_text(text)
    return [(finding.verdict, finding.text) for finding in check_settings(Workspace(root))]


def test_settings_that_are_not_there_are_not_talked_about(tmp_path: Path) -> None:
    assert check_settings(Workspace(tmp_path)) == []


def test_settings_that_can_be_used_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    assert check(tmp_path, '[paths]\nmodels = ["more"]\nruns = "disk/runs"') == [("ok", "vocable.toml can be used")]
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[deadlines", "it is not TOML"),
        ("[deadlines]\nstep_s = -4", "deadlines.step_s: input should be greater than or equal to 1"),
        ("[deadlines]\nstepp_s = 4", "deadlines.stepp_s is not known; did you mean deadlines.step_s?"),
        ('[paths]\nruns = "/dev/null/runs"', "paths.runs: /dev/null cannot be written to"),
    ],
)
def test_settings_that_the_service_could_not_work_with_are_a_fault(tmp_path: Path, text: str, sentence: str) -> None:
    ((verdict, told),) = check(tmp_path, text)
    assert verdict == "fault"
    assert sentence in told


def test_every_folder_that_is_not_there_is_warned_of(tmp_path: Path) -> None:
    found = check(tmp_path, '[paths]\nmodels = ["nowhere"]\ndatasets = ["/none", "."]')
    assert found == [
        ("warning", f"paths.models: there is no folder {tmp_path / 'nowhere'}"),
        ("warning", "paths.datasets: there is no folder /none"),
    ]
