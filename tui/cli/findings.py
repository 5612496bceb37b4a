"""What the demo found out: its numbers, whether they are good enough, and how they are told.

Used by `demo` alone. Nothing here is measured; the numbers come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tui.cli.output import print_text
from tui.cli.session import Session

LEAST_GAP_CLOSED = 0.8
LEAST_IDENTIFIED = 0.8


@dataclass(frozen=True)
class Findings:
    """What the demo found out. Losses are mean squared errors on the held-out pictures."""

    losses: dict[str, float]
    """`init`: the word it starts from; `trained`: the new word; `oracle`: the true description."""
    gap_closed: float | None
    """Share of the way from the init word's loss to the oracle's; may pass 1, since a description is no bound. None
    when the description is no better than the init word."""
    identified: dict[str, float]
    """Share (0 to 1) of 32 pictures that look more like this character than like any of 49 others."""
    train_seconds: float
    embedding: str
    sheet: str
    run: str
    workspace: str

    @property
    def shortfalls(self) -> list[str]:
        """Sentences about what is not as good as it should be."""
        told = []
        if self.gap_closed is None:
            told.append("The true description is no better than the init word, so there is no gap to measure by.")
        elif self.gap_closed < LEAST_GAP_CLOSED:
            told.append(f"The word closes {_percent(self.gap_closed)} of the gap; {_percent(LEAST_GAP_CLOSED)} is due.")
        if self.identified["trained"] < LEAST_IDENTIFIED:
            told.append(
                f"{_percent(self.identified['trained'])} of its pictures show the character; "
                f"{_percent(LEAST_IDENTIFIED)} is due."
            )
        return told


def close_gap(init: float, trained: float, oracle: float) -> float | None:
    """Share of the gap from `init` down to `oracle` that `trained` closes; None when there is no gap."""
    return (init - trained) / (init - oracle) if init > oracle else None


def print_findings(found: Findings, session: Session) -> None:
    """Tell the numbers, where the files are, and what to do next."""
    losses, shares = found.losses, found.identified
    word = Path(found.embedding).stem
    print_text(
        f"""
loss on held-out pictures   init word {losses["init"]:.4f}, trained word {losses["trained"]:.4f}, \
true description {losses["oracle"]:.4f}
gap closed                  {_percent(found.gap_closed)}
pictures of the character   init word {_percent(shares["init"])}, trained word {_percent(shares["trained"])}
training took               {found.train_seconds:.0f} s

the word                    {found.embedding}
before and after            {found.sheet}
everything else             {found.workspace}

Next: {session.command("generate", f"ink drawing of {word}, blue background", "-o", "out.png")}
      {session.command("train", "--name", "mine", "--images", "FOLDER_OF_PICTURES", "--init", "girl")}"""
    )


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.0f} %"
