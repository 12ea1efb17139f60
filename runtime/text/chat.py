"""Chat templates: a Jinja program that came with a model, run where it can do no harm.

Jinja's sandbox stops attribute walks, but a loop of 30 million steps or a string of 200 MB is ordinary to it.
So the template runs in a child process (``chat_worker.py``) with a clock, a memory limit and a cap on its
output, and the parent only ever sees text or a typed error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BundleError, InputError, RefusedByPolicy
from .child_process import ChildFailed, ChildProcess, Limits

TEMPLATE_LIMIT = 64 << 10
OUTPUT_LIMIT = 1 << 20
MEMORY_LIMIT = 512 << 20
SECONDS = 2.0

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

    ``variables`` are further names the template may use, such as ``bos_token``; ``seconds`` bounds each
    conversation.
    """
    if len(template.encode("utf-8", "replace")) > TEMPLATE_LIMIT:
        raise RefusedByPolicy(f"the chat template is larger than {TEMPLATE_LIMIT >> 10} KB")
    known = {**variables, "add_generation_prompt": add_generation_prompt}
    # A character is up to 12 bytes of JSON.
    limits = Limits(seconds, MEMORY_LIMIT, 12 * OUTPUT_LIMIT)
    with ChildProcess("chat_worker.py", refused=_refused) as child:
        return [
            _text(
                child,
                {
                    "template": template,
                    "messages": [dict(message) for message in messages],
                    "variables": known,
                    "longest": OUTPUT_LIMIT,
                },
                limits,
            )
            for messages in conversations
        ]


def _text(child: ChildProcess, asked: dict[str, Any], limits: Limits) -> str:
    try:
        reply = child.ask(asked, limits)
    except (TypeError, ValueError) as error:
        raise InputError("the messages of a chat must be JSON values", why=str(error)) from None
    except ChildFailed as error:
        raise _refused(str(error)) from None
    if "messages" in reply:
        raise InputError("the chat template does not accept this conversation", why=reply["messages"])
    if "template" in reply:
        raise BundleError("the chat template does not render", why=reply["template"])
    return str(reply["text"])


def _refused(why: str) -> RefusedByPolicy:
    return RefusedByPolicy(
        "the chat template was stopped",
        why=why,
        fix="use the prompt as it is with --no-chat, and do not trust this model's files",
    )
