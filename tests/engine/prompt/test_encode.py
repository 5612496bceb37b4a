from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from engine.embedding.create import create_embedding
from engine.errors import VocableError
from engine.models.load import Model
from engine.prompt.encode import encode, prepare_prompts
from engine.prompt.layout import Chunk, Lexicon, lay_out
from engine.recipe import Emphasis

VECTORS = torch.randn(2, 128, generator=torch.Generator().manual_seed(3))
"""Of a word of the starter model."""


def chunks(model: Model, text: str, **vectors: int) -> tuple[Chunk, ...]:
    return lay_out(text, Lexicon(model.tokenizer, vectors.items()))


def leaf(model: Model, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, model.entry.width, generator=generator).requires_grad_()


def state(model: Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.text_encoder.state_dict().items()}


def test_a_plain_prompt_is_encoded_as_by_the_text_encoder_alone(starter: Model) -> None:
    prompt = chunks(starter, "portrait of a girl, pink background")
    bare = starter.text_encoder(input_ids=torch.tensor([prompt[0].ids])).last_hidden_state
    assert torch.equal(encode(starter, [prompt], {}), bare)


def test_a_plain_prompt_is_conditioned_as_in_diffusers_at_every_layer(starter: Model) -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(str(starter.entry.path), local_files_only=True)
    # diffusers looks for a level of the text encoder that transformers 5 no longer has
    pipeline.text_encoder.__dict__["text_model"] = SimpleNamespace(
        final_layer_norm=pipeline.text_encoder.final_layer_norm
    )
    text = "portrait of a girl, pink background"
    found = []
    for skipped in range(starter.text_encoder.config.num_hidden_layers):
        theirs, _ = pipeline.encode_prompt(text, torch.device("cpu"), 1, False, clip_skip=skipped or None)
        found.append(encode(starter, [chunks(starter, text)], {}, clip_skip=skipped + 1))
        torch.testing.assert_close(found[-1], theirs, rtol=0, atol=1e-5)
    assert all((one - other).abs().max() > 0.01 for one, other in pairwise(found))


@pytest.mark.parametrize("layer", [0, 4])
def test_a_layer_that_the_text_encoder_lacks_is_refused_with_those_it_has(starter: Model, layer: int) -> None:
    with pytest.raises(VocableError, match="3 layers") as caught:
        encode(starter, [chunks(starter, "girl")], {}, clip_skip=layer)
    assert caught.value.code == "picture.clip_skip"


def weighed(plain: torch.Tensor, weights: list[float], *, keep_mean: bool) -> torch.Tensor:
    """webui.md 3.7, one chunk [77, D] at a time, by loops over tokens."""
    product = torch.stack([row * weight for row, weight in zip(plain, weights, strict=True)])
    return product * (plain.mean() / product.mean()) if keep_mean else product


@pytest.mark.parametrize(("emphasis", "keep_mean"), [("Original", True), ("No norm", False)])
def test_emphasis_multiplies_tokens_and_keeps_the_mean_of_each_chunk(
    starter: Model, emphasis: Emphasis, keep_mean: bool
) -> None:
    plain = encode(starter, [chunks(starter, "girl pink BREAK blue girl lyra", lyra=2)], {"lyra": VECTORS})[0]
    prompt = chunks(starter, "girl (pink:1.3) BREAK [blue] girl (lyra:0.5)", lyra=2)
    first, second = [1.0] * 77, [1.0] * 77
    girl, pink, blue = (len(starter.tokenizer.ids(word)) for word in ("girl", "pink", "blue"))
    first[1 + girl : 1 + girl + pink] = [1.3] * pink
    second[1 : 1 + blue] = [1 / 1.1] * blue
    second[1 + blue + girl : 3 + blue + girl] = [0.5] * 2
    expected = torch.cat(
        [weighed(plain[:77], first, keep_mean=keep_mean), weighed(plain[77:], second, keep_mean=keep_mean)]
    )
    found = encode(starter, [prompt], {"lyra": VECTORS}, emphasis=emphasis)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - plain).abs().max() > 0.1


def test_a_weighed_prompt_beside_another_changes_neither(starter: Model) -> None:
    weighed, plain = chunks(starter, "a (girl:1.4)"), chunks(starter, "a girl")
    both = encode(starter, [weighed, plain], {})
    torch.testing.assert_close(both[0], encode(starter, [weighed], {})[0], rtol=0, atol=1e-5)
    assert torch.equal(both[1], encode(starter, [plain, plain], {})[1])


def test_what_one_schedule_says_keeps_its_mean_together_each_text_as_often_as_it_stands(starter: Model) -> None:
    texts = [chunks(starter, "a (girl:1.4)"), chunks(starter, "a (boy:0.3), pink")]
    plain = encode(starter, [chunks(starter, "a girl"), chunks(starter, "a boy, pink")], {})
    product = encode(starter, texts, {}, emphasis="No norm")
    stood = [0, 1, 0]  # an alternation of three steps
    expected = product * (plain[stood].mean() / product[stood].mean())
    torch.testing.assert_close(encode(starter, texts, {}, shares=[2, 1]), expected, rtol=0, atol=1e-5)


