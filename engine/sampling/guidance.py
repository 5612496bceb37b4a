"""Classifier-free guidance: what the U-Net predicts under a picture's prompts, weighed against its negative prompt.

Called by `generate`, one `Guidance` for a batch of alike pictures. `uncond + sum of weight * scale * (cond - uncond)`
over the parts of a prompt: Ho and Salimans 2022, Liu et al. 2022 (composition), webui.md 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.models.load import Model
from engine.models.predict import frame, predict, whole
from engine.prompt.encode import Conditioning, join


@dataclass(frozen=True)
class Course:
    """What one part of a prompt says in the course of sampling."""

    texts: Conditioning
    """Of E texts."""
    calls: tuple[int, ...]
    """Which of the texts holds at each call of the U-Net."""
    weight: float = 1.0

    @property
    def length(self) -> int:
        return self.texts.hidden.shape[1]

    def silenced(self) -> Course:
        """A course of zeros, which is what SDXL has learnt to take for no text at all."""
        pooled = self.texts.pooled
        zeros = Conditioning(torch.zeros_like(self.texts.hidden), None if pooled is None else torch.zeros_like(pooled))
        return replace(self, texts=zeros)


class Guidance:
    """Predicts for one batch.

    Args:
        pictures: for each of B pictures the courses of its parts: k of them, the longest of one length for all.
        negative: the negative prompt's course; None when the pictures are not guided.
        scale: guidance scale.
        rows: largest batch that the U-Net gets at a time.
        size: width and height of the pictures in pixels.
    """

    def __init__(
        self,
        model: Model,
        pictures: Sequence[Sequence[Course]],
        negative: Course | None,
        scale: float,
        rows: int,
        size: tuple[int, int],
    ) -> None:
        self._model = model
        self._framing = frame(model, [whole(*size)])
        self._pictures = pictures
        self._negative = negative
        self._rows = rows
        self._length = max(course.length for course in pictures[0])
        factors = [[course.weight * scale for course in courses] for courses in pictures]
        self._factors = torch.tensor(factors, dtype=torch.float32, device=model.device)[..., None, None, None]
        self._held: tuple[tuple[int, ...], list[Conditioning]] | None = None

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

    def _conditioning(self, call: int) -> list[Conditioning]:
        """Of one batch for all, or of one for the negative and one for the positive prompts if their lengths differ."""
        courses = [course for courses in self._pictures for course in courses]
        sides = courses if self._negative is None else [self._negative, *courses]
        state = tuple(course.calls[call] for course in sides)
        if self._held is None or self._held[0] != state:
            texts = [join([_lengthen(_text_at(course, call), self._length) for course in courses])]
            if self._negative is not None:
                texts.insert(0, join([_text_at(self._negative, call)] * len(self._pictures)))
            alike = all(side.hidden.shape[1] == self._length for side in texts)
            self._held = (state, [join(texts)] if alike else texts)
        return self._held[1]

    def _run(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's output in float32."""
        outputs = []
        for begin in range(0, len(latents), self._rows):
            rows = slice(begin, begin + self._rows)
            batch = latents[rows].contiguous(memory_format=torch.channels_last)
            framing = None if self._framing is None else self._framing.expand(len(batch), -1)
            outputs.append(predict(self._model, batch, timestep, conditioning[rows], framing).float())
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _text_at(course: Course, call: int) -> Conditioning:
    row = course.calls[call]
    return course.texts[row : row + 1]


def _lengthen(text: Conditioning, length: int) -> Conditioning:
    """Repeat the last vector of one text up to a length: parts of one prompt share a batch, as in webui."""
    missing = length - text.hidden.shape[1]
    if not missing:
        return text
    return Conditioning(torch.cat([text.hidden, text.hidden[:, -1:].expand(-1, missing, -1)], dim=1), text.pooled)
