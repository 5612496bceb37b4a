"""Tells what a file is that holds no embedding, so that the person who chose it knows what went wrong.

Called by `read` and `layouts`; nothing here is needed to read an embedding.
"""

from __future__ import annotations

from collections.abc import Iterable

PICTURES = (
    (0, b"\xff\xd8\xff"),
    (0, b"GIF8"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"\xff\x0a"),
    (0, b"\0\0\0\x0cJXL "),
    (4, b"ftypavif"),
    (4, b"ftypheic"),
)
"""Where kinds of picture say what they are that cannot carry a word: JPEG, GIF, TIFF, JPEG XL, AVIF, HEIC."""

_MAGIC = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    (b"PK", "an empty or split ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"GGUF", "a GGUF model"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a program"),
    (b"RIFF", "a sound or film"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"),
)

_PREFIXES = (
    (("lora_", "lora.", "lycoris_"), "a LoRA"),
    (("model.diffusion_model.", "cond_stage_model.", "first_stage_model.", "conditioner."), "a full checkpoint"),
    (("state_dict", "model_state_dict", "module"), "a full checkpoint"),
    (("optimizer_state_dict", "optimizer", "param_groups"), "the state of an optimizer"),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet"),
    (("down_blocks.", "mid_block.", "input_blocks.", "time_embed"), "a U-Net"),
    (("text_model.", "transformer.", "text_encoder.", "shared."), "a text encoder"),
    (("encoder.", "decoder.", "quant_conv."), "an autoencoder (VAE)"),
    (("params_ema", "params", "model.0."), "an upscaler"),
    (("layer_structure", "activation_func"), "a hypernetwork"),
)
_LORA_PARTS = ("lora_up", "lora_down", "lora_A", "lora_B", "hada_w", "lokr_w", ".oft_")
_HYPERNETWORK = {320, 640, 768, 1024, 1280}


def name_contents(keys: Iterable[object]) -> str:
    """What a dictionary with these keys is, e.g. `a LoRA`; empty when nothing tells."""
    known = list(keys)
    texts = [key for key in known if isinstance(key, str)]
    if any(part in key for key in texts for part in _LORA_PARTS):
        return "a LoRA"
    if any(isinstance(key, int) and key in _HYPERNETWORK for key in known):
        return "a hypernetwork"
    for prefixes, what in _PREFIXES:
        if any(key.startswith(prefixes) for key in texts):
            return what
    return ""


def name_file(data: bytes) -> str:
    """What a file is that no reader takes, e.g. `a 7z archive; unpack it`; empty when nothing tells."""
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return what
    if data[257:262] == b"ustar":
        return "a tar archive; unpack it"
    text = data[:4096].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<script")) or b"<html" in text:
        return "a web page: the download went wrong; use the download link of the page"
    if not data.strip(b"\0"):
        return "nothing but zeros: the copy or download went wrong"
    if data.endswith(b".") and data.startswith((b"c", b"(", b"}", b"]")) and b"\n" in data[:256]:
        return "a Python pickle that torch did not write"
    if text.startswith((b"{", b"[")):
        return "JSON text"
    try:
        data[:4096].decode("utf-8")
    except UnicodeDecodeError as error:
        is_text = len(data) > 4096 and error.start > 4092
    else:
        is_text = True
    return "a text" if is_text and not any(byte < 9 for byte in data[:4096]) else ""
