"""Checkpoints quantized in memory, layer by layer as a test asks, with the torch model they stand for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from edgepress.compress.model.anatomy import module_name
from edgepress.compress.model.block_anatomy import Attention, Linear
from edgepress.compress.model.kv_scheme import KVScales, KVScheme, tap
from edgepress.compress.model.pooling import Pooling
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.fake_quant import wrap
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.kv_cache import span_to_scale
from edgepress.export.graph.build import Build, WeightView
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.export.graph.graph_writer import GraphWriter, Opset, installed_runtime, opset_for
from edgepress.export.graph.whole_graph import BuiltGraph, build_graph, save_graph
from edgepress.export.proof.drive import GraphDriver
from edgepress.runtime.kernels.library import library
from edgepress.runtime.session.session import open_session
from edgepress.terminal.progress import Silent

from .exact import exact_session

SchemeOf = Callable[[Linear], "str | None"]


class QuantizedSource:
    """A dense checkpoint whose linears are rounded, when they are read, to what ``scheme_of`` names, and
    whose cache is rounded to ``kv`` over the range of keys and values of some random tokens.
    """

    def __init__(
        self, path: Path, scheme_of: SchemeOf, embedding: str | None, kv: KVScheme | None = None
    ) -> None:
        self.kv_scheme = kv
        self._scales: dict[str, KVScales] = {}
        self.dense_source = WeightSource.open(path)
        self.reader, self.anatomy = self.dense_source.reader, self.dense_source.anatomy
        self.shapes, self.manifest = self.dense_source.shapes, {}
        names = {linear.name: scheme_of(linear) for linear in self.anatomy.linears()}
        self.schemes = {name: Scheme.parse(scheme) for name, scheme in names.items() if scheme}
        self.embedding_scheme = None if embedding is None else Scheme.parse(embedding)
        self.head_scheme = self.embedding_scheme

    def linear(self, name: str) -> QTensor | torch.Tensor:
        weight = self.dense_source.linear(name)
        assert isinstance(weight, torch.Tensor)
        return quantize(weight, self.schemes[name]) if name in self.schemes else weight

    def scales(self, name: str) -> torch.Tensor:
        weight = self.linear(name)
        assert isinstance(weight, QTensor)
        return weight.scale

    def dense(self, name: str) -> torch.Tensor:
        weight = self.linear(name)
        return weight.dequantize() if isinstance(weight, QTensor) else weight

    def bias(self, name: str) -> torch.Tensor | None:
        return self.dense_source.bias(name)

    def tensor(self, name: str) -> torch.Tensor:
        module = name.removesuffix(".weight")
        return self.dense(module) if module in self.schemes else self.dense_source.tensor(name)

    def table(self, name: str) -> QTensor | torch.Tensor:
        weight = self.dense_source.tensor(f"{name}.weight")
        return weight if self.embedding_scheme is None else quantize(weight, self.embedding_scheme)

    def kv_scales(self, attention: Attention) -> KVScales | None:
        if self.kv_scheme is None:
            return None
        if not self._scales:
            self._scales = dict(self._calibrated(self.kv_scheme))
        return self._scales[attention.module]

    def _calibrated(self, scheme: KVScheme) -> Iterator[tuple[str, KVScales]]:
        model, seen = load_model(self.reader.path), {}
        for block in self.anatomy.blocks:
            name = block.attention.module
            module = model.get_submodule(module_name(self.anatomy, name))
            tap(module, lambda key, value, name=name: seen.setdefault(name, (key, value)))
        with torch.no_grad():
            model(torch.randint(0, 300, (1, 128), generator=torch.Generator().manual_seed(1)))
        axes = (1, 2, 3) if scheme.granularity == "per-tensor" else 2
        for name, values in seen.items():
            spans = [part.abs().amax(axes)[0] for part in values]
            scales = [span_to_scale(span * 1.1, scheme.bits) for span in spans]
            shape = (1,) if scheme.granularity == "per-tensor" else (spans[0].shape[0], 1, -1)
            yield name, KVScales(scheme, *(scale.reshape(shape) for scale in scales))

    def model(self, *, activations: bool, cache: bool = False) -> torch.nn.Module:
        """The torch model with the rounded weights; ``activations`` rounds the inputs of W8A8 layers too, and
        ``cache`` the keys and values.
        """
        model, anatomy = load_model(self.reader.path), self.anatomy
        for name, scheme in self.schemes.items():
            local = module_name(anatomy, name)
            model.get_submodule(local).weight.data = self.dense(name)
            if activations and scheme.activations:
                wrap(model, local)
        for name in {anatomy.embedding, anatomy.embedding if anatomy.tied else anatomy.head} - {None}:
            table = self.table(name)
            if isinstance(table, QTensor):
                model.get_submodule(module_name(anatomy, name)).weight.data = table.dequantize()
        for block in anatomy.blocks if cache else ():
            scales = self.kv_scales(block.attention)
            assert scales is not None
            tap(model.get_submodule(module_name(anatomy, block.attention.module)), scales.round)
        return model

    def logits(self, ids: np.ndarray, *, activations: bool, cache: bool = False) -> np.ndarray:
        """Those of :meth:`model`, ``[batch, seq, vocab]``, at every position of ``ids [batch, seq]``."""
        return whole_logits(self.model(activations=activations, cache=cache), ids)


@torch.no_grad()
def whole_logits(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    """``[batch, seq, vocab]`` of a torch model at every position, a row at a time."""
    return np.concatenate([model(torch.from_numpy(row[None]), use_cache=False).logits.numpy() for row in ids])


@pytest.fixture(scope="session")
def torch_logits() -> Callable[[torch.nn.Module, np.ndarray], np.ndarray]:
    """From a decoder in torch and ids ``[batch, seq]`` to logits ``[batch, seq, vocab]``."""
    return whole_logits


class Exported:
    """A source with its graph on disk."""

    def __init__(self, source: Any, built: BuiltGraph, path: Path) -> None:
        self.source, self.built, self.path = source, built, path

    @contextmanager
    def driver(self, *, exact: bool = False) -> Iterator[GraphDriver]:
        """The decoder graph as shipped, or with activations left in float."""
        if exact:
            with exact_session(self.path) as session:
                yield GraphDriver(session)
        else:
            yield GraphDriver(open_session(self.path, threads=1))


@pytest.fixture(scope="session")
def opset() -> Opset:
    """What the installed runtime is given for a decoder."""
    return opset_for(installed_runtime(), "decoder")


@pytest.fixture
def export_graph(tmp_path: Path) -> Callable[..., Exported]:
    """Build and write the graph of a checkpoint; ``scheme`` is a name, or a function of the linear."""

    def make(
        checkpoint: Path,
        scheme: str | SchemeOf | None = None,
        embedding: str | None = None,
        pooling: Pooling | None = None,
        kv: KVScheme | None = None,
        kv_dtype: str = "float32",
        form: ProviderForm = CPU,
    ) -> Exported:
        if form.linears == OWN.linears and library() is None:
            pytest.skip("the library of operators was not built here")
        scheme_of = scheme if callable(scheme) else lambda _: scheme
        source = QuantizedSource(checkpoint, scheme_of, embedding, kv)
        opset = opset_for(installed_runtime(), source.anatomy.kind)
        dtype = kv_dtype if kv is None else {8: "int8", 4: "uint8"}[kv.bits]
        built = build_graph(WeightView(source, kv_dtype=dtype), opset, pooling, form)
        path = tmp_path / "model.onnx"
        with Silent().task("", built.nbytes) as task:
            save_graph(built.model, path, built.nbytes, task)
        return Exported(source, built, path)

    return make


class OneOperation:
    """A graph of the nodes that a test adds between the input ``x`` and the output ``y``."""

    def __init__(self, source: Any, opset: Opset, path: Path) -> None:
        self.build = Build(GraphWriter("one"), WeightView(source))
        self._opset, self._path = opset, path

    def run(
        self, add: Callable[[Build, ir.Value], ir.Value], x: np.ndarray, *, exact: bool = False
    ) -> np.ndarray:
        graph = self.build.graph
        kind = ir.DataType.INT64 if x.dtype == np.int64 else ir.DataType.FLOAT
        value = graph.input("x", kind, [f"d{index}" for index in range(x.ndim)])
        result = add(self.build, value)
        graph.output(result, "y", ir.DataType.FLOAT, [f"e{index}" for index in range(x.ndim)])
        ir.save(graph.model(self._opset), self._path)
        if exact:
            with exact_session(self._path) as session:
                return session.run(["y"], {"x": x})[0]
        return open_session(self._path, threads=1).run(["y"], {"x": x})[0]


class Matrices:
    """A source of loose linears and tables: the least that the builders of single parts need."""

    def __init__(
        self, tensors: dict[str, torch.Tensor], schemes: dict[str, str], anatomy: Any = None
    ) -> None:
        self.tensors, self.anatomy = tensors, anatomy or SimpleNamespace(blocks=())
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.schemes = {name: Scheme.parse(scheme) for name, scheme in schemes.items()}
        self.embedding_scheme: Scheme | None = None

    @property
    def head_scheme(self) -> Scheme | None:
        return self.embedding_scheme

    def linear(self, name: str) -> QTensor | torch.Tensor:
        weight = self.tensors[f"{name}.weight"]
        return quantize(weight, self.schemes[name]) if name in self.schemes else weight

    def scales(self, name: str) -> torch.Tensor:
        weight = self.linear(name)
        assert isinstance(weight, QTensor)
        return weight.scale

    def dense(self, name: str) -> torch.Tensor:
        weight = self.linear(name)
        return weight.dequantize() if isinstance(weight, QTensor) else weight

    def bias(self, name: str) -> torch.Tensor | None:
        return self.tensors.get(f"{name}.bias")

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def kv_scales(self, attention: Attention) -> KVScales | None:
        return None

    def table(self, name: str) -> QTensor | torch.Tensor:
        weight = self.tensors[f"{name}.weight"]
        return weight if self.embedding_scheme is None else quantize(weight, self.embedding_scheme)


@pytest.fixture(scope="session")
def matrices() -> type[Matrices]:
    """The class of sources of loose matrices."""
    return Matrices


@pytest.fixture
def one_operation(tmp_path: Path, opset: Opset) -> Callable[[Any], OneOperation]:
    """Make a graph around single parts of a source."""
    return lambda source: OneOperation(source, opset, tmp_path / "one.onnx")
