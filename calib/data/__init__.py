"""Calibration data: any source as re-iterable batches that fit a graph.

    batches = load(source, graph, batch_size=8, limit=200, seed=0, preprocess="...")
    for feed in batches: ...               # {input name: numpy array}, checked; one at a time

source is one of
    {input name: array}, an array          axis 0 is samples; one array for a one-input graph
    x.npy, x.npz                           memory-mapped; keys are input names, or `input=key`
    a folder or file of images             "resize=256,crop=224,mean=127,std=128,layout=nchw"
    a folder or file of .wav               "rate=16000,length=30s"
    a folder or file of text               "tokenizer=tokenizer.json,window=128,split=windows"
    a folder of .npy/.npz                  each file is a batch or a sample
    an iterable, or a function giving one  of dicts, arrays, or tuples in input order

Types are cast only when no value changes, and from float64 to float32. Everything else that does
not fit is a DataError that names the place, what was expected and what was found.
`synthetic(graph, n, seed)` draws random feeds from the graph's signature.
"""

from calib.data.batches import Batches, load
from calib.data.signature import Feed, Input, inputs_of
from calib.data.synthetic import synthetic

__all__ = ["Batches", "Feed", "Input", "inputs_of", "load", "synthetic"]
