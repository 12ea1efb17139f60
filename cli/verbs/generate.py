"""``edgepress generate``: stream text from a bundle that writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import InputError
from ...terminal.progress import Terminal, print_pieces
from .. import bundle_options as verb_options
from ..verb import Verb, output

if TYPE_CHECKING:
    from ...runtime.api import TextModel
    from ...runtime.engine.generate import Generation, TextStream
    from ...runtime.engine.speech_to_text import SpeechToTextModel
    from ...runtime.engine.text_to_text import TextToTextModel

_NEW_TOKENS = 128


def _refuse_empty(_: click.Context, __: click.Parameter, stops: tuple[str, ...]) -> tuple[str, ...]:
    """``stops``; raises InputError, before a bundle is opened, where they cannot be looked for."""
    from ...runtime.text.text_stream import StopStrings

    StopStrings(stops)
    return stops


@click.command("generate", cls=Verb)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@click.option("--prompt", "-p", help="Decoders: the text to go on with; - reads it from stdin.")
@click.option("--input", "text", help="Encoder–decoders: the text to read; - reads it from stdin.")
@click.option(
    "--audio",
    type=click.Path(path_type=Path),
    help="Models that hear: a WAV file of one channel, 16 bits, 16 kHz, whose words are written down.",
)
@click.option("--language", help="Of --audio: its language, as en or de. [default: which the model hears]")
@click.option("--task", help="Of --audio: transcribe, or translate into English. [default: the model's own]")
@click.option(
    "--chat/--no-chat", default=None, help="Use the chat template [default: if the bundle has one]."
)
@click.option(
    "--max-new-tokens",
    type=verb_options.COUNT,
    help="Stop after so many tokens. [default: 128; of --audio as many as the model writes]",
)
@click.option(
    "--temperature",
    type=verb_options.Number(0, 100),
    default=0.0,
    show_default=True,
    help="0 always takes the likeliest token.",
)
@click.option(
    "--top-k",
    type=click.IntRange(0, 1 << 24),
    default=0,
    show_default=True,
    help="Keep the k likeliest tokens; 0 is off.",
)
@click.option(
    "--top-p",
    type=verb_options.Number(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Keep the likeliest tokens up to this mass.",
)
@click.option(
    "--repetition-penalty",
    type=verb_options.Number(0, 100, min_open=True),
    default=1.0,
    show_default=True,
    help="Divides the logits of tokens that were there already; 1 is off.",
)
@click.option(
    "--seed",
    type=verb_options.SEED,
    default=None,
    help="The same bundle, options and seed give the same text.",
)
@click.option("--stop", multiple=True, callback=_refuse_empty, help="Stop before this text; may be repeated.")
@verb_options.session
@output
def command(
    bundle: Path,
    words: tuple[str, ...],
    prompt: str | None,
    text: str | None,
    audio: Path | None,
    chat: bool | None,
    language: str | None,
    task: str | None,
    max_new_tokens: int | None,
    threads: int | None,
    provider: str,
    terminal: Terminal,
    **options: Any,
) -> None:
    """Stream text from BUNDLE: a decoder goes on with a --prompt, an encoder–decoder answers an --input, and
    a model that hears writes down what is said in --audio.
    """
    if words and prompt is None:
        prompt, words = " ".join(words), ()
    if words or sum(given is not None for given in (prompt, text, audio)) != 1:
        raise click.UsageError("give --prompt, to an encoder–decoder --input, or to one that hears --audio")
    if prompt is None and chat is not None:
        raise click.UsageError("only a --prompt has a chat template: leave --chat out")
    if audio is None and (language, task) != (None, None):
        raise click.UsageError("--language and --task are of --audio: leave them out")
    pieces: TextStream
    if audio is not None:
        hearing = _hearing(bundle, threads, provider)
        options |= {"language": language, "task": task, "max_new_tokens": max_new_tokens}
        pieces, session = hearing.stream(audio, **options), hearing.model.session
    else:
        options["max_new_tokens"] = max_new_tokens or _NEW_TOKENS
        given = str(text if prompt is None else prompt)
        given = _stdin() if given == "-" else given
        if text is None:
            model = _open(bundle, threads, provider)
            pieces = model.stream(given, chat=chat, **options)
            session = model.decoder.session
        else:
            answers = _answering(bundle, threads, provider)
            pieces, session = answers.stream(given, **options), answers.model.session
    if session.misplaced:
        terminal.say(f"WARNING: {session.misplaced}")
    if not terminal.as_json:
        print_pieces(pieces)
    result = pieces.result
    terminal.document(result.as_dict())
    terminal.say(_statistics(result))


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError("cannot read the text from stdin", why=str(error), fix="give it in UTF-8") from None


def _open(path: Path, threads: int | None, provider: str) -> TextModel:
    from ...runtime.api import TextModel
    from ...runtime.bundle.bundle import Bundle

    return TextModel(Bundle.open(path, weights_later=True), threads=threads, provider=provider)


def _answering(path: Path, threads: int | None, provider: str) -> TextToTextModel:
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.engine.text_to_text import TextToTextModel

    return TextToTextModel(Bundle.open(path, weights_later=True), threads=threads, provider=provider)


def _hearing(path: Path, threads: int | None, provider: str) -> SpeechToTextModel:
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.engine.speech_to_text import SpeechToTextModel

    return SpeechToTextModel(Bundle.open(path, weights_later=True), threads=threads, provider=provider)


def _statistics(result: Generation) -> str:
    speed = f", {result.tokens_per_second:.1f} tokens/s after it" if result.tokens_per_second else ""
    ends = {"eos": "ended by the model", "stop": "ended by --stop", "length": "cut at --max-new-tokens"}
    return (
        f"{result.prompt_tokens} prompt + {len(result.token_ids)} new tokens, "
        f"{ends[result.finish_reason]}: first token after {1000 * result.ttft_s:.0f} ms{speed}"
    )
