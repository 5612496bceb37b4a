"""Batches of training: each a pure function of its step's number, made ahead of its use in a thread of its own.

Called by the training loop and the benchmark. What a step draws (pictures, prompt lines, timesteps, noise) comes from
the seed, the step and the place in the batch alone, so neither resuming nor running ahead changes a number.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from engine.dataset.templates import fill_template
from engine.errors import VocableError
from engine.models.load import Model
from engine.models.predict import frame
from engine.prompt.encode import Prompts, prepare_prompts
from engine.prompt.layout import Chunk, Lexicon, lay_out
from engine.randomness import python_random, torch_generator
from engine.training.epochs import Epochs

AHEAD = 4
"""Batches that wait ready for the loop."""


@dataclass(frozen=True)
class Batch:
    """Everything that one step needs, on the device or on its way there."""

    noisy: Tensor
    """[B, C, h, w] in the model's dtype: the U-Net's input."""
    timesteps: Tensor
    """[B] int64."""
    target: Tensor
    """[B, C, h, w] float32: what the U-Net should predict."""
    prompts: Prompts
    texts: tuple[str, ...]
    """The prompts as people read them."""
    step: int
    """Number of the update that it is for, from 0."""
    framing: Tensor | None = None
    """See `engine.models.predict.frame`; None for models that are not told."""


@dataclass(frozen=True)
class _Slot:
    """One place of a batch."""

    noisy: Tensor
    target: Tensor
    timestep: Tensor
    text: str
    framing: tuple[int, ...]


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batch of any step."""

    model: Model
    word: str
    """Name of what is trained."""
    lexicon: Lexicon
    """Of that word alone; of none for a hypernetwork."""
    epochs: Epochs
    lines: Sequence[str]
    """Template lines, `[name]` in each where a word is trained."""

    def make(self, step: int) -> Batch:
        """The batch of update number `step`, counted from 0.

        Raises:
            VocableError: `training.word_missing` when a prompt does not hold the word.
        """
        slots = [self._make_slot(step, slot) for slot in range(self.epochs.batch_size)]
        chunks = [lay_out_with(self.lexicon, self.word, slot.text) for slot in slots]
        return Batch(
            noisy=self._to_device(torch.stack([slot.noisy for slot in slots]).to(self.model.dtype)),
            timesteps=self._to_device(torch.stack([slot.timestep for slot in slots])),
            target=self._to_device(torch.stack([slot.target for slot in slots])),
            prompts=prepare_prompts(self.model, chunks),
            texts=tuple(slot.text for slot in slots),
            step=step,
            framing=frame(self.model, [slot.framing for slot in slots]),
        )

    def _make_slot(self, step: int, slot: int) -> _Slot:
        sample, seed = self.epochs.sample_at(step, slot), self.epochs.seed
        line = python_random(seed, "line", step, slot).choice(self.lines)
        text = fill_template(line, name=self.word, filewords=sample.caption)
        mean, std = sample.latents.mean, sample.latents.std
        drawn = torch.randn(mean.shape, generator=torch_generator(seed, "posterior", step, slot))
        latents = (mean + std * drawn) * self.model.scaling_factor
        noise = torch.randn(mean.shape, generator=torch_generator(seed, "noise", step, slot))
        generator = torch_generator(seed, "timestep", step, slot)
        timestep = torch.randint(len(self._alphas), (), generator=generator)
        noisy, target = add_noise(latents, noise, self._alphas[timestep], self.model.prediction_type)
        return _Slot(noisy, target, timestep, text, sample.latents.framing(self.model.latent_factor))

    @cached_property
    def _alphas(self) -> Tensor:
        return self.model.alphas_cumprod.cpu()

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self.model.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.model.device, non_blocking=True)


def lay_out_with(lexicon: Lexicon, word: str, text: str) -> tuple[Chunk, ...]:
    """Lay out a prompt that must hold `word`, if the lexicon does.

    Raises:
        VocableError: `training.word_missing` when it does not.
    """
    chunks = lay_out(text, lexicon)
    if not any(chunk.places for chunk in chunks) and lexicon.find_name(word):
        raise VocableError(
            "training.word_missing",
            f"The prompt '{text[:200]}' does not hold the word '{word}' as the model reads it.",
            "In the template, set [name] off from other letters and digits by a blank or a comma.",
        )
    return chunks


def add_noise(latents: Tensor, noise: Tensor, alpha: Tensor, prediction_type: str) -> tuple[Tensor, Tensor]:
    """Noised latents and what the model should predict of them.

    Args:
        latents: [..., C, h, w] scaled by the model's factor.
        noise: same shape, standard normal.
        alpha: share of the signal's variance that is left, of a shape that broadcasts.
        prediction_type: `epsilon` (the noise), `v_prediction` (Salimans and Ho 2022) or `sample` (the latents).
    """
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    noisy = signal * latents + spread * noise
    if prediction_type == "epsilon":
        return noisy, noise
    if prediction_type == "v_prediction":
        return noisy, signal * noise - spread * latents
    if prediction_type == "sample":
        return noisy, latents
    raise VocableError("model.unreadable", f"The model predicts '{prediction_type}', which training does not know.")


def prefetch(make: Callable[[int], Batch], start: int, stop: int) -> Generator[Batch]:
    """Yield the batches of `start` to `stop - 1`, up to `AHEAD` of them made in advance; closing ends the thread."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=AHEAD)
    closed = threading.Event()

    def work() -> None:
        try:
            for step in range(start, stop):
                ready.put(make(step))
                if closed.is_set():
                    return
        except BaseException as error:  # handed to the loop, which raises it
            ready.put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        _empty(ready)  # the thread may wait for room; with room it looks at `closed`
        thread.join()


def _empty(waiting: queue.Queue[Batch | BaseException]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except queue.Empty:
        pass
