"""Previews: pictures that show how training goes, made between two steps without touching its numbers.

Called by the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from engine.dataset.templates import fill_template
from engine.embedding.shelf import Word, shelve
from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from engine.events import Event, PhaseChanged, PreviewSaved, Warned
from engine.models.load import Model
from engine.recipe import MAX_SEED
from engine.sampling.generate import Picture, PictureRequest, SamplingStep, generate
from engine.sampling.png import save_carrier, save_picture
from engine.training.job import Control, TrainingJob
from engine.training.outputs import carrier_path, preview_path


def make_previews(
    model: Model,
    job: TrainingJob,
    embedding: Embedding,
    *,
    training_prompt: str,
    words: Callable[[], Sequence[Word]],
    control: Control,
) -> Iterator[Event | None]:
    """Make and save the previews of `embedding.step`. A failure is a warning; a command ends the preview at once."""
    try:
        yield from _make(model, job, embedding, _request(job, training_prompt), words(), control)
    except VocableError as error:
        yield _failed(embedding.step, error.title, error.hint)
    except Exception as error:
        # Whatever a preview meets (memory, a driver, a disk), the run itself is untouched and goes on.
        yield _failed(embedding.step, str(error) or type(error).__name__, "The run goes on without it.")


def _make(
    model: Model,
    job: TrainingJob,
    embedding: Embedding,
    request: PictureRequest,
    words: Sequence[Word],
    control: Control,
) -> Iterator[Event | None]:
    others = [word for word in words if word.name.casefold() != embedding.name.casefold()]
    number = 0
    for item in generate(model, request, [shelve(embedding), *others]):
        if control.ask:
            return
        if isinstance(item, SamplingStep):
            yield PhaseChanged("preview", item.done, item.total)
            continue
        if isinstance(item, Warned):
            if embedding.step <= job.recipe.save.images_every:  # The prompt stays the same: once is enough.
                yield item
            continue
        path = preview_path(job, embedding.step, number)
        word = _numbered(embedding) if job.recipe.save.embed_in_images else None
        save_picture(path, item, word)
        if word is not None and number == 0:
            yield from _save_carrier(job, item, word)
        number += 1
        yield PreviewSaved(embedding.step, str(path), item.prompt, item.seed)


def _save_carrier(job: TrainingJob, picture: Picture, word: Embedding) -> Iterator[Event]:
    """Save the picture that is the word. A failure is a warning, and the previews go on."""
    try:
        save_carrier(carrier_path(job, word.step), picture, word)
    except VocableError as error:
        title = f"The picture that carries the word of step {word.step} was not saved: {error.title}"
        yield Warned("preview.failed", title, error.hint)


def _request(job: TrainingJob, training_prompt: str) -> PictureRequest:
    preview = job.recipe.preview
    prompt = fill_template(preview.prompt, name=job.recipe.name, filewords="") if preview.prompt else training_prompt
    return PictureRequest(
        pictures=tuple((prompt, (preview.seed + number) % (MAX_SEED + 1)) for number in range(preview.count)),
        negative_prompt=fill_template(preview.negative_prompt, name=job.recipe.name, filewords=""),
        sampler=preview.sampler,
        steps=preview.steps,
        cfg_scale=preview.cfg_scale,
        width=preview.width or job.width,
        height=preview.height or job.height,
    )


def _numbered(embedding: Embedding) -> Embedding:
    """The embedding as a copy of its step: a preview dropped into an embeddings folder is that copy."""
    return replace(embedding, name=f"{embedding.name}-{embedding.step}")


def _failed(step: int, title: str, hint: str) -> Event:
    return Warned("preview.failed", f"The preview of step {step} failed: {title}", hint)
