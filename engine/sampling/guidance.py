"""Classifier-free guidance: what the U-Net predicts under a picture's prompts, weighed against its negative prompt.

Called by `generate`, one `Guidance` for a batch of alike pictures. `uncond + sum of weight * scale * (cond - uncond)`
over the parts of a prompt: Ho and Salimans 2022, Liu et al. 2022 (composition), webui.md 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.models.load import Model


@dataclass(frozen=True)
class Course:
    """What one part of a prompt says in the course of sampling."""

    texts: Tensor
    """[E, 77 * n, D] conditioning."""
    calls: tuple[int, ...]
    """Which of the texts holds at each call of the U-Net."""
    weight: float = 1.0

    @property
    def length(self) -> int:
        return self.texts.shape[1]


class Guidance:
    """Predicts for one batch.

    Args:
        pictures: for each of B pictures the courses of its parts: k of them, the longest of one length for all.
        negative: the negative prompt's course; None when the pictures are not guided.
        scale: guidance scale.
        rows: largest batch that the U-Net gets at a time.
    """

    def __init__(
        self, model: Model, pictures: Sequence[Sequence[Course]], negative: Course | None, scale: float, rows: int
    ) -> None:
        self._model = model
        self._pictures = pictures
        self._negative = negative
        self._rows = rows
        self._length = max(course.length for course in pictures[0])
        factors = [[course.weight * scale for course in courses] for courses in pictures]
        self._factors = torch.tensor(factors, dtype=torch.float32, device=model.device)[..., None, None, None]
        self._held: tuple[tuple[int, ...], list[Tensor]] | None = None

    def predict(self, latents: Tensor, timestep: Tensor, call: int) -> Tensor:
        """The guided prediction.

        Args:
            latents: [B, C, h, w] float32, scaled for the U-Net.
            call: number of this call of the U-Net, from 0.

        Returns:
            [B, C, h, w] float32.
        """
        parts = len(self._pictures[0])
        batch = latents.to(dtype=self._model.dtype)
        wanted = batch.repeat_interleave(parts, dim=0) if parts > 1 else batch
        unwanted = [batch] if self._negative is not None else []
        conditioning = self._conditioning(call)
        if len(conditioning) == 1:  # alike in length: both sides in one batch
            output = self._run(torch.cat([*unwanted, wanted]), timestep, conditioning[0])
        else:
            sides = zip([*unwanted, wanted], conditioning, strict=True)
            output = torch.cat([self._run(side, timestep, texts) for side, texts in sides])
        if self._negative is None:
            return output
        guided = base = output[: len(batch)]
        by_part = output[len(batch) :].reshape(len(batch), parts, *base.shape[1:])
        for part in range(parts):
            guided = guided + self._factors[:, part] * (by_part[:, part] - base)
        return guided

    def _conditioning(self, call: int) -> list[Tensor]:
        """Of one batch for all, or of one for the negative and one for the positive prompts if their lengths differ."""
        courses = [course for courses in self._pictures for course in courses]
        sides = courses if self._negative is None else [self._negative, *courses]
        state = tuple(course.calls[call] for course in sides)
        if self._held is None or self._held[0] != state:
            texts = [torch.stack([_lengthen(course.texts[course.calls[call]], self._length) for course in courses])]
            if self._negative is not None:
                text = self._negative.texts[self._negative.calls[call]]
                texts.insert(0, text.expand(len(self._pictures), -1, -1))
            alike = all(side.shape[1] == self._length for side in texts)
            self._held = (state, [torch.cat(texts)] if alike else texts)
        return self._held[1]

    def _run(self, latents: Tensor, timestep: Tensor, conditioning: Tensor) -> Tensor:
        """The U-Net's output in float32."""
        outputs = []
        for begin in range(0, len(latents), self._rows):
            rows = slice(begin, begin + self._rows)
            batch = latents[rows].contiguous(memory_format=torch.channels_last)
            outputs.append(self._model.unet(batch, timestep, encoder_hidden_states=conditioning[rows]).sample.float())
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _lengthen(text: Tensor, length: int) -> Tensor:
    """Repeat the last vector of [T, D] up to a length: parts of one prompt share a batch, as in webui."""
    missing = length - len(text)
    return torch.cat([text, text[-1:].expand(missing, -1)]) if missing else text
