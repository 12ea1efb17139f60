"""The head of a decoder's graph against torch's, in float some rows of the table after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from ...compress.model.skeleton import Head
from .drive import Floats, Ids
from .part_distances import CODES, FLOAT, Difference, Expected, differences, largest_differences
from .part_graphs import PartGraphs
from .streamed import StreamedModel

# Rows of the vocabulary whose float logits are compared at once.
_ROWS = 8192


class HeadProof:
    """Of the last part of ``graphs`` for the tokens ``ids [1, tokens]``; ``equal`` holds what is found to its
    bound.
    """

    def __init__(
        self,
        model: StreamedModel,
        graphs: PartGraphs,
        ids: Ids,
        equal: Callable[[str, Sequence[Difference]], None],
    ) -> None:
        self.model, self.graphs, self.ids, self.equal = model, graphs, ids, equal
        self.last, self.cases = len(graphs.parts) - 1, [(1, 0, ids.shape[1])]

    def run(self, entered: tuple[Tensor, Tensor], normed: tuple[Tensor, Tensor], *, rounds: bool) -> None:
        """``entered`` is what the part reads, ``normed`` that behind the norm: ``[1, tokens, hidden]``
        without rounding, and as the model is stored.
        """
        graphs, last, cases = self.graphs, self.last, self.cases
        if not rounds:
            with self.model.head() as head:
                expected = self._logits(head, entered[0], normed[0])
                self.equal(FLOAT, differences(graphs.shipped(last), expected, cases))
            return
        with self.model.head() as head:
            for found in self._float_logits(head, entered[0], normed[0]):
                self.equal(FLOAT, found)
        with self.model.head(rounded=True) as head:
            expected = self._logits(head, entered[1], normed[1])
            self.equal(CODES, differences(graphs.exact(last), expected, cases))

    def _float_logits(self, head: Head, entered: Tensor, normed: Tensor) -> Iterator[list[Difference]]:
        vocabulary = self.model.source.anatomy.vocab_size
        parts = [head.part(slice(at, at + _ROWS)) for at in range(0, vocabulary, _ROWS)]
        with self.graphs.with_float_weights(self.last, self._weights(parts[0])) as runner:
            for part in parts:
                runner.driver.weights.update(self._weights(part))
                yield largest_differences(runner, self._logits(part, entered, normed), self.cases)

    def _weights(self, part: Head) -> dict[str, Floats]:
        anatomy = self.model.source.anatomy
        module = anatomy.embedding if anatomy.tied or anatomy.head is None else anatomy.head
        assert isinstance(part.table, Tensor)
        found = {f"{module}.weight": part.table.float().numpy()}
        if part.bias is None:
            return found
        if anatomy.head_bias is not None:  # of Marian and BART, which is no bias of a linear
            return found | {anatomy.head_bias: part.bias[None].numpy()}
        return found | {f"{anatomy.head}.bias": part.bias.numpy()}

    def _logits(self, head: Head, entered: Tensor, normed: Tensor) -> Expected:
        logits = (head.logits(normed[0])[None].numpy(),)
        return Expected(self.ids, (entered.numpy(),), logits, logits)
