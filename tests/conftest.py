"""What holds for all tests."""

from __future__ import annotations

import signal

# Shells start what runs in the background with ctrl-c ignored, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
