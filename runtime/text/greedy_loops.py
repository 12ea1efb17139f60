"""Whether a model has lost its text: what it says to twenty prompts, greedily, and how much of that repeats.

A model that is compressed too far falls into a loop: it says the same words over and over, and never ends.
Perplexity hides it, since that is measured on text that somebody else wrote.
"""

from collections.abc import Sequence

from .tokenizer import Tokenizer

NEW_TOKENS = 64
# A cycle that is said this often and is this many tokens long in all is a loop.
_TIMES, _SPAN = 3, 12

PROMPTS = (
    "Explain to a child why the sky is blue.",
    "Write a short letter to a neighbour whose cat you have found.",
    "How do I boil an egg so that the yolk stays soft?",
    "What should I pack for a weekend in the mountains?",
    "Tell me a story about a lighthouse keeper who is afraid of the dark.",
    "What is the difference between weather and climate?",
    "Give me three reasons to learn a second language.",
    "Describe the smell of a bakery early in the morning.",
    "Why do leaves change their colour in autumn?",
    "Write a function in Python that counts the vowels of a word.",
    "My plants have yellow leaves. What may be wrong with them?",
    "Summarize the rules of chess for somebody who has never played.",
    "How does a bicycle stay upright while it moves?",
    "Invent a name for a small bookshop by the sea, and say why it fits.",
    "What happened to the dinosaurs?",
    "Plan a birthday party for ten children on a rainy day.",
    "Is it better to read the book first, or to see the film?",
    "Explain what a bank does with the money that people bring to it.",
    "Write a polite refusal of an invitation to dinner.",
    "How can a town get people to drive less?",
)


def prompt_ids(tokenizer: Tokenizer, prompts: Sequence[str] = PROMPTS) -> list[list[int]]:
    """The ids of each of ``prompts``: a user's message, where the tokenizer has a chat template."""
    if tokenizer.chat_template is None:
        return [tokenizer.encode(prompt) for prompt in prompts]
    rendered = tokenizer.render_chats([({"role": "user", "content": prompt},) for prompt in prompts])
    return [tokenizer.encode(text, special=False) for text in rendered]


def ends_in_loop(ids: Sequence[int]) -> bool:
    """Whether ``ids`` end with some tokens that were said three times in a row, twelve tokens or more in
    all."""
    return any(_repeats(ids, period) for period in range(1, len(ids) // _TIMES + 1))


def _repeats(ids: Sequence[int], period: int) -> bool:
    span = max(_TIMES * period, _SPAN)
    return span <= len(ids) and all(
        ids[-place] == ids[-place - period] for place in range(1, span - period + 1)
    )
