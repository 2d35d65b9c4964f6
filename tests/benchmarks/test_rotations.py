"""The figures of benchmarks.rotations on a tiny decoder."""

import numpy as np

import passes
from benchmarks import rotations
from tests.helpers import tiny_graph


def test_costs_of_a_tiny_decoder() -> None:
    graph = passes.run(tiny_graph("llama"), "clean").graph
    row = rotations.seconds(graph, hadamard=False) | rotations.memory(graph, hadamard=False)
    assert row["sites"] == 3
    assert {"fold_s", "rotate_s"} <= row.keys()
    assert rotations.forwards(graph, tokens=6, times=2) >= 0


def test_feeds_have_empty_caches_and_so_many_tokens() -> None:
    feed = rotations._feed(tiny_graph("llama"), 6)
    assert {name: value.dtype for name, value in feed.items()} == {"input_ids": np.int64}
    assert feed["input_ids"].shape[-1] == 6
