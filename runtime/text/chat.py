"""Chat templates: a Jinja program that came with a model, run where it can do no harm.

Jinja's sandbox stops attribute walks, but a loop of 30 million steps or a string of 200 MB is ordinary to it.
So the template runs in a child process (``chat_worker.py``) with a clock, a memory limit and a cap on its
output, and the parent only ever sees text or a typed error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BundleError, EdgepressError, InputError, RefusedByPolicy

if TYPE_CHECKING:
    import subprocess

TEMPLATE_LIMIT = 64 << 10
OUTPUT_LIMIT = 1 << 20
MEMORY_LIMIT = 512 << 20
SECONDS = 2.0
# The child keeps its own clock; this is added for its start, and ends it where it has none.
_BACKSTOP_SECONDS = 30.0

Messages = Sequence[Mapping[str, Any]]


def render_chats(
    template: str,
    conversations: Sequence[Messages],
    *,
    variables: Mapping[str, Any],
    add_generation_prompt: bool = True,
    seconds: float = SECONDS,
) -> list[str]:
    """The text of each conversation (a list of ``{"role", "content"}``), in one child process.

    ``variables`` are further names the template may use, such as ``bos_token``; ``seconds`` bounds the whole
    call.

    Raises:
        RefusedByPolicy: the template is too long, reaches for what it may not, or exceeds its time, memory or
        output. BundleError: the template does not parse or render. InputError: the template itself refuses
        the conversation, or a message is not JSON.
    """
    if len(template.encode("utf-8", "replace")) > TEMPLATE_LIMIT:
        raise RefusedByPolicy(f"the chat template is larger than {TEMPLATE_LIMIT >> 10} KB")
    try:
        request = json.dumps(
            {
                "template": template,
                "conversations": [[dict(message) for message in messages] for messages in conversations],
                "variables": {**variables, "add_generation_prompt": add_generation_prompt},
                "output_limit": OUTPUT_LIMIT,
                "memory_limit": MEMORY_LIMIT,
                "seconds": seconds,
            }
        )
    except (TypeError, ValueError) as error:
        raise InputError("the messages of a chat must be JSON values", why=str(error)) from None
    return _answer(_run(request, _BACKSTOP_SECONDS + seconds * len(conversations)), seconds)


def _run(request: str, patience: float) -> subprocess.CompletedProcess[bytes]:
    import subprocess  # here alone: most starts render no chat

    # -P keeps the worker's own folder off its module path.
    command = [sys.executable, "-P", str(Path(__file__).with_name("chat_worker.py"))]
    try:
        return subprocess.run(command, input=request.encode(), capture_output=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise _refused(f"no answer after {patience:.0f} s") from None
    except OSError as error:
        raise InputError(f"cannot start {command[0]!r} to render the chat template", why=str(error)) from None


def _answer(done: subprocess.CompletedProcess[bytes], seconds: float) -> list[str]:
    if done.returncode != 0:
        raise _refused(_death(done, seconds))
    reply = json.loads(done.stdout)
    if "texts" in reply:
        return [str(text) for text in reply["texts"]]
    errors: dict[str, EdgepressError] = {
        "refused": _refused(reply["why"]),
        "template": BundleError("the chat template does not render", why=reply["why"]),
        "messages": InputError("the chat template does not accept this conversation", why=reply["why"]),
    }
    raise errors[reply["error"]]


def _death(done: subprocess.CompletedProcess[bytes], seconds: float) -> str:
    if done.returncode < 0:
        return f"it was stopped after {seconds:.0f} s (signal {-done.returncode})"
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return f"its process ended with code {done.returncode}: {''.join(last)[:200]}"


def _refused(why: str) -> RefusedByPolicy:
    return RefusedByPolicy(
        "the chat template was stopped",
        why=why,
        fix="use the prompt as it is with --no-chat, and do not trust this model's files",
    )
