"""Routes of the settings. A change names the revision that it was made for, so that no other one is lost."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import read_body, reply, service_of
from daemon.api.routes import Endpoint, Parameter
from daemon.protocol.settings import ChangeSettings, SettingsView
from daemon.service import Service
from daemon.settings import read_revision, write_settings
from daemon.signals import reload_settings
from engine.text import escape


async def show_settings(request: Request) -> Response:
    """Tell what `vocable.toml` says, with the defaults of what it leaves out."""
    return reply(await _view(service_of(request)))


async def change_settings(request: Request) -> Response:
    """Write `vocable.toml`, keeping its comments, and apply it as SIGHUP does."""
    body = await read_body(request, ChangeSettings)
    service, revision = service_of(request), request.headers.get("if-match", "").strip('"')
    await asyncio.to_thread(write_settings, service.workspace.settings, body.settings, revision)
    await reload_settings(service)
    return reply(await _view(service))


async def _view(service: Service) -> SettingsView:
    path = service.workspace.settings
    settings, revision = await asyncio.to_thread(read_revision, path)
    return SettingsView(revision=revision, path=escape(str(path), 5000), settings=settings.model_dump(mode="json"))


REVISION = Parameter("If-Match", "The `revision` that the change was made for.")
WRITING = ("disk.full", "disk.write", "settings.invalid", "settings.stale")

routes = [
    Endpoint("GET", "/v1/settings", show_settings, SettingsView, codes=("settings.invalid",)),
    Endpoint(
        "PUT", "/v1/settings", change_settings, SettingsView, body=ChangeSettings, headers=(REVISION,), codes=WRITING
    ),
]
