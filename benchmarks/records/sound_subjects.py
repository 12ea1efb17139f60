"""A bundle or checkpoint of a model that hears, under measurement: logits of what it writes of a sound."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...compress.model.model_names import read_by_model
from ...errors import InputError, require
from ...files.limits import require_threads
from ...runtime.audio.wav_file import Samples, filled
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.directory import MANIFEST
from ...runtime.bundle.preprocessing import Sound
from ...runtime.engine.batch_decoder import REPLIES_AT_ONCE
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.engine.speech_to_text import SpeechToTextModel
from ...runtime.session.threads import thread_budget
from ...terminal.progress import Progress
from .bundle_subject import describe_bundle, runtime_of
from .record import Subject
from .subjects import NamedModel

Step = Callable[[], None]


class SoundSubject(Protocol):
    """A model that hears and is open; ``labels`` are empty."""

    kind: Literal["decoder"]
    labels: tuple[str, ...]
    label_form: LabelForm
    runtime: dict[str, Any]

    @property
    def content_sha256(self) -> str:
        """The hash of all that its answers are made of."""
        ...

    def logits(self, sound: Samples, written: NDArray[np.int64]) -> NDArray[np.float32]:
        """``[1, tokens, vocab]`` after each of the tokens ``written [1, tokens]`` of ``sound [samples]``."""
        ...

    def answers(
        self, sounds: Sequence[Samples], new_tokens: int, step: Step | None = None
    ) -> list[list[int]]:
        """The ids that it writes of each of ``sounds``, greedily and behind what stands in front, so many at
        most, until it ends. ``step`` is called after each token of all."""
        ...

    def describe(self) -> Subject:
        """The artifact as records name it."""
        ...


def reads_sounds(model: NamedModel) -> bool:
    """Whether ``model``, a bundle or what ``compress`` takes, hears."""
    if (bundle := model.bundle) is not None:
        return bundle.kind == "encoder_decoder" and bundle.encoder_decoder.sound is not None
    return read_by_model(model.name) == "sounds"


def open_sound_subject(
    model: str | Path | NamedModel, *, device: str, threads: int | None, progress: Progress
) -> SoundSubject:
    """Open ``model``; raises as :func:`.subjects.open_subject`, and InputError for one that reads text."""
    named = NamedModel.of(model, progress)
    if (named.path / MANIFEST).is_file():
        return SoundBundleSubject(named.path, threads)
    require("torch", "compress")
    require("transformers", "compress")
    return SoundCheckpointSubject(named.name, device, threads, progress)


class SoundBundleSubject:
    """An opened bundle, as it was shipped."""

    kind: Literal["decoder"] = "decoder"
    labels: tuple[str, ...] = ()
    label_form = LabelForm()

    def __init__(self, path: Path, threads: int | None) -> None:
        threads = threads or thread_budget()
        self._model = SpeechToTextModel(Bundle.open(path), threads=threads)
        self.runtime = runtime_of(self._model.bundle, threads)

    def logits(self, sound: Samples, written: NDArray[np.int64]) -> NDArray[np.float32]:
        """As :meth:`SoundSubject.logits`."""
        self._model.model.hear(filled([sound], self._model.sound))
        return self._model.model.write(written)

    def answers(
        self, sounds: Sequence[Samples], new_tokens: int, step: Step | None = None
    ) -> list[list[int]]:
        """As :meth:`SoundSubject.answers`."""
        section = self._model.model.section
        room = min(new_tokens, section.context_length - 1 - len(section.prompt))
        return [
            list(reply.token_ids)
            for start in range(0, len(sounds), REPLIES_AT_ONCE)
            for reply in self._model.generate_batch(
                sounds[start : start + REPLIES_AT_ONCE], max_new_tokens=room, step=step
            )
        ]

    @property
    def content_sha256(self) -> str:
        """As :class:`SoundSubject` has it."""
        return self._model.bundle.manifest_sha256

    def describe(self) -> Subject:
        """As :meth:`SoundSubject.describe`."""
        return describe_bundle(self._model.bundle)


class SoundCheckpointSubject:
    """An opened checkpoint, dense or compressed, in torch."""

    kind: Literal["decoder"] = "decoder"
    labels: tuple[str, ...] = ()
    label_form = LabelForm()

    def __init__(self, model: str, device: str, threads: int | None, progress: Progress) -> None:
        import torch

        from ...compress.model.hearing.feature_extractor import require_log_mel
        from ...compress.model.models import resolve
        from ...compress.model.torch_model import load_model
        from ...compress.model.weights import WeightSource
        from ...compress.pipeline.device import choose_device
        from .checkpoint_subject import torch_runtime

        self._resolved = resolve(model, progress)
        self._source = WeightSource.open(self._resolved.path)
        hearing = self._source.anatomy.hearing
        if hearing is None:
            raise InputError(f"{model} hears nothing", fix="compare with the model that it was made from")
        self._how = require_log_mel(hearing, self._resolved.path)
        self._device = choose_device(device)
        torch.set_num_threads(require_threads(threads) or thread_budget())
        self._model = load_model(self._resolved.path, device=self._device)
        self.runtime = torch_runtime(self._device)

    def logits(self, sound: Samples, written: NDArray[np.int64]) -> NDArray[np.float32]:
        """As :meth:`SoundSubject.logits`."""
        import torch

        from ...compress.text.spectra import spectra

        with torch.inference_mode():
            found = self._model(
                input_features=spectra(sound[None], self._how).to(self._device),
                decoder_input_ids=torch.from_numpy(np.ascontiguousarray(written)).to(self._device),
                use_cache=False,
            )
        return np.asarray(found.logits.float().cpu().numpy(), np.float32)

    def answers(
        self, sounds: Sequence[Samples], new_tokens: int, step: Step | None = None
    ) -> list[list[int]]:
        """As :meth:`SoundSubject.answers`."""
        import torch

        from ...compress.model.hearing.speech_prompt import speech_prompt
        from ...compress.text.spectra import spectra
        from ...compress.train.losses.sequence_terms import prompted, transcribed

        anatomy = self._source.anatomy
        prompt = speech_prompt(self._resolved.path, self._source.reader.config, anatomy.vocab_size)
        room, found = min(new_tokens, anatomy.max_positions - 1 - len(prompt.places)), []
        how = Sound(rate=self._how.rate, samples=self._how.samples)
        with torch.inference_mode():
            for start in range(0, len(sounds), REPLIES_AT_ONCE):
                features = spectra(filled(sounds[start : start + REPLIES_AT_ONCE], how), self._how)
                encoder = self._model.get_encoder()  # type: ignore[operator]
                sources = encoder(input_features=features.to(self._device)).last_hidden_state
                front, _ = prompted(self._model, sources, prompt)
                rows = transcribed(self._model, sources, front, prompt, beams=1, tokens=room)
                found += [[token for token in row if token >= 0] for row in rows.tolist()]
                if step is not None:
                    for _ in range(rows.shape[1]):
                        step()
        return found

    @cached_property
    def content_sha256(self) -> str:
        """As :class:`SoundSubject` has it."""
        return self._source.reader.fingerprint()

    def describe(self) -> Subject:
        """As :meth:`SoundSubject.describe`."""
        from .checkpoint_subject import describe_checkpoint

        return describe_checkpoint(self._source, self._resolved, "decoder", lambda: self.content_sha256)
