"""Predictions from a kernel table: latency as a sum over the nodes of each run, memory from their sizes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from ...runtime.engine.decoder import PREFILL_CHUNK
from ..kernel_table.operation import in_float16
from ..kernel_table.table import KernelTable
from .graph_operations import CARRIED
from .prediction import GUESS, Prediction, Quantity, encoder_batches, sizes
from .run import Operations, Run
from .subject import RATES, PredictedWork, Subject
from .table_cost import NotMeasured, TableCost

# Within these bands of the prediction nine in ten measurements lie: benchmarks/lab/results/predictions.md.
# Decoding waits for memory: what its rate moved by while the table was made comes to its band.
BANDS = {"prefill": 0.20, "first": 0.20, "decode": 0.20}


class TablePrediction:
    """Predicts ``subject`` on the machine of ``table`` with so many ``threads``; by its ``cost``, where that
    is known.
    """

    def __init__(
        self, subject: Subject, table: KernelTable, threads: int, cost: TableCost | None = None
    ) -> None:
        self.provider = table.key.provider
        on_cpu = self.provider == "cpu"
        self.held = on_cpu and subject.held
        self.bands = BANDS if self.held else dict.fromkeys(BANDS, GUESS)
        self.subject, self.table, self.threads = subject, table, threads
        self.cost = cost or TableCost(table, threads)
        self.assumed: set[str] = set()
        self.taken: dict[str, str] = {}
        self.decode_band = round(self.bands["decode"] + self.cost.caches.spread, 3)

    def predict(self, work: PredictedWork, check: str) -> Prediction:
        """All quantities of ``work``; ``check`` is the command that measures them."""
        makes = {"decoder": self._decoder, "encoder": self._encoder, "encoder_decoder": self._answers}
        quantities = makes[self.subject.kind](work)
        quantities += sizes(self.subject, work, self.threads, self.table.resident, self.provider)
        notes = [*self.subject.notes]
        notes += [f"beyond the table, at its edge: {note}" for note in self.cost.notes]
        if self.assumed:
            notes.append(f"not measured, taken as a sum of the same size: {', '.join(sorted(self.assumed))}")
        if self.taken:
            as_others = ", ".join(f"{op} as {other}" for op, other in sorted(self.taken.items()))
            notes.append(f"not measured, taken as others of the same size: {as_others}")
        if not self.table.complete:
            notes.append("the kernel table is not complete: edgepress devices measure goes on")
        if not self.held:
            such = "such a model" if self.provider == "cpu" else "a GPU"
            notes.append(
                f"its bands are guesses: no prediction for {such} was compared with a measurement yet"
            )
        key = self.table.key
        return Prediction(
            subject=self.subject.name,
            target=self.table.machine,
            basis="measured table" if self.held else "measured table, not held against measurements",
            source=f"{key.processor}, ONNX Runtime {key.runtime}, {self._kernels()}, "
            f"measured {self.table.created_utc[:10]}",
            threads=self.threads if self.provider == "cpu" else None,
            provider=self.provider,
            workload=work.as_dict(self.subject),
            quantities=tuple(quantities),
            check=check,
            notes=tuple(notes),
            artifact=self.subject.artifact,
        )

    def _kernels(self) -> str:
        on_cpu = self.provider == "cpu"
        return f"kernels {self.table.key.kernels}" if on_cpu else f"with {self.provider}"

    def run_seconds(
        self, run: Run, cost: TableCost | None = None, does: Callable[[Run], Operations] | None = None
    ) -> float:
        """Of one run of the graph, or of the one that ``does`` so much, called from Python."""
        cost = cost or self.cost
        done = (does or self.subject.does)(run)
        if any(one.op == CARRIED for one in done.counts):
            raise NotMeasured(
                f"{self.subject.name} carries a state from token to token, which no kernel table times",
                fix="measure it: edgepress profile BUNDLE. From tables are predicted decoders that attend, "
                "encoders of texts and images, and encoder–decoders",
            )
        if self.provider != "cpu":
            done = replace(done, counts=Counter({in_float16(one): n for one, n in done.counts.items()}))
        self.assumed |= done.assumed
        self.taken |= done.taken
        place, fixed = cost.place(done.working_set), cost.fixed
        nodes = cost.total(done.counts.items(), place) + done.small * cost.small_node(place)
        return nodes + fixed.run + self.subject.values * fixed.value + place.call

    def _choose(self) -> float:
        return (self.table.choose or 0.0) * self.subject.vocab / 1e6

    def _decoder(self, work: PredictedWork) -> list[Quantity]:
        prefill = sum(
            self.run_seconds(Run(min(PREFILL_CHUNK, work.prompt_tokens - past), past))
            for past in range(0, work.prompt_tokens, PREFILL_CHUNK)
        )
        first = prefill + self._choose()
        last = work.prompt_tokens + work.new_tokens - 2
        token = _mean(lambda past: self.run_seconds(Run(1, past)), work.prompt_tokens, last) + self._choose()
        return [
            Quantity("decode_tps", 1 / token, "tok/s", self.decode_band),
            Quantity("prefill_tps", work.prompt_tokens / prefill, "tok/s", self.bands["prefill"]),
            Quantity("ttft_ms", 1e3 * first, "ms", self.bands["first"]),
            Quantity("tpot_ms", 1e3 * token, "ms", self.decode_band),
            Quantity("e2e_ms", 1e3 * (first + (work.new_tokens - 1) * token), "ms", self.decode_band),
        ]

    def _answers(self, work: PredictedWork) -> list[Quantity]:
        """What is read runs once through the encoder; then the decoder begins, and writes."""
        subject, read = self.subject, work.read(self.subject)

        def step(past: int) -> float:
            return self.run_seconds(Run(1, past, length=read))

        begun = self.run_seconds(Run(read, length=read), does=subject.reads)
        begun += sum(step(past) for past in range(subject.begins))
        first, last = begun + self._choose(), subject.begins + work.new_tokens - 2
        token = _mean(step, subject.begins, last) + self._choose()
        whole = first + (work.new_tokens - 1) * token
        found = [Quantity("decode_tps", 1 / token, "tok/s", self.decode_band)]
        if subject.unit == "text":
            found.append(Quantity("prefill_tps", read / begun, "tok/s", self.bands["prefill"]))
        else:
            found.append(Quantity("rtfx", subject.seconds / whole, "×", self.decode_band))
        return [
            *found,
            Quantity("ttft_ms", 1e3 * first, "ms", self.bands["first"]),
            Quantity("tpot_ms", 1e3 * token, "ms", self.decode_band),
            Quantity("e2e_ms", 1e3 * whole, "ms", self.decode_band),
        ]

    def _encoder(self, work: PredictedWork) -> list[Quantity]:
        length, images = work.read(self.subject), self.subject.unit == "image"
        each, parted = (work.batch, False) if images else encoder_batches(work, self.threads)
        # Threads that take a batch each share nothing, and each computes as one thread does.
        cost = TableCost(self.table, 1) if parted else self.cost
        whole, rest = divmod(work.batch, each)
        seconds = whole * self.run_seconds(Run(each * length, length=length), cost)
        seconds += self.run_seconds(Run(rest * length, length=length), cost) if rest else 0.0
        seconds /= self.threads if parted else 1
        single = self.run_seconds(Run(length, length=length))
        return [
            Quantity(RATES[self.subject.unit], work.batch / seconds, "1/s", self.bands["prefill"]),
            Quantity("latency_ms", 1e3 * single, "ms", self.bands["first"]),
        ]


def _mean(seconds: Callable[[int], float], first: int, last: int) -> float:
    """Over a range in which it grows about evenly."""
    return (seconds(first) + seconds((first + last) // 2) + seconds(last)) / 3
