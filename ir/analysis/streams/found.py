"""What a finished walk amounts to: channels numbered, tied ones together, as a stream."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ir.graph import Value

from .lanes import Lane, sizes
from .ports import Port, Stream, first_biases
from .walk import Walk


def blocked(walk: Walk, value: Value, axis: int, pair: Value | None) -> Stream:
    return Stream(value, axis, (), (), frozenset(), walk.blocked, pair=pair)


def stream(walk: Walk, value: Value, start: Lane, pair: Value | None) -> Stream:
    """The stream of a walk that nothing blocked."""
    numbers = _numbers(walk, start)
    channels = int(numbers.max()) + 1
    where, axis, places = _best(walk, value, numbers)
    if places is None:
        walk.block(None, "holds these channels along several axes only")
        return blocked(walk, value, axis, pair)
    ports = [(_numbered(p, numbers), reads) for p, reads in walk.ports.values()]
    writers = tuple(p for p, reads in ports if not reads)
    span = _span(walk, numbers)
    maps = set(walk.maps) & ({"permute"} if walk.goal == "permute" else walk.maps)
    if span is None or span == 1:
        maps -= {"permute"}
    biases = first_biases(writers) if "shift" in maps else ()
    if not biases:
        maps -= {"shift"}
    return Stream(
        where,
        axis,
        writers,
        tuple(p for p, reads in ports if reads),
        frozenset(maps),
        None if maps else "no order of the channels but their own passes every op",
        _values(walk),
        biases,
        channels,
        _plain(places, channels),
        span or 0,
        pair,
    )


def _values(walk: Walk) -> tuple[Value, ...]:
    values = [*(v for v, _ in walk.members.values()), *walk.inside]
    return (*{id(v): v for v in values}.values(),)


def _numbers(walk: Walk, start: Lane) -> np.ndarray:
    """Channel of every place of the start, tied ones alike, and -1 at the end for none."""
    ids = np.unique(start.index[start.index >= 0])
    size = int(ids.max()) + 1
    roots = np.arange(size)
    if walk.ties:
        a, b = (np.concatenate(each) for each in zip(*walk.ties, strict=True))
        graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(size, size))
        roots = connected_components(graph, directed=False)[1]
    _, first, numbers = np.unique(roots[ids], return_index=True, return_inverse=True)
    found = np.full(size + 1, -1)
    found[ids] = np.argsort(np.argsort(first))[numbers]
    return found


def _numbered(port: Port, numbers: np.ndarray) -> Port:
    assert port.index is not None
    index = _plain(numbers[port.index], int(numbers.max()) + 1)
    return Port(
        port.node, port.tensor, port.axis, port.role, port.input, index, port.groups, port.inverse
    )


def _plain(index: np.ndarray, channels: int) -> np.ndarray | None:
    """None where place i holds channel i, as almost everywhere."""
    return None if len(index) == channels and (index == np.arange(channels)).all() else index


def _best(walk: Walk, value: Value, numbers: np.ndarray) -> tuple[Value, int, np.ndarray | None]:
    """The start, or else the first value whose one axis holds these channels and no others, with
    the channel of each place. Of heads that have all channels in common, any one stands for all."""
    members = [(v, lane) for v, lane in walk.members.values() if not lane.inverse]
    members.sort(key=lambda m: (len(m[1].axes), bool((m[1].index < 0).any()), m[0] is not value))
    held, lane = members[0]
    index = numbers[lane.index].reshape(*(sizes(held, lane.axes) or ()))
    first = index.reshape(-1, index.shape[-1])[0]
    return held, lane.axes[-1], first if (index == first).all() else None


def _span(walk: Walk, numbers: np.ndarray) -> int | None:
    """The run of channels within which a permutation stays; 0: anywhere; None: there is none."""
    spans: set[int] = set()
    for index, width in walk.runs:
        for row in numbers[index].reshape(-1, width):
            held = np.unique(row[row >= 0])
            if not len(held):
                continue
            if held[-1] - held[0] + 1 != len(held) or held[0] % len(held):
                return None
            spans.add(len(held))
    if any(width % min(spans) for width in spans):
        return None
    return min(spans, default=0)
