"""The table of all routes, in the order of the reference page. Read by the app, the page and the tests."""

from __future__ import annotations

from daemon.api import data, hypernetworks, jobs, recipes, runfiles, runs, service, settings, streams, words
from daemon.api.routes import Endpoint

SECTIONS: dict[str, list[Endpoint]] = {
    "Service": [*service.routes, *settings.routes],
    "Events": streams.routes,
    "Recipes": recipes.routes,
    "Runs and the queue": [*runs.routes, *runfiles.routes],
    "Jobs": jobs.routes,
    "Data": data.routes,
    "Words, files, prompts, models": words.routes,
    "Hypernetworks": hypernetworks.routes,
}

ENDPOINTS = [endpoint for section in SECTIONS.values() for endpoint in section]
