"""Writes `docs/api.md` out of the table of routes and the models: python -m daemon.api.reference > docs/api.md

A tool for developers; a test says that the committed page is current.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from daemon.api.bodies import MAX_BODY
from daemon.api.codes import CODES
from daemon.api.routes import BODY, COMMON, Endpoint, Parameter
from daemon.api.table import ENDPOINTS, SECTIONS
from daemon.protocol.runs import CreateRun, ErrorInfo
from daemon.protocol.service import HEARTBEAT_S, StreamLine
from engine.recipe import Recipe

INTRODUCTION = f"""\
# The API

<!-- made by: python -m daemon.api.reference > docs/api.md -->

The service speaks HTTP/1.1 and JSON on a Unix socket: `state/vocable.sock` in the workspace, or where
`vocable daemon status` says. Only its own user and root are answered, and with `service.group` in `vocable.toml` the
members of that group. A request with `Origin` or `Referer`, or for a host other than `localhost`, is refused: no web
page can reach the service through a browser.

`/v1` stays as long as additions are all that changes; `GET /v1/` lists what this service can do in `capabilities`.
Clients ignore fields, events and topics that they do not know; the service refuses fields of a body that it does not
know. Bodies are JSON objects of at most {MAX_BODY >> 20} MiB. What takes long is a job: the route answers 202 at once.

Times are seconds since 1970 (UTC), paths are absolute on the service's machine, and text that came from outside is
escaped so that it cannot steer a terminal.
"""

EXAMPLES: tuple[tuple[str, str], ...] = (
    ("Who answers", "curl -sS --fail-with-body --unix-socket $SOCKET http://localhost/v1/"),
    (
        "Queue a run; the key makes it safe to send again",
        "curl -sS --fail-with-body --unix-socket $SOCKET http://localhost/v1/runs \\\n"
        "  -H 'Idempotency-Key: fox-1' \\\n"
        """  -d '{"recipe": {"name": "fox", "data": {"folder": "faces"}, "train": {"steps": 500}}}'""",
    ),
    ("How it stands", "curl -sS --fail-with-body --unix-socket $SOCKET http://localhost/v1/runs/fox"),
    (
        "Its losses in 50 points",
        "curl -sS --fail-with-body --unix-socket $SOCKET 'http://localhost/v1/runs/fox/losses?points=50'",
    ),
    (
        "Stop it, keeping the word as it is",
        "curl -sS --fail-with-body --unix-socket $SOCKET -X POST http://localhost/v1/runs/fox/stop",
    ),
    (
        "Have a picture made, whose job tells when it is there",
        "curl -sS --fail-with-body --unix-socket $SOCKET http://localhost/v1/generate \\\n"
        """  -d '{"prompts": ["a photo of fox"], "output": "/tmp/fox.png"}'""",
    ),
    (
        "What preparing a folder of photos would do; without `dry_run` the job does it",
        "curl -sS --fail-with-body --unix-socket $SOCKET http://localhost/v1/preprocess \\\n"
        """  -d '{"source": "faces", "destination": "faces-wide", "options": {"width": 96, "flip": true}, """
        """"dry_run": true}'""",
    ),
    (
        "Pictures and captions of a dataset",
        "curl -sS --fail-with-body --unix-socket $SOCKET http://localhost/v1/datasets/faces",
    ),
    (
        "Put a caption beside a picture that has none; to change one, give its text in `was`",
        "curl -sS --fail-with-body --unix-socket $SOCKET -X PUT http://localhost/v1/datasets/faces/captions \\\n"
        """  -d '{"changes": [{"picture": "one.png", "text": "a red hat", "was": null}]}'""",
    ),
    (
        "The prompts of a template",
        "curl -sS --fail-with-body --unix-socket $SOCKET http://localhost/v1/templates/subject_filewords",
    ),
    (
        "Follow what happens for a second",
        "curl -sSN --unix-socket $SOCKET --max-time 1 http://localhost/v1/events || test $? = 28",
    ),
)
"""What one would do with it, and the command; a test runs them in this order."""


def main() -> None:
    sys.stdout.write(make_page())


def make_page() -> str:
    """The whole page in Markdown."""
    parts = [INTRODUCTION, *_examples(), *_errors()]
    for title, endpoints in SECTIONS.items():
        parts += [f"## {title}\n", *(_endpoint(endpoint) for endpoint in endpoints)]
        if title == "Events":
            parts.append(_events())
    parts.append(f"## The recipe\n\n{_sentence(Recipe)}\n")
    parts += [f"### {model.__name__}\n\n{_table(model)}" for model in _nested([Recipe])]
    parts.append("## Objects\n")
    models = _nested([ErrorInfo, *(endpoint.reply for endpoint in ENDPOINTS if not isinstance(endpoint.reply, str))])
    parts += [f"### {model.__name__}\n\n{_sentence(model)}\n\n{_table(model)}" for model in models]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _examples() -> Iterator[str]:
    yield "## Examples\n\n`SOCKET` is the path of the socket.\n"
    for title, command in EXAMPLES:
        yield f"{title}:\n\n```sh\n{command}\n```\n"


