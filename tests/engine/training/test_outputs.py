from __future__ import annotations

import csv
import json
from pathlib import Path

from engine.models.load import Model
from engine.recipe import parse_recipe
from engine.training.outputs import LOSS_TABLE, LossTable, write_settings
from engine.training.report import Reading
from tests.engine.training.conftest import MakeJob, run_to_end


def make_table(folder: Path, every: int = 1) -> LossTable:
    return LossTable(folder, every=every, epoch_of=lambda update: divmod(update, 3))


def readings(*steps: int) -> list[Reading]:
    return [Reading(step, 0.005, None if step == 4 else step / 8, True) for step in steps]


def rows(folder: Path) -> list[list[str]]:
    with (folder / LOSS_TABLE).open(newline="") as file:
        return list(csv.reader(file))


def test_the_table_has_the_columns_of_the_web_ui(tmp_path: Path) -> None:
    make_table(tmp_path).add(readings(1, 2, 3, 4))
    assert rows(tmp_path) == [
        ["step", "epoch", "epoch_step", "loss", "learn_rate"],
        ["1", "0", "0", "0.1250000", "0.005"],
        ["2", "0", "1", "0.2500000", "0.005"],
        ["3", "0", "2", "0.3750000", "0.005"],
        ["4", "1", "0", "nan", "0.005"],
    ]


def test_rows_come_at_their_interval_or_not_at_all(tmp_path: Path) -> None:
    make_table(tmp_path, every=2).add(readings(1, 2, 3, 4, 5, 6))
    assert [row[0] for row in rows(tmp_path)[1:]] == ["2", "4", "6"]
    make_table(tmp_path / "off", every=0).add(readings(1, 2))
    assert not (tmp_path / "off").exists()


def test_after_a_resume_no_row_stands_twice(tmp_path: Path) -> None:
    make_table(tmp_path).add(readings(1, 2, 3, 4))
    table = make_table(tmp_path)
    table.cut(2)
    table.add(readings(3, 4, 5))
    assert [row[0] for row in rows(tmp_path)[1:]] == ["1", "2", "3", "4", "5"]


def test_a_row_that_was_torn_is_dropped(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.add(readings(1, 2))
    with (tmp_path / LOSS_TABLE).open("a") as file:
        file.write("3,1,0")
    table.cut(7)
    table.add(readings(3))
    assert [row[0] for row in rows(tmp_path)[1:]] == ["1", "2", "3"]


def test_settings_stand_in_the_run_folder_in_the_web_uis_names(make_job: MakeJob) -> None:
    job = make_job(preview__prompt="portrait of [name]", train__learn_rate="0.005:4, 0.001")
    write_settings(job, pictures=4, initial_step=2, clock=lambda: 0.0)
    settings = json.loads((job.folder / "settings.json").read_text())
    assert next(iter(settings)) == "datetime"
    assert settings["datetime"] == "1970-01-01 00:00:00"
    assert settings["model_hash"] == job.resolved.model.hash
    assert (settings["num_of_dataset_images"], settings["num_vectors_per_token"]) == (4, 2)
    assert (settings["training_width"], settings["learn_rate"]) == (64, "0.005:4, 0.001")
    assert settings["preview_prompt"] == "portrait of [name]"
    assert parse_recipe((job.folder / "recipe.toml").read_text()) == job.recipe


def test_every_row_of_a_run_has_its_epoch(starter: Model, make_job: MakeJob) -> None:
    job = make_job(train__batch_size=3)
    run_to_end(starter, job)
    assert [row[1:3] for row in rows(job.folder)[1:]] == [
        ["0", "0"],
        ["0", "1"],
        ["1", "0"],
        ["2", "0"],
        ["3", "0"],
        ["3", "1"],
    ]
