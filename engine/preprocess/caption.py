"""What is said about prepared pictures: who says it, and what becomes of what somebody said before.

Called where pictures are prepared and by the service, which checks before anything begins. Imports no torch; the
models behind a captioner do, when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image

from engine.errors import VocableError
