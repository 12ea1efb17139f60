"""The toy bundles of the runtime's tests, for the verbs that open them."""

from ..runtime.conftest import (
    decoder_bundle,
    decoder_source,
    encoder_bundle,
    own_bundle,
    text_model,
    toy_weights,
)

__all__ = ["decoder_bundle", "decoder_source", "encoder_bundle", "own_bundle", "text_model", "toy_weights"]
