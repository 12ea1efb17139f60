"""The child process that renders chat templates: one JSON request on stdin, one JSON reply on stdout.

It is run as a script and imports nothing of edgepress. The names given to a template are those that published
templates use: ``raise_exception``, ``strftime_now``, the filter ``tojson`` without HTML escapes, loop
controls, and the ``generation`` tag, which marks the assistant's turns for training and here just renders its
body.
"""

from __future__ import annotations

import datetime
import json
import signal
import sys
from typing import Any

from jinja2 import TemplateError, nodes
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


def limit_memory(limit: int) -> None:
    """Cap this process's address space at ``limit`` bytes, where the system has such limits."""
    try:
        import resource
    except ImportError:  # not a POSIX system: the clock is the only limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def limit_time(seconds: float) -> None:
    """Let the kernel end this process after ``seconds`` from now, even inside one long C call."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


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


def _render(request: dict[str, Any]) -> dict[str, Any]:
    template = _environment().from_string(request["template"])
    texts: list[str] = []
    for messages in request["conversations"]:
        limit_time(request["seconds"])
        parts: list[str] = []
        size = 0
        for part in template.generate(messages=messages, **request["variables"]):
            size += len(part)
            if size > request["output_limit"]:
                return {
                    "error": "refused",
                    "why": f"its output is larger than {request['output_limit']} characters",
                }
            parts.append(part)
        texts.append("".join(parts))
    return {"texts": texts}


def reply_to(request: dict[str, Any]) -> dict[str, Any]:
    """Render; errors of the template become ``{"error": refused|template|messages, "why"}``."""
    try:
        return _render(request)
    except SecurityError as error:
        return {"error": "refused", "why": f"it reached for what it may not: {error}"}
    except MemoryError:
        return {"error": "refused", "why": "it needs more memory than a template may"}
    except ConversationRefused as error:
        return {"error": "messages", "why": str(error)}
    except RecursionError:
        return {"error": "refused", "why": "it calls itself without end"}
    except OverflowError as error:
        return {"error": "refused", "why": f"it asks for too much: {error}"}
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        return {"error": "template", "why": f"{type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    limit_memory(asked["memory_limit"])
    # Compiling the template counts too; the clock starts again for each conversation.
    limit_time(asked["seconds"])
    answer = reply_to(asked)
    json.dump(answer, sys.stdout)
