"""The reference page of the API: it is current, complete, and its commands do what it says."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from daemon.api.codes import CODES
from daemon.api.reference import EXAMPLES, field_meanings, make_page
from daemon.api.routes import BODY, COMMON
from daemon.api.table import ENDPOINTS
from daemon.protocol.jobs import GenerateRequest
from daemon.protocol.runs import RunDetail, RunView
from tests.daemon.conftest import PATIENCE_S, Running

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == make_page(), "make it again: python -m daemon.api.reference > docs/api.md"


def test_every_route_says_what_it_does_and_every_code_it_declares_is_explained() -> None:
    assert [endpoint.path for endpoint in ENDPOINTS if not (endpoint.handler.__doc__ or "").endswith(".")] == []
    declared = {code for endpoint in ENDPOINTS for code in endpoint.codes} | {*COMMON, *BODY}
    assert declared == set(CODES)


def test_the_meaning_of_a_field_is_what_stands_below_it_or_below_its_parent() -> None:
    assert field_meanings(GenerateRequest)["count"] == "Pictures of each prompt."
    assert field_meanings(RunDetail)["restarts"] == field_meanings(RunView)["restarts"] != ""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_commands_of_the_page_work_one_after_the_other(running: Running) -> None:
    answers = []
    for title, command in EXAMPLES:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", command),
            env={**os.environ, "SOCKET": str(running.client.socket)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 0, f"{title}: {output!r} {errors!r}"
        answers.append(output)
    assert json.loads(answers[2])["name"] == "fox"
    assert json.loads(answers[-1].splitlines()[0])["type"] == "hello"
