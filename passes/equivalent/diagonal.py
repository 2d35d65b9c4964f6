"""What the passes share that divide channels by factors: sites, statistics, and the fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.torch import Executor
from ir import formats
from ir.analysis.masks import masked_values
from ir.analysis.streams import Stream, streams
from ir.fold import fold_scale, scale_refusal
from ir.fold.tensors import exchange
from ir.graph import Graph, Value, array, constant, rank
from ir.qtype import QType
from passes.core import Ctx
from passes.padding import valid_rows, without_padding
from passes.probe import first_samples
from passes.rounding.clip_weights import group_extremes
from passes.rounding.rtn import round_weight
from passes.sites import Linear, linears

ROWS = 256
"""Rows of a value that are kept for judging factors by the error of outputs."""


@dataclass(frozen=True)
class Channels:
    """Extremes, mean magnitude and mean square of each of K channels, and some rows [T, K]."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    power: np.ndarray
    rows: np.ndarray

    @property
    def top(self) -> np.ndarray:
        """Largest magnitudes [K]."""
        return np.maximum(-self.low, self.high)

    @classmethod
    def of(cls, data: np.ndarray, kept: int = ROWS) -> Channels:
        """Of all rows of data [..., K], keeping up to `kept` at even distances."""
        data = data.reshape(-1, data.shape[-1])
        power = np.einsum("tk,tk->k", data, data, dtype=np.float64) / len(data)
        step = -(-len(data) // kept) if kept else 1
        rows = data[::step][:kept].copy()  # of a large value, not a view that keeps it alive
        mean = np.abs(data).mean(axis=0, dtype=np.float64)
        return cls(data.min(axis=0), data.max(axis=0), mean, power, rows)


@dataclass(frozen=True, eq=False)
class Site:
    """One activation and the linear layers that read it: what shares one factor a channel.

    stream: that ends in just these layers, or None for the reason `refusal`; index: which of its
    channels each of the K inputs is (heads that share keys and values have channels in common),
    None: each its own.
    """

    x: Value
    layers: tuple[Linear, ...]
    stream: Stream | None = None
    refusal: str = ""

    @property
    def index(self) -> np.ndarray | None:
        return self.stream.index if self.stream is not None else None

    def weight(self) -> np.ndarray:
        """The layers' weights side by side, f32[K, N]."""
        return np.concatenate([matrix(layer) for layer in self.layers], axis=1)

    def tied(self, numbers: np.ndarray) -> np.ndarray:
        """[K] with the largest of tied channels in the place of each of them."""
        if self.index is None:
            return numbers
        most = np.full(int(self.index.max()) + 1, -np.inf)
        np.maximum.at(most, self.index, numbers)
        return most[self.index]


def sites(graph: Graph) -> list[Site]:
    """Values of the main graph that layers with a matrix weight read, in order."""
    masked = masked_values(graph)
    found: dict[int, list[Linear]] = {}
    for layer in linears(graph):
        fits = layer.node.op_type in ("MatMul", "Gemm") and rank(layer.weight) == 2
        plain = fits and layer.node.graph is graph.graph and constant(layer.weight) is not None
        if plain and layer.x.name not in masked:
            found.setdefault(id(layer.x), []).append(layer)
    known = {id(stream.value): stream for stream in streams(graph)}
    made = []
    for group in found.values():
        stream = known.get(id(group[0].x))
        reason = _refusal(stream, group)
        made.append(Site(group[0].x, (*group,), None if reason else stream, reason))
    return made


def _refusal(stream: Stream | None, layers: list[Linear]) -> str:
    """Why a scale of the stream is not one of all inputs of these layers alone, or ''."""
    if stream is None or stream.pair is not None:
        return "what writes it takes no factor"
    if stream.blocked or "scale" not in stream.maps:
        return stream.blocked or "its channels cannot be scaled"
    if {id(port.node) for port in stream.readers} != {id(each.node) for each in layers}:
        return "others read its channels, too"
    if stream.index is not None and (stream.index < 0).any():
        return "only some of its channels take factors"
    return ""


def matrix(layer: Linear) -> np.ndarray:
    """The weight as f32[K, N]."""
    numbers = array(layer.node.inputs[1])  # a fold may have changed it since
    assert numbers is not None
    return (numbers if layer.inputs == (0,) else numbers.T).astype(np.float32, copy=False)


def observed(
    graph: Graph, values: Sequence[Value], probes: Sequence[Mapping], rows: int = 0
) -> dict[str, Channels]:
    """Statistics of the last axis of values over feeds, without rows of padding."""
    parts: dict[str, list[tuple[int, Channels]]] = {}
    executor = Executor(graph)
    share = -(-rows // max(1, len(probes)))
    for feeds in probes:
        valid = valid_rows(graph, feeds)

        def look(name: str, valid=valid):
            def see(tensor) -> None:
                data = tensor.detach().numpy()
                if valid is not None:
                    data = without_padding(data, valid)
                if data.size and np.isfinite(data).all():
                    count = data.size // data.shape[-1]
                    parts.setdefault(name, []).append((count, Channels.of(data, share)))

            return see

        executor.run(feeds, watch={v.name or "": look(v.name or "") for v in values})
    return {name: merged(seen) for name, seen in parts.items()}


def merged(parts: Sequence[tuple[int, Channels]]) -> Channels:
    """Of several batches, each with its count of rows."""
    counts = np.array([count for count, _ in parts], np.float64)
    share = counts / counts.sum()
    each = [channels for _, channels in parts]
    return Channels(
        np.min([c.low for c in each], axis=0),
        np.max([c.high for c in each], axis=0),
        share @ np.stack([c.mean for c in each]),
        share @ np.stack([c.power for c in each]),
        np.concatenate([c.rows for c in each]),
    )


def measured(
    graph: Graph, ctx: Ctx, what: str, *, samples: int, rows: int = 0, online: bool = True
) -> Iterator[tuple[Site, Channels]]:
    """The sites that factors can be chosen for, one after the other, with what data showed of each.

    The others are skipped, those whose writers take no factor unless it may be done `online`.
    what: the work that progress is told of. Nothing without data.
    """
    found = sites(graph)
    probes = first_samples(ctx.data or (), samples)
    if not found or not probes:
        return
    seen = observed(graph, [site.x for site in found], probes, rows)
    for done, site in enumerate(found):
        ctx.progress(what, done, len(found))
        reason = unusable(site, seen)
        if not reason and site.stream is None and not online:
            reason = site.refusal
        if reason:
            ctx.skip(site.x, reason)
        else:
            yield site, seen[site.x.name or ""]


def unusable(site: Site, seen: Mapping[str, Channels]) -> str:
    """Why nothing can be chosen for a site, or ''."""
    if site.x.name not in seen or not np.isfinite(site.weight()).all():
        return "no data reached it, or a weight that reads it is not finite"
    return ""


def balanced(top: np.ndarray, widest: np.ndarray | None, alpha: float) -> np.ndarray:
    """s f64[K] = top^alpha / widest^(1 - alpha), 1 in geometric mean (widest None: top^alpha).

    Channels that are always zero, or that no weight reads, keep 1.
    """
    used = top > 0 if widest is None else (top > 0) & (widest > 0)
    s = np.ones(len(top))
    s[used] = top[used].astype(np.float64) ** alpha
    if widest is not None:
        s[used] /= widest[used].astype(np.float64) ** (1 - alpha)
    if used.any():
        s[used] /= np.exp(np.log(s[used]).mean())
    return s


def rounded(weight: np.ndarray, qtype: QType) -> np.ndarray:
    """A matrix [K, N] after round to nearest under a type written for such a one."""
    scale, zero = formats.scale_and_zero(*group_extremes(weight, qtype), qtype)
    return formats.decode(round_weight(weight, scale, zero, qtype), scale, zero, qtype)


def divide(site: Site, s: np.ndarray, ctx: Ctx, *, online: bool) -> None:
    """Divide the site's value by s [K], in its writers, else by a product, else skip."""
    stream, reason = site.stream, ""
    if stream is not None:
        own = s
        if stream.index is not None:
            own = np.ones(stream.channels)
            own[stream.index] = s
        reason = scale_refusal(stream, own)
        if not reason:
            fold_scale(stream, own, ctx.edit)
            ctx.did(site.x)
            return
    if online:
        _multiply(site, s, ctx)
        ctx.did(site.x)
        return
    ctx.skip(site.x, site.refusal or reason)


def _multiply(site: Site, s: np.ndarray, ctx: Ctx) -> None:
    x = site.x
    kind = np.float32 if x.dtype is None else x.dtype.numpy()
    inverse = ctx.edit.constant((1 / s).astype(kind), f"{x.name}.smoothing")
    made = ctx.edit.node("Mul", [x, inverse], like=f"{x.name}.smooth", behind=x)
    made.outputs[0].type, made.outputs[0].shape = x.type, x.shape
    for layer in site.layers:
        old = layer.node.inputs[1]
        numbers = array(old)
        assert old is not None
        assert numbers is not None
        scaled = numbers * (s[:, None] if layer.inputs == (0,) else s[None, :])
        ctx.edit.set_input(layer.node, 0, made.outputs[0])
        exchange(layer.node, 1, scaled, f"{old.name}.smooth", ctx.edit)
