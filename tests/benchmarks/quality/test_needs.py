"""What a validation is planned to take: rows of an embedding are looked up, not multiplied."""

from collections.abc import Callable
from pathlib import Path

from edgepress.benchmarks.quality.needs import validate_needs
from edgepress.benchmarks.quality.validate import plan_validation
from edgepress.terminal.progress import Silent


def test_an_embedding_takes_an_encoder_no_time(
    make_encoder: Callable[..., Path], tmp_path: Path, pico_text: Path
) -> None:
    few, many = (
        plan_validation(encoder, encoder, text=pico_text)
        for encoder in (make_encoder(tmp_path / f"{size}", vocab_size=size) for size in (500, 50_000))
    )
    # Multiplied, its 3.2 million weights would take forty times as long as those of the blocks.
    assert many.seconds < 1.5 * few.seconds
    assert sum(many.reads.values()) > 10 * sum(few.reads.values())


def test_slices_are_counted(pico_llama: Path, pico_text: Path) -> None:
    none, some, more = (
        plan_validation(pico_llama, pico_llama, text=pico_text, slices=names).seconds
        for names in ((), ("people",), ("people", "languages"))
    )
    assert none < some < more
    assert plan_validation(pico_llama, pico_llama, text=pico_text, slices=("positions",)).seconds == none


def test_a_model_that_is_streamed_is_planned_without_replies(pico_llama: Path) -> None:
    """A validation leaves them out: every token would read the whole model."""

    def seconds(memory: int, replies: int) -> float:
        sizes = {"windows": 4, "length": 64, "sentences": 0, "memory": memory, "replies": replies}
        return validate_needs(pico_llama, pico_llama, progress=Silent(), **sizes).seconds

    assert seconds(1 << 40, 20) > seconds(1 << 40, 0)
    assert seconds(1 << 16, 20) == seconds(1 << 16, 0)