def test_weights_reach_the_gradient(starter: Model) -> None:
    gradients: list[torch.Tensor] = []
    for text in ("a lyra", "a (lyra:0.5)", "a (lyra:0.0)"):
        vectors = leaf(starter, 2)
        encoded = encode(starter, [chunks(starter, text, lyra=2)], {"lyra": vectors}, emphasis="No norm")
        encoded[0, 2:4].sum().backward()
        assert vectors.grad is not None
        gradients.append(vectors.grad)
    torch.testing.assert_close(gradients[1], gradients[0] / 2)
    assert not gradients[2].any()


@pytest.mark.parametrize("text", ["portrait of lyra", "lyra", "a lyra, LYRA and lyra " * 20])
def test_the_vector_of_a_token_is_bit_for_bit_the_token_itself(starter: Model, text: str) -> None:
    assert len(starter.tokenizer.ids("girl")) == 1
    vectors = create_embedding(starter, name="lyra", init_text="girl", vectors=1).vectors
    found = encode(starter, [chunks(starter, text, lyra=1)], {"lyra": torch.tensor(vectors)})
    plain = text.lower().replace("lyra", "girl")
    assert torch.equal(found, encode(starter, [chunks(starter, plain)], {}))


def test_prompts_of_different_length_are_padded_with_empty_chunks(starter: Model) -> None:
    short, long = chunks(starter, "girl"), chunks(starter, "a " * 80)
    found = encode(starter, [short, long], {})
    width = starter.entry.width
    assert found.shape == (2, 154, width)
    torch.testing.assert_close(found[0, :77], encode(starter, [short], {})[0])
    torch.testing.assert_close(found[0, 77:], encode(starter, [chunks(starter, "")], {})[0])
    torch.testing.assert_close(found[1, 77:], encode(starter, [chunks(starter, "a " * 5)], {})[0])


def test_each_word_goes_to_its_own_places(starter: Model) -> None:
    one, two = leaf(starter, 2).detach(), leaf(starter, 3).detach()
    both = chunks(starter, "lyra with vega", lyra=2, vega=3)
    named = encode(starter, [both], {"lyra": one, "vega": two})
    swapped = chunks(starter, "vega with lyra", lyra=3, vega=2)
    assert torch.equal(named, encode(starter, [swapped], {"vega": one, "lyra": two}))
    assert not torch.equal(named, encode(starter, [both], {"lyra": one, "vega": two + 0.1}))


def test_gradients_reach_the_vectors_and_nothing_else(starter: Model) -> None:
    vectors = leaf(starter, 3)
    encode(starter, [chunks(starter, "portrait of lyra", lyra=3)], {"lyra": vectors}).square().sum().backward()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in starter.text_encoder.parameters())


def test_the_gradient_is_that_of_finite_differences(starter: Model) -> None:
    prompts = [chunks(starter, "lyra and lyra", lyra=2), chunks(starter, "portrait of lyra", lyra=2)]
    vectors = leaf(starter, 2)
    weights = torch.randn(2, 77, starter.entry.width, generator=torch.Generator().manual_seed(9))

    def loss(values: torch.Tensor) -> torch.Tensor:
        return (encode(starter, prompts, {"lyra": values}) * weights).sum()

    loss(vectors).backward()
    assert vectors.grad is not None
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        slope = (loss(vectors + 1e-3 * direction) - loss(vectors - 1e-3 * direction)) / 2e-3
    torch.testing.assert_close((vectors.grad * direction).sum(), slope, rtol=1e-2, atol=0.1)


def test_nothing_of_the_model_is_changed_or_left_hooked(starter: Model) -> None:
    before = state(starter)
    table = starter.text_encoder.get_input_embeddings()
    encode(starter, [chunks(starter, "lyra", lyra=2)], {"lyra": leaf(starter, 2)}).sum().backward()
    assert not table._forward_hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in state(starter).items())


def test_a_failure_leaves_no_hook_behind(starter: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(starter.text_encoder.final_layer_norm, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        encode(starter, [chunks(starter, "lyra", lyra=2)], {"lyra": leaf(starter, 2)})
    assert not starter.text_encoder.get_input_embeddings()._forward_hooks


def test_prepared_prompts_give_the_same_again_and_again(starter: Model) -> None:
    prompts = [chunks(starter, "portrait of lyra", lyra=2), chunks(starter, "girl")]
    vectors = {"lyra": leaf(starter, 2)}
    prepared = prepare_prompts(starter, prompts)
    expected = encode(starter, prompts, vectors)
    assert torch.equal(encode(starter, prepared, vectors), expected)
    assert torch.equal(encode(starter, prepared, vectors), expected)


def test_vectors_of_another_width_are_refused_with_both_widths(starter: Model) -> None:
    with pytest.raises(VocableError, match=f"'lyra'.*768.*{starter.entry.width}") as caught:
        encode(starter, [chunks(starter, "lyra", lyra=2)], {"lyra": torch.zeros(2, 768)})
    assert caught.value.code == "embedding.width"
