"""What running a bundle takes, from its manifest: for plans."""

from __future__ import annotations

from ...files.storage import read_json
from ...runtime.bundle.bundle import Bundle
from .bundle_subject import describe_bundle

_FLOAT_BITS = 16
# Integer products of edgepress's operators beside float32's.
_INTEGERS = 2.5


def multiplications(bundle: Bundle) -> float:
    """Multiply-adds of a token, counted in float32's by the time they take: one for each weight, without an
    encoder's embedding, of which it reads one row. Where the manifest does not count the weights, four bits
    each are assumed.
    """
    subject = describe_bundle(bundle)
    weights = subject.params or 2 * subject.disk_bytes
    bits = 8 * (subject.weight_bytes or subject.disk_bytes) / weights
    if bundle.kind == "encoder":
        weights = max(weights - _embedding(bundle), weights // 10)
    return weights / (_INTEGERS if bundle.own_operators and bits < _FLOAT_BITS else 1.0)


def bytes_of_a_token(bundle: Bundle) -> int:
    """Bytes of weights that a token reads."""
    subject = describe_bundle(bundle)
    return subject.bytes_per_token or subject.disk_bytes


def _embedding(bundle: Bundle) -> int:
    path = bundle.path / "config.json"
    config = read_json(path) if path.is_file() else {}
    rows = config.get("vocab_size") if isinstance(config, dict) else None
    return rows * bundle.encoder.hidden_size if isinstance(rows, int) else 0
