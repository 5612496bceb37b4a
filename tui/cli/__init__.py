"""The command line: one file for each group of commands.

`app.py` puts them together. Modules here import heavy parts (client, pydantic, pictures) inside the functions that
need them, so that `vocable --help` answers at once.
"""
