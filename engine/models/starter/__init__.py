"""The starter model: portraits to learn from, the script that trains it, its weights, and its sample character."""
