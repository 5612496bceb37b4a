"""Prompt templates, one prompt a line; package data found by engine.dataset.templates."""
