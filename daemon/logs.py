"""The service's log: one line a record on stderr, with level, and the run it is about; nothing else prints.

Under systemd the level is the journal's `<N>` prefix, elsewhere a word behind the time. Whatever foreign text a
message holds is escaped here, so that a file name cannot steer the terminal that shows the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping

from engine.text import escape

MAX_LINE = 8000
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def setup_logging(environ: Mapping[str, str], *, level: int = logging.INFO) -> None:
    """Send every record of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(journal=is_journal(environ)))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("uvicorn", "uvicorn.error", "asyncio", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    logging.captureWarnings(True)


class LineFormatter(logging.Formatter):
    """Makes one terminal-safe line of a record; a traceback follows on the same line."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text} | {self.formatException(record.exc_info)}"
        run = getattr(record, "run", "")
        line = escape(f"[{run}] {text}" if run else text, MAX_LINE)
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f"{stamp} {record.levelname.lower()} {line}"


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Requests that are cut off when the service stops are no errors."""
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)


def bind_run(logger: logging.Logger, run: str) -> logging.LoggerAdapter[logging.Logger]:
    """A logger whose records carry the run they are about."""
    return logging.LoggerAdapter(logger, {"run": run})


def is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr is a pipe to systemd's journal, which then keeps time and priority itself."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
