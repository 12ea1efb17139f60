"""``Beside``: what a pass takes beside the products of units: norms, attention, the graph's small nodes, and
Python's call. Most of it goes with the blocks and heads that a cut takes.

It is what is predicted of a bundle of the smallest options less the products of these: of a model of which
nothing is predicted, nothing.
"""

from contextlib import suppress

from ...benchmarks.speed.planned_graph import PlannedModel
from ...benchmarks.speed.planned_subject import planned_subject
from ...compress.model.anatomy import Anatomy
from ...compress.model.weights import WeightSource
from ...devices.predict.caches import Place
from ...devices.predict.from_table import TablePrediction
from ...devices.predict.subject import RATES
from ...devices.predict.table_cost import NotMeasured, TableCost
from ...errors import CheckpointError, InputError
from ..quantities import DECODE, FIRST_TOKEN
from .products import Products, Schemes, timed_work


class _At(TableCost):
    """The costs of ``cost`` in a bundle of ``size`` bytes, whatever a graph reads of it."""

    def __init__(self, cost: TableCost, size: float) -> None:
        super().__init__(cost.table, cost.threads)
        self._fixed = cost.place(size)

    def place(self, working_set: float) -> Place:
        return self._fixed


class Beside:
    """Of the model ``source`` in a bundle of ``size`` bytes, with its linears in the ``schemes``."""

    def __init__(self, source: WeightSource, products: Products, schemes: Schemes, size: float) -> None:
        self._folder, self._products, self._schemes = source.reader.path, products, schemes
        self._size, self._cost = int(size), _At(products.cost, size)

    def seconds(self, anatomy: Anatomy) -> float:
        """Of the model ``anatomy``, or what a cut leaves of it; of a batch those of a sentence."""
        products = self._products.of_model(anatomy, self._schemes, self._cost.place(self._size))
        with suppress(CheckpointError, NotMeasured, InputError):
            return max(self._predicted(anatomy) - products, 0.0)
        return 0.0

    def _predicted(self, anatomy: Anatomy) -> float:
        """Of the whole pass."""
        chosen = dict(self._schemes)
        embedding = chosen.pop(anatomy.embedding, None)
        head = embedding if anatomy.tied or anatomy.head is None else chosen.pop(anatomy.head, None)
        schemes = {name: scheme for name, scheme in chosen.items() if scheme is not None}
        model = PlannedModel(anatomy, schemes, embedding, head)
        subject = planned_subject(model, "the smallest choice", self._folder, self._size)
        work = timed_work(anatomy)
        work.check(subject)
        prediction = TablePrediction(subject, self._cost.table, self._cost.threads, self._cost)
        values = {one.name: one.value for one in prediction.predict(work, "").quantities}
        timed = self._products.timed
        if timed is FIRST_TOKEN:
            return float(values["ttft_ms"] or 0.0) / 1e3
        rate = values["decode_tps" if timed is DECODE else RATES[subject.unit]]
        return 1 / float(rate or float("inf"))
