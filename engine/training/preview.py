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
from engine.hypernetwork.shelf import StoredNetwork
from engine.hypernetwork.shelf import shelve as shelve_network
from engine.models.load import Model
from engine.names import fold_name
from engine.prompt.tags import read_hypernet, take_tags
from engine.recipe import MAX_SEED
from engine.sampling.generate import Picture, PictureRequest, SamplingStep, generate
from engine.sampling.png import save_carrier, save_picture
from engine.training.job import Control, TrainingJob
from engine.training.outputs import carrier_path, preview_path
from engine.training.product import Product


def make_previews(
    model: Model,
    job: TrainingJob,
    product: Product,
    *,
    step: int,
    training_prompt: str,
    words: Callable[[], Sequence[Word]],
    networks: Callable[[], Sequence[StoredNetwork]],
    control: Control,
) -> Iterator[Event | None]:
    """Make and save the previews of `step`. A failure is a warning; a command ends the preview at once."""
    try:
        request = _request(job, training_prompt)
        pictures = _generate(model, request, product, words(), networks())
        yield from _save(job, product, step, pictures, control)
    except VocableError as error:
        yield _failed(step, error.title, error.hint)
    except Exception as error:
        # Whatever a preview meets (memory, a driver, a disk), the run itself is untouched and goes on.
        yield _failed(step, str(error) or type(error).__name__, "The run goes on without it.")


def _generate(
    model: Model,
    request: PictureRequest,
    product: Product,
    words: Sequence[Word],
    networks: Sequence[StoredNetwork],
) -> Iterator[Warned | SamplingStep | Picture]:
    """Pictures with the product as it is now; what is there of its kind under its name is an older one."""
    if isinstance(product, Embedding):
        others = [word for word in words if word.name.casefold() != product.name.casefold()]
        return generate(model, request, [shelve(product), *others], networks)
    return generate(model, request, words, [shelve_network(product), *networks])


def _save(
    job: TrainingJob,
    product: Product,
    step: int,
    pictures: Iterator[Warned | SamplingStep | Picture],
    control: Control,
) -> Iterator[Event | None]:
    carries = isinstance(product, Embedding) and job.recipe.save.embed_in_images
    number = 0
    for item in pictures:
        if control.ask:
            return
        if isinstance(item, SamplingStep):
            yield PhaseChanged("preview", item.done, item.total)
            continue
        if isinstance(item, Warned):
            if step <= job.recipe.save.images_every:  # The prompt stays the same: once is enough.
                yield item
            continue
        path = preview_path(job, step, number)
        word = _numbered(product) if carries and isinstance(product, Embedding) else None
        save_picture(path, item, word)
        if word is not None and number == 0:
            yield from _save_carrier(job, item, word)
        number += 1
        yield PreviewSaved(step, str(path), item.prompt, item.seed)


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
    if job.recipe.kind == "hypernetwork":
        prompt = _with_network(prompt, job.recipe.name)
    return PictureRequest(
        pictures=tuple((prompt, (preview.seed + number) % (MAX_SEED + 1)) for number in range(preview.count)),
        negative_prompt=fill_template(preview.negative_prompt, name=job.recipe.name, filewords=""),
        sampler=preview.sampler,
        steps=preview.steps,
        cfg_scale=preview.cfg_scale,
        width=preview.width or job.width,
        height=preview.height or job.height,
    )


def _with_network(prompt: str, name: str) -> str:
    """The prompt with the hypernetwork's tag, unless it has one already."""
    _, tags = take_tags(prompt)
    named = (read_hypernet(tag) for tag in tags)
    is_named = any(tag is not None and fold_name(tag.name) == fold_name(name) for tag in named)
    return prompt if is_named else f"{prompt}<hypernet:{name}:1>"


def _numbered(embedding: Embedding) -> Embedding:
    """The embedding as a copy of its step: a preview dropped into an embeddings folder is that copy."""
    return replace(embedding, name=f"{embedding.name}-{embedding.step}")


def _failed(step: int, title: str, hint: str) -> Event:
    return Warned("preview.failed", f"The preview of step {step} failed: {title}", hint)
