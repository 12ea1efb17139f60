"""``HubEncoderDecoder``: the layout of hubs, driven as optimum drives it.

The first step is given an empty cache of the sizes that a config has, the others what the steps before them
gave; keys and values of what was read are those of the first.
"""

from typing import Any

import numpy as np

from ...compress.model.hearing.feature_extractor import require_log_mel
from ...compress.text.spectra import spectra
from ...runtime.bundle.graph_sections import EncoderDecoderSection
from ...runtime.engine.encoder_decoder import EncoderDecoder, values
from ...runtime.session.session import graph_errors_are_typed
from ..job import ExportJob
from .encoder_decoder_cases import Floats
from .encoder_decoder_proof import Layout
from .proof_text import Ids

_PAST, _PRESENT, _READ = "past_key_values.", "present.", ".encoder."


class HubEncoderDecoder(EncoderDecoder):
    """As its base, over the two graphs of :mod:`edgepress.export.graph.hub_stacks` of ``job``."""

    def __init__(self, job: ExportJob, encoder: Any, session: Any, section: EncoderDecoderSection) -> None:
        self.job = job
        self._pasts = [node for node in session.get_inputs() if node.name.startswith(_PAST)]
        super().__init__(encoder, session, section)

    def _checked(self) -> list[str]:
        return ["logits", *(node.name.replace(_PAST, _PRESENT) for node in self._pasts)]

    def hear(self, sounds: Floats) -> None:
        """Read spectra of ``sounds [batch, samples]``, which the client makes, and begin answers."""
        hearing = self.job.source.anatomy.hearing
        assert hearing is not None
        given = spectra(sounds, require_log_mel(hearing, self.job.path)).numpy()
        self._begin({"input_features": given}, {}, len(sounds))

    def _begin(self, fed: dict[str, Any], kept: dict[str, Any], count: int) -> None:
        with graph_errors_are_typed("the encoder's graph failed"):
            (states,) = self.encoder.run_with_ort_values(["last_hidden_state"], values(fed))
        self._read = {"encoder_hidden_states": states} | values(kept)
        anatomy = self.job.source.anatomy
        heads = anatomy.attentions()[0].heads
        empty = np.zeros((count, heads, 0, anatomy.hidden_size // heads), np.float32)
        self._written = values({node.name: empty for node in self._pasts})
        self.lengths = [0] * count

    def write(self, ids: Ids) -> Floats:
        """As :meth:`EncoderDecoder.write`."""
        total, begun = self.lengths[0] + ids.shape[1], self.lengths[0] > 0
        self.limits.check_room(total)
        fed = values({"input_ids": np.ascontiguousarray(ids), "use_cache_branch": np.array([begun])})
        with graph_errors_are_typed(f"the graph failed at token {total}"):
            logits, *present = self.session.run_with_ort_values(
                self._outputs, {**fed, **self._read, **self._written}
            )
        given = dict(zip(self._written, present, strict=True))
        kept = {name: value for name, value in self._written.items() if begun and _READ in name}
        self._written, self.lengths = given | kept, [total] * len(self.lengths)
        found: Floats = logits.numpy()
        return found


HUB = Layout("hub_encoder", "hub_decoder", HubEncoderDecoder, by_head=True)
