"""Opening a bundle: a :class:`TextModel` that generates, a :class:`.engine.text_to_text.TextToTextModel` that
reads a text and writes another, a :class:`.engine.speech_to_text.SpeechToTextModel` that writes down what is
said, an :class:`EmbeddingModel` that embeds, a :class:`.engine.classify.ClassifierModel` that names labels,
or a :class:`.engine.image_encoder.ImageModel` that does either with images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ..errors import InputError
from ..terminal.progress import Progress
from .bundle.bundle import Bundle
from .engine.batch_decoder import BatchDecoder
from .engine.classify import ClassifierModel
from .engine.decoder import Decoder
from .engine.encoder import BATCH_SIZE, EncoderModel
from .engine.encoder_answers import Vectors
from .engine.generate import MAX_NEW_TOKENS, Generation, Streaming, TextStream, generate_batch, stream
from .engine.image_encoder import ImageModel
from .engine.load import BackgroundTask, LoadingGraph
from .engine.sampling import Sampling
from .engine.speech_to_text import SpeechToTextModel
from .engine.tag import TaggerModel
from .engine.text_to_text import AnswerOptions, TextToTextModel
from .session.session import device_of
from .text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from .text.chat import Messages


def open_bundle(
    path: Path | str, *, threads: int | None = None, provider: str = "cpu", verify: bool = True
) -> (
    TextModel
    | TextToTextModel
    | SpeechToTextModel
    | EmbeddingModel
    | ClassifierModel
    | TaggerModel
    | ImageModel
):
    """Verify and load the bundle at ``path``.

    Raises:
        BundleError, RefusedByPolicy: as :meth:`Bundle.open`.
        MissingDependency: ONNX Runtime is not installed.
    """
    bundle = Bundle.open(path, verify=verify, weights_later=True)
    if bundle.kind == "encoder_decoder" and bundle.encoder_decoder.sound is not None:
        return SpeechToTextModel(bundle, threads=threads, provider=provider)
    if bundle.kind == "encoder_decoder":
        return TextToTextModel(bundle, threads=threads, provider=provider)
    if bundle.kind == "decoder":
        model = TextModel(bundle, threads=threads, provider=provider)
        _ = model.decoder, model.tokenizer  # what is wrong with them is said here
        return model
    if bundle.encoder.image is not None:
        return ImageModel(bundle, threads=threads, provider=provider)
    kind: type[EmbeddingModel | ClassifierModel | TaggerModel] = EmbeddingModel
    if bundle.encoder.labels:
        kind = ClassifierModel if bundle.encoder.labelled == "text" else TaggerModel
    return kind(bundle, threads=threads, provider=provider)


class GenerateOptions(AnswerOptions, total=False):
    """The keyword arguments of :meth:`TextModel.stream`."""

    chat: bool | None
    resume: bool


class TextModel(Streaming):
    """A decoder bundle. One sequence at a time: a new stream ends the one before it, and threads that share
    the model wait for each other's whole answers (:meth:`generate`).

    Graph and tokenizer are loaded side by side from the beginning, and waited for where they are first used:
    a prompt can be rendered and split while the weights are still on their way.

    Raises:
        InputError: the bundle is an encoder.
        MissingDependency: ONNX Runtime is not installed.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> None:
        super().__init__()
        # What can be known at once is said at once.
        _ = bundle.decoder
        self.bundle, self._device = bundle, device_of(provider)
        self._opened: Decoder | None = None
        self._graph = LoadingGraph(bundle, threads=threads, provider=provider)
        self._tokenizer = BackgroundTask(partial(Tokenizer.open, bundle.path))

    @property
    def decoder(self) -> Decoder:
        """What drives the graph.

        Raises:
            BundleError: the graph does not load, or is not the one that the manifest describes.
        """
        if self._opened is None:
            self._opened = Decoder(self._graph.result(), self.bundle.decoder, device=self._device)
        return self._opened

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer.

        Raises:
            BundleError: it cannot be read.
        """
        return self._tokenizer.result()

    def prompt_ids(self, prompt: str | Messages, *, chat: bool | None = None) -> list[int]:
        """Token ids of a prompt: a text, or chat messages (mappings with ``role`` and ``content``).

        ``chat`` puts a text into the chat template as the user's message; None does so if there is a
        template.

        Raises:
            InputError: an empty prompt, or a chat without a template.
        """
        if not prompt:
            raise InputError("the prompt is empty", fix="give some text to go on with")
        if not isinstance(prompt, str):
            return self.tokenizer.encode(self.tokenizer.render_chat(prompt), special=False)
        if chat is None:
            chat = self.tokenizer.chat_template is not None
        if chat:
            return self.prompt_ids([{"role": "user", "content": prompt}])
        return self.tokenizer.encode(prompt)

    def stream(
        self,
        prompt: str | Messages,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        chat: bool | None = None,
        resume: bool = False,
    ) -> TextStream:
        """Generate text piece by piece; the arguments are those of :class:`Sampling` and :meth:`prompt_ids`.

        ``resume`` keeps in the cache what this prompt and the sequence before it begin with alike: a
        conversation that goes on costs its new messages only. What it answers then depends on the portions
        that the conversation came in.

        Raises:
            InputError: a value outside its range, an empty prompt, or more tokens than the context holds.
        """
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
        ids = self.prompt_ids(prompt, chat=chat)
        pieces = stream(
            self.decoder,
            self.tokenizer,
            ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            eos_ids=frozenset(self.decoder.section.eos_token_ids),
            resume=resume,
        )
        return self._begun(pieces)

    def generate(self, prompt: str | Messages, **options: Unpack[GenerateOptions]) -> Generation:
        """:meth:`stream` to its end."""
        with self._turn:
            return self.stream(prompt, **options).result

    def chat(self, messages: str | Messages, **options: Unpack[GenerateOptions]) -> str:
        """The reply to a message, or to the last of a conversation, by the model's chat template."""
        return self.generate(messages, **options | {"chat": True}).text

    def __call__(self, prompt: str | Messages, **options: Unpack[GenerateOptions]) -> list[dict[str, Any]]:
        """As a pipeline of transformers: ``[{"generated_text": …}]``, the prompt with what follows it."""
        if isinstance(prompt, str):
            return [{"generated_text": prompt + self.generate(prompt, **options | {"chat": False}).text}]
        reply = {"role": "assistant", "content": self.generate(prompt, **options).text}
        return [{"generated_text": [*prompt, reply]}]

    def generate_batch(
        self,
        prompts: Sequence[str | Messages],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        chat: bool | None = None,
    ) -> list[Generation]:
        """A reply to each prompt, of whatever length, side by side; arguments as :meth:`stream`.

        Raises:
            InputError: as :meth:`stream`, for any prompt.
        """
        section = self.decoder.section
        return generate_batch(
            BatchDecoder(self.decoder.session, section, device=self.decoder.device),
            self.tokenizer,
            [self.prompt_ids(prompt, chat=chat) for prompt in prompts],
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_k, top_p, repetition_penalty, seed),
            stop=stop,
            eos_ids=frozenset(section.eos_token_ids),
        )


class EmbeddingModel(EncoderModel):
    """The bundle of a sentence encoder, loaded."""

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = BATCH_SIZE,
        prompt: str | None = None,
        progress: Progress | None = None,
    ) -> Vectors:
        """Embeddings ``[len(texts), hidden]``; as :meth:`Encoder.encode`."""
        texts = [texts] if isinstance(texts, str) else texts
        return self.encoder.encode(texts, batch_size, prompt=prompt, progress=progress)
