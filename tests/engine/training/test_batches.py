from __future__ import annotations

import threading

import pytest
import torch

from engine.dataset.latents import Latents
from engine.errors import VocableError
from engine.models.load import Model
from engine.prompt.layout import Lexicon
from engine.training.batches import Batch, BatchMaker, add_noise, prefetch
from engine.training.epochs import Sample, make_epochs

SAMPLES = tuple(
    Sample(f"{n}.png", f"caption {n}", Latents(torch.full((4, 8, 8), n), torch.zeros(4, 8, 8))) for n in range(5)
)


def make_maker(model: Model, *, batch_size: int = 2, seed: int = 0) -> BatchMaker:
    lines = ("portrait of [name], [filewords]", "[name], [filewords]")
    epochs = make_epochs(SAMPLES, batch_size=batch_size, seed=seed)
    return BatchMaker(model, "mia", Lexicon(model.tokenizer, [("mia", 2)]), epochs, lines)


def same(first: Batch, second: Batch) -> bool:
    return first.texts == second.texts and all(
        torch.equal(getattr(first, part), getattr(second, part)) for part in ("noisy", "timesteps", "target")
    )


def test_a_batch_depends_on_seed_and_step_alone(starter: Model) -> None:
    assert same(make_maker(starter).make(7), make_maker(starter).make(7))
    assert not same(make_maker(starter).make(7), make_maker(starter).make(8))
    assert not same(make_maker(starter).make(7), make_maker(starter, seed=1).make(7))


def test_an_epoch_shows_each_picture_once_though_batches_span_epochs(starter: Model) -> None:
    shown = [text.rsplit(" ", 1)[1] for step in range(5) for text in make_maker(starter).make(step).texts]
    assert sorted(shown[:5]) == sorted(shown[5:]) == ["0", "1", "2", "3", "4"]
    assert shown[:5] != shown[5:]


def test_every_line_of_the_template_is_drawn(starter: Model) -> None:
    texts = [text for step in range(8) for text in make_maker(starter).make(step).texts]
    assert {text.split(" ")[0] for text in texts} == {"portrait", "mia,"}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_target_and_the_noisy_latents_give_back_the_latents(prediction_type: str) -> None:
    latents, noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    alpha = torch.tensor(0.3)
    noisy, target = add_noise(latents, noise, alpha, prediction_type)
    torch.testing.assert_close(noisy, alpha.sqrt() * latents + (1 - alpha).sqrt() * noise)
    recovered = {
        "epsilon": (noisy - (1 - alpha).sqrt() * target) / alpha.sqrt(),
        "v_prediction": alpha.sqrt() * noisy - (1 - alpha).sqrt() * target,
        "sample": target,
    }[prediction_type]
    torch.testing.assert_close(recovered, latents)


def test_batches_made_ahead_come_in_order_and_are_the_same(starter: Model) -> None:
    maker = make_maker(starter)
    ahead = list(prefetch(maker.make, 3, 12))
    assert all(same(batch, maker.make(step)) for batch, step in zip(ahead, range(3, 12), strict=True))


def test_closing_early_ends_the_thread(starter: Model) -> None:
    ahead = prefetch(make_maker(starter).make, 0, 1_000_000)
    next(ahead)
    assert "batches" in {thread.name for thread in threading.enumerate()}
    ahead.close()
    assert "batches" not in {thread.name for thread in threading.enumerate()}


def test_an_error_in_the_thread_reaches_the_loop_at_its_step(starter: Model) -> None:
    def make(step: int) -> Batch:
        if step == 2:
            raise VocableError("test.failed", "Step 2 cannot be made.")
        return make_maker(starter).make(step)

    ahead = prefetch(make, 0, 5)
    next(ahead), next(ahead)
    with pytest.raises(VocableError, match="Step 2"):
        next(ahead)
