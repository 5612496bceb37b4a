"""A thread that surveys a dataset's folder at intervals and hands what it finds to the training loop.

Started by the training loop and asked between two steps. The loop never waits for it: a folder that hangs keeps this
thread waiting, not the training.
"""

from __future__ import annotations

import queue
import threading
import time

from engine.dataset.survey import Offer, Survey, Trouble
from engine.text import escape

LOOK_EVERY_S = 2.0
"""Between two looks, and so the time that a file must stay the same."""

_SHARE = 50
_LONGEST_S = 30.0
"""After a look that took long, the next one comes so many times as late, up to this: large folders cost little."""

_WAITING = 2
"""Pictures that are made ready ahead of the device."""

_PUT_S = 0.2
CLOSE_S = 2.0
"""The thread is waited for so long: it may hang on a dead file server, and then it ends by itself or with the
process."""


class Lookout:
    """Surveys a folder until closed."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._offers: queue.Queue[Offer] = queue.Queue(maxsize=_WAITING)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lookout", daemon=True)
        self._thread.start()

    def take(self) -> Offer | None:
        """The next find, if there is one; returns at once."""
        try:
            return self._offers.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        self._closed.set()
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        try:
            while not self._closed.is_set():
                began_s = time.thread_time()
                self._look()
                busy_s = time.thread_time() - began_s
                self._closed.wait(max(LOOK_EVERY_S, min(_SHARE * busy_s, _LONGEST_S)))
        except Exception as error:
            # Training is worth more than news of its folder: it goes on, and says so.
            title = f"Changes in the folder of pictures are not seen any more ({escape(repr(error), 200)})."
            self._hand_over(Trouble("dataset.watch", title, "They count again when the run is paused and resumed."))

    def _look(self) -> None:
        for offer in self._survey.look(time.monotonic()):
            if self._closed.is_set():
                return
            if offer is not None:
                self._hand_over(offer)

    def _hand_over(self, offer: Offer) -> None:
        while not self._closed.is_set():
            try:
                self._offers.put(offer, timeout=_PUT_S)
                return
            except queue.Full:
                continue