def _errors() -> Iterator[str]:
    yield '## Errors\n\nEvery failure is `{"error": ...}` with an [ErrorInfo](#errorinfo) and the status of its code.\n'
    yield "| code | status | meaning |\n|---|---|---|"
    for code, (status, meaning) in CODES.items():
        yield f"| `{code}` | {status} | {_cell(meaning)} |"
    yield f"\nAny request may be answered with {_codes(COMMON)}; one with a body with {_codes(BODY)}, too.\n"


def _endpoint(endpoint: Endpoint) -> str:
    lines = [f"### {endpoint.method} {endpoint.path.replace(':path', '')}\n", _sentence(endpoint.handler), ""]
    lines += _parameters("Query", endpoint.query)
    lines += _parameters("Headers", endpoint.headers)
    if endpoint.body is CreateRun:
        lines += ["Body: `recipe`, an object with the fields of [the recipe](#the-recipe).", ""]
    elif endpoint.body:
        lines += ["Body:", "", _table(endpoint.body)]
    reply = endpoint.reply
    shown = f"`{reply}`" if isinstance(reply, str) else f"[{reply.__name__}](#{reply.__name__.lower()})"
    lines += [f"Reply: {endpoint.status}, {shown}.", ""]
    if endpoint.codes:
        lines += [f"Errors: {_codes(endpoint.codes)}.", ""]
    return "\n".join(lines)


def _events() -> str:
    about = inspect.cleandoc(StreamLine.__doc__ or "").partition("\n")[2]
    heartbeat = (
        f"A line comes at least every {HEARTBEAT_S:g} s; a stream that is silent for three times as long is dead."
    )
    return f"Each line is an object with these fields. {heartbeat}\n\n{about.strip()}\n\n{_table(StreamLine)}"


def _parameters(title: str, parameters: Sequence[Parameter]) -> list[str]:
    return [f"{title} `{parameter.name}`: {parameter.about}\n" for parameter in parameters]


def _codes(codes: Sequence[str]) -> str:
    return ", ".join(f"`{code}`" for code in sorted(codes))


def _table(model: type[BaseModel]) -> str:
    """Fields with type, limits, default and meaning."""
    meanings = field_meanings(model)
    schema = model.model_json_schema()
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, values in schema.get("properties", {}).items():
        is_required = name in schema.get("required", [])
        default = "" if is_required else _default(model, name)
        cells = (f"`{name}`", _type(values), default, meanings.get(name, ""))
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(model: type[BaseModel], name: str) -> str:
    """The default as JSON; that of a group is told by the group's own table."""
    field = model.model_fields[name]
    value = field.default if field.default_factory is None else field.get_default(call_default_factory=True)
    return "" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


def field_meanings(model: type[BaseModel]) -> dict[str, str]:
    """What a field's description, or the docstring after it, says of each field, on one line."""
    meanings = {name: field.description or "" for name, field in model.model_fields.items()}
    for parent in reversed(model.__mro__):
        if issubclass(parent, BaseModel) and parent is not BaseModel:
            meanings |= _docstrings(parent)
    return {name: " ".join(meaning.split()) for name, meaning in meanings.items()}


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: text.value.value
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


LIMITS = (
    *(("minimum", ">= {}"), ("exclusiveMinimum", "> {}"), ("maximum", "<= {}"), ("exclusiveMaximum", "< {}")),
    *(
        ("multipleOf", "multiple of {}"),
        ("minLength", "at least {} characters"),
        ("maxLength", "at most {} characters"),
    ),
    *(("minItems", "at least {}"), ("maxItems", "at most {}"), ("maxProperties", "at most {}")),
)


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    words = str(schema.get("type", "any"))
    if words == "array":
        items = schema.get("items", {})
        words = f"list of {_type(items)}" if items else "list"
    elif words == "object" and isinstance(schema.get("additionalProperties"), dict):
        words = f"object of {_type(schema['additionalProperties'])}"
    limits = [text.format(schema[key]) for key, text in LIMITS if key in schema]
    return ", ".join([words, *limits])


def _nested(models: Sequence[type[BaseModel]]) -> list[type[BaseModel]]:
    """The models and every one that their fields hold, each once, in order of appearance."""
    found: dict[type[BaseModel], None] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in found:
            found[kind] = None
            for field in kind.model_fields.values():
                visit(field.annotation)
        for part in get_args(kind):
            visit(part)

    for model in models:
        visit(model)
    return list(found)


def _sentence(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join(inspect.cleandoc(thing.__doc__ or "").partition("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
