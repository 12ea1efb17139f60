"""What the child process (``worker.py``) does with a chat template: a conversation in, its text out.

It imports nothing of edgepress. The names given to a template are those that published
templates use: ``raise_exception``, ``strftime_now``, the filter ``tojson`` without HTML escapes, loop
controls, and the ``generation`` tag, which marks the assistant's turns for training and here just renders its
body.
"""

import datetime
import json
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ConversationRefused(Exception):
    """The template called ``raise_exception``."""


class GenerationTag(Extension):
    """``{% generation %}…{% endgeneration %}`` renders what is inside."""

    tags = {"generation"}  # noqa: RUF012 - the attribute's type is Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes of the body, without the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise ConversationRefused(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", GenerationTag],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


@lru_cache(maxsize=1)
def _template(source: str) -> Template:
    return _environment().from_string(source)


def _render(asked: dict[str, Any]) -> dict[str, Any]:
    parts: list[str] = []
    size = 0
    for part in _template(asked["template"]).generate(messages=asked["messages"], **asked["variables"]):
        size += len(part)
        if size > asked["longest"]:
            return {"refused": f"its output is larger than {asked['longest']} characters"}
        parts.append(part)
    return {"text": "".join(parts)}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The ``text``, or why not: ``refused``, an error of the ``template``, or one of its ``messages``."""
    try:
        return _render(asked)
    except SecurityError as error:
        return {"refused": f"it reached for what it may not: {error}"}
    except ConversationRefused as error:
        return {"messages": str(error)}
    except RecursionError:
        return {"refused": "it calls itself without end"}
    except OverflowError as error:
        return {"refused": f"it asks for too much: {error}"}
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        return {"template": f"{type(error).__name__}: {error}"[:500]}
