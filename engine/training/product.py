"""What a run makes: a word's embedding or a hypernetwork, as plain data; and the few things in which the two differ.

Called by the training loop and its outputs. Whatever is trained is one float32 tensor, so that updates, checkpoints and
roll-backs need not know what it stands for; here it becomes a product again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.embedding import write as embedding_write
from engine.embedding.vectors import Embedding
from engine.hypernetwork import write as hypernetwork_write
from engine.hypernetwork.network_file import HypernetworkFile, list_tensors, replace_tensors

Product = Embedding | HypernetworkFile


def values_of(product: Product) -> NDArray[np.float32]:
    """The numbers that training changes: vectors [V, D], or all tensors of a hypernetwork end to end, [P]."""
    if isinstance(product, Embedding):
        return product.vectors
    return np.concatenate([values.reshape(-1) for _, values in list_tensors(product)])


def with_values(product: Product, values: NDArray[np.float32], step: int) -> Product:
    """The product after `step` updates, which made its numbers `values`."""
    if isinstance(product, Embedding):
        return replace(product, vectors=values, step=step)
    shapes = {key: tensor.shape for key, tensor in list_tensors(product)}
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1]
    parts = zip(shapes.items(), np.split(values, ends), strict=True)
    return replace_tensors(replace(product, step=step), {key: part.reshape(shape) for (key, shape), part in parts})


def encode_product(product: Product) -> bytes:
    """Its canonical file. Raises VocableError for numbers that no reader would take."""
    if isinstance(product, Embedding):
        return embedding_write.encode_safetensors(product)
    return hypernetwork_write.encode_safetensors(product)


def save_product(path: Path, product: Product) -> None:
    """Write its file, which is read again and compared before it takes its name. Raises VocableError `disk.*`."""
    if isinstance(product, Embedding):
        embedding_write.save_embedding(path, product)
    else:
        hypernetwork_write.save_hypernetwork(path, product)
