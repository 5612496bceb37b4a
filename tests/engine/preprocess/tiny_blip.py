"""A BLIP of a few kilobytes with a tokenizer of its own, which learned to say two sentences."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

SENTENCES = {"red": "a red picture of nothing", "blue": "a man in blue suits"}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[DEC]",
    "a",
    "picture",
    "of",
    "red",
    "nothing",
    "blue",
    "man",
    "in",
    "suit",
    "##s",
]
BEGIN, END = WORDS.index("[DEC]"), WORDS.index("[SEP]")

_SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_blip(folder: Path) -> None:
    """Put the model into a folder, in the layout of transformers."""
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)})
    processor = BlipImageProcessorPil(size={"height": 16, "width": 16})
    text = {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 32, "bos_token_id": BEGIN}
    ends = {"sep_token_id": END, "eos_token_id": END, "pad_token_id": 0, "label_smoothing": 0.0}
    config = BlipConfig(
        text_config={**_SIZE, **text, **ends}, vision_config={**_SIZE, "image_size": 16, "patch_size": 8}
    )
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    teach(model, tokenizer, processor)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)


def teach(model: BlipForConditionalGeneration, tokenizer: BertTokenizerFast, processor: BlipImageProcessorPil) -> None:
    tokens = tokenizer(list(SENTENCES.values()), padding=True, return_tensors="pt").input_ids
    tokens[:, 0] = BEGIN
    pixels = processor(images=[picture(colour) for colour in SENTENCES], return_tensors="pt")["pixel_values"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(120):
        labels = tokens.masked_fill(tokens == 0, -100)
        loss = model(pixel_values=pixels, input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (50, 30), colour)
