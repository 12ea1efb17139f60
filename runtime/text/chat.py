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


class ChatTemplate:
    """The Jinja source ``template``; ``variables`` are further names that it may use, such as ``bos_token``.

    Its child process starts with the first conversation and stays for the next. Threads take turns.
    """

    def __init__(self, template: str, variables: Mapping[str, Any]) -> None:
        if len(template.encode("utf-8", "replace")) > TEMPLATE_LIMIT:
            raise RefusedByPolicy(f"the chat template is larger than {TEMPLATE_LIMIT >> 10} KB")
        self._template, self._variables = template, variables
        self._child = ChildProcess("chat_worker.py", refused=_refused)

    def render(
        self,
        conversations: Sequence[Messages],
        *,
        add_generation_prompt: bool = True,
        seconds: float = SECONDS,
    ) -> list[str]:
        """The text of each conversation (a list of ``{"role", "content"}``); ``seconds`` bounds each."""
        # A character is up to 12 bytes of JSON.
        limits = Limits(seconds, MEMORY_LIMIT, 12 * OUTPUT_LIMIT)
        known = {**self._variables, "add_generation_prompt": add_generation_prompt}
        common = {"template": self._template, "variables": known, "longest": OUTPUT_LIMIT}
        asked = ({**common, "messages": [dict(message) for message in one]} for one in conversations)
        return [_text(self._child, one, limits) for one in asked]


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
