"""The craft: models, prompts, embeddings, datasets, training, sampling. No socket, no screen, no printing."""
