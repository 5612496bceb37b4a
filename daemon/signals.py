"""What signals mean to the service: SIGTERM and SIGINT end it, SIGHUP has it look again, SIGUSR1 logs its state.

Used by the server. No signal ends anything at once; a terminal that closes sends SIGHUP and so ends nothing at all.
To look again is to read settings and watched folders once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable

from daemon.service import Service
from daemon.settings import read_settings
from engine.errors import VocableError

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def signals_to(service: Service, dump: Callable[[], str]) -> AsyncIterator[None]:
    """Handle signals while the block runs; a second SIGTERM or SIGINT makes the end quick.

    Args:
        dump: makes the line that SIGUSR1 writes into the log.
    """
    loop = asyncio.get_running_loop()
    reload_asked = asyncio.Event()

    def stop() -> None:
        if service.stop_asked.is_set():
            service.queue.hurry()
        service.stop_asked.set()

    handlers: dict[int, Callable[[], object]] = {
        signal.SIGTERM: stop,
        signal.SIGINT: stop,
        signal.SIGHUP: reload_asked.set,
        signal.SIGUSR1: lambda: _log.info("state: %s", dump()),
    }
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    reloading = asyncio.create_task(_reload_when_asked(service, reload_asked))
    try:
        yield
    finally:
        reloading.cancel()
        await asyncio.gather(reloading, return_exceptions=True)
        for number in handlers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


async def _reload_when_asked(service: Service, asked: asyncio.Event) -> None:
    """However often it was asked meanwhile, settings and folders are read once more."""
    while True:
        await asked.wait()
        asked.clear()
        await reload_settings(service)
        service.look_soon()


async def reload_settings(service: Service) -> None:
    """Read vocable.toml again. Faulty settings change nothing, and are shown as a problem until they are corrected."""
    try:
        async with service.reloading:
            settings = await asyncio.to_thread(read_settings, service.workspace.settings)
            notes = await service.apply_settings(settings)
    except VocableError as error:
        _log.error("settings rejected, the old ones stay in force: %s", error.title)
        service.ledger.set_problem("settings", f"{error.title} The old settings stay in force.")
        return
    except Exception:
        _log.exception("the settings could not be applied")
        service.ledger.set_problem("settings", "The new settings could not be applied; the log tells more.")
        return
    service.ledger.set_problem("settings", "")
    _log.info("settings read again: %s", "; ".join(notes) or "nothing changed")
