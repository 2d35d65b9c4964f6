"""Every kind of source, and every way in which one can be wrong."""

from __future__ import annotations

import json
import tracemalloc
import wave

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from calib.data import inputs_of, load, synthetic
from calib.data.audio import resample, to_unit
from calib.data.preprocess import parse
from ir.errors import DataError


def graph(signature: str) -> onnx_ir.Model:
    """A graph with only the inputs of `signature`, in ONNX text: `float[N,3] x, int64[N] y`."""
    text = f'<ir_version: 10, opset_import: ["":21]> g ({signature}) => (float z) '
    text += "{ z = Constant<value_float: float = 1.0>() }"
    return onnx_ir.from_proto(onnx.parser.parse_model(text))


def shapes(batches):
    return [tuple(next(iter(feed.values())).shape) for feed in batches]


X = graph("float[N,3] x")
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.mark.parametrize(
    "source",
    [
        {"x": ROWS},
        ROWS,
        ROWS.astype(np.float64),
        ROWS.astype(np.int64),
        torch.tensor(ROWS),
        [ROWS[:4], ROWS[4:]],
        [{"x": ROWS[:4]}, {"x": ROWS[4:]}],
        [(ROWS[:4],), (ROWS[4:],)],
        list(ROWS),
        lambda: iter([ROWS]),
        torch.utils.data.DataLoader(torch.tensor(ROWS), batch_size=7),
    ],
    ids=lambda source: type(source).__name__,
)
def test_sources_in_memory(source):
    for size in (None, 4, 1):
        batches = load(source, X, batch_size=size)
        for _ in range(2):
            feeds = list(batches)
            assert all(feed["x"].dtype == np.float32 for feed in feeds)
            np.testing.assert_array_equal(np.concatenate([f["x"] for f in feeds]), ROWS)
            if size:
                assert [len(f["x"]) for f in feeds] == [4, 4, 2][: 10 // size + 1] or size == 1


def test_files_are_mapped_and_members_picked(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    np.savez(tmp_path / "one.npz", anything=ROWS)
    np.savez_compressed(tmp_path / "two.npz", calib=ROWS, labels=np.arange(10))
    np.savez(tmp_path / "three.npz", calib=np.asfortranarray(ROWS), labels=np.arange(10))
    texts = {"x.npy": "", "one.npz": "", "two.npz": "x=calib", "three.npz": "x=calib"}
    for name, text in texts.items():
        batches = load(tmp_path / name, X, batch_size=5, preprocess=text)
        assert (batches.rows, batches.total) == (10, 2)
        np.testing.assert_array_equal(np.concatenate([f["x"] for f in batches]), ROWS)
    for name in ("x.npy", "one.npz", "three.npz"):
        source = load(tmp_path / name, X, preprocess="x=calib" if name[1] == "h" else "")._source
        assert isinstance(source.feed["x"].base, np.memmap)
    with pytest.raises(DataError, match="unknown calib, labels"):
        load(tmp_path / "two.npz", X)
    with pytest.raises(DataError, match="'x=nothing' picks no array"):
        load(tmp_path / "two.npz", X, preprocess="x=nothing")


def test_folder_of_arrays_with_changing_lengths(tmp_path):
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", np.ones((1, k + 2), np.float32))
    assert shapes(load(tmp_path, graph("float[N,T] x"))) == [(1, 2), (1, 3), (1, 4)]


def test_reading_a_large_file_needs_little_memory(tmp_path):
    big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (4096, 1024))
    big[:] = 1.0
    del big
    tracemalloc.start()
    total = sum(float(f["x"].sum()) for f in load(tmp_path / "big.npy", graph("float[N,1024] x")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 4096 * 1024
    assert peak < 2_000_000


def test_limit_is_a_seeded_choice():
    picked = [
        np.concatenate([f["x"] for f in load(ROWS, X, limit=4, seed=seed)])[:, 0].tolist()
        for seed in (0, 0, 1, None)
    ]
    assert picked[0] == picked[1] != picked[2]
    assert picked[3] == ROWS[:4, 0].tolist()
    assert picked[0] == sorted(set(picked[0]))
    assert len(picked[0]) == 4
    assert sum(len(f["x"]) for f in load([ROWS, ROWS], X, limit=13)) == 13
    assert sum(len(f["x"]) for f in load(list(ROWS), X, batch_size=4, limit=6)) == 6


def test_fixed_batch_and_what_does_not_fill_it():
    fixed = graph("float[4,3] x")
    batches = load(ROWS, fixed)
    with pytest.warns(UserWarning, match="2 samples did not fill"):
        assert shapes(batches) == [(4, 3)] * 2
    assert (batches.total, batches.dropped) == (2, 2)
    assert shapes(load([ROWS[:8]], fixed)) == [(4, 3)] * 2
    with pytest.raises(DataError, match="fixed at 4"):
        load(ROWS, fixed, batch_size=2)
    with (
        pytest.warns(UserWarning, match="3 samples"),
        pytest.raises(DataError, match="no batch: 3 samples do not fill one"),
    ):
        list(load(ROWS[:3], fixed))


def test_several_inputs_constants_and_scalars():
    two = graph("float[N,3] x, int64[N] n, float[2,2] table, float sigma")
    arrays = {
        "x": ROWS,
        "n": np.arange(10, dtype=np.int32),
        "table": np.eye(2, dtype=np.float32),
        "sigma": np.float32(0.5),
    }
    feeds = list(load(arrays, two, batch_size=4))
    assert [feed["n"].tolist() for feed in feeds] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(feed["table"].shape == (2, 2) and feed["sigma"] == 0.5 for feed in feeds)
    assert feeds[0]["n"].dtype == np.int64
    same = list(load([tuple(feed.values()) for feed in feeds], two))
    assert [feed["n"].tolist() for feed in same] == [feed["n"].tolist() for feed in feeds]
    with pytest.raises(DataError, match="different numbers of samples"):
        load({**arrays, "n": np.arange(9)}, two)


@pytest.mark.parametrize(
    ("source", "signature", "message"),
    [
        ({"y": ROWS}, "float[N,3] x", "missing x; unknown y"),
        ({"x": ROWS, "y": ROWS}, "float[N,3] x", "unknown y"),
        (ROWS, "float[N,3] x, float[N,3] y", "found 1 arrays for 2 inputs"),
        (ROWS, "float[N,4] x", r"expected %x: float32\[N,4\], found shape \[8,3\]"),
        (ROWS[None, None], "float[N,3] x", r"found shape \[1,1,10,3\]"),
        (ROWS + 0.5, "int64[N,3] x", "do not fit it exactly"),
        (ROWS.astype(np.float64) * 1e300, "float[N,3] x", "do not fit it exactly"),
        (np.int64([[2**40]]), "int32[N,1] x", "do not fit it exactly"),
        (np.int64([[300]]), "uint8[N,1] x", "do not fit it exactly"),
        (np.int64([[-1]]), "uint64[N,1] x", "do not fit it exactly"),
        (np.int64([[2**53 + 1]]), "double[N,1] x", "do not fit it exactly"),
        (np.float32([[0.1]]), "float16[N,1] x", "do not fit it exactly"),
        (np.float32([[1, np.nan, 3]]), "float[N,3] x", "%x holds 1 NaN and 0 Inf of 3"),
        ([ROWS, ROWS + np.inf], "float[N,3] x", r"0 NaN and 30 Inf of 30 elements \(at batch 1\)"),
        (np.array([["a"]]), "float[N,1] x", "found <U1"),
        ([[object()]], "float[N,1] x", "not an array of numbers"),
        ([], "float[N,3] x", "the data holds no batch"),
        (lambda: iter(()), "float[N,3] x", "the data holds no batch"),
        (ROWS[:0], "float[N,3] x", "the data holds no samples"),
        (3, "float[N,3] x", "int is no data source"),
        ("/nowhere/at/all", "float[N,3] x", "data not found"),
        (ROWS, "string[N] x", "cannot be fed"),
    ],
)
def test_bad_data(source, signature, message):
    with pytest.raises(DataError, match=message) as caught:
        list(load(source, graph(signature)))
    assert caught.value.hint


def test_lossless_casts_are_made():
    cases = [("int32", np.int64, 5), ("float", np.int64, 2**24), ("float16", np.float32, 0.5)]
    for wanted, given, value in [*cases, ("bool", np.int64, 1), ("bfloat16", np.float32, 2.0)]:
        (feed,) = load(np.array([[value]], given), graph(f"{wanted}[N,1] x"))
        assert feed["x"].dtype == inputs_of(graph(f"{wanted}[N,1] x"))[0].dtype
        assert float(feed["x"].item()) == float(value)


def test_iterator_is_read_once():
    batches = load(iter([ROWS]), X)
    assert len(list(batches)) == 1
    with pytest.raises(DataError, match="cannot start again"):
        list(batches)


def test_damaged_files(tmp_path):
    np.save(tmp_path / "cut.npy", ROWS)
    np.savez(tmp_path / "cut.npz", x=ROWS)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object), allow_pickle=True)
    (tmp_path / "empty.npy").touch()
    for name in ("cut.npy", "cut.npz"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:150])
    for name in ("cut.npy", "cut.npz", "objects.npy", "objects.npz", "empty.npy"):
        with pytest.raises(DataError, match=f"cannot be read: .*{name}"):
            load(tmp_path / name, X)
    (tmp_path / "deep").mkdir()
    with pytest.raises(DataError, match="no file of a known kind"):
        load(tmp_path / "deep", X)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="text and arrays together"):
        load(tmp_path, X)


# images


def photo(path, size, color=(10, 20, 30)):
    image_module = pytest.importorskip("PIL.Image")
    image_module.new("RGB", size, color).save(path)


def test_images_as_declared(tmp_path):
    photo(tmp_path / "a.png", (40, 20))
    (tmp_path / "class").mkdir()
    photo(tmp_path / "class" / "b.png", (20, 60), (1, 2, 3))
    (tmp_path / "notes.csv").touch()
    text = "resize=16,crop=8x12,mean=10/20/30,std=2,layout=nchw"
    (feed,) = load(tmp_path, graph("float[N,3,8,12] x"), preprocess=text)
    assert feed["x"].shape == (2, 3, 8, 12)
    np.testing.assert_array_equal(feed["x"][0], 0.0)
    np.testing.assert_allclose(feed["x"][1, :, 0, 0], [-4.5, -9.0, -13.5])
    (feed,) = load(tmp_path, graph("float[N,8,8,3] x"), preprocess="scale=1/255,color=bgr")
    np.testing.assert_allclose(feed["x"][0, 3, 3], np.array([30, 20, 10]) / 255, rtol=1e-6)
    (feed,) = load(tmp_path / "a.png", graph("uint8[N,1,4,4] x"))
    assert feed["x"].dtype == np.uint8
    assert feed["x"].shape == (1, 1, 4, 4)
    free = load(tmp_path, graph("float[N,3,H,W] x"), preprocess="scale=1")
    assert shapes(free) == [(1, 3, 20, 40), (1, 3, 60, 20)]


def test_resize_keeps_the_shape_of_a_ramp(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    ramp = np.tile(np.arange(0, 64, dtype=np.uint8)[None, :], (32, 1))
    image_module.fromarray(ramp).save(tmp_path / "ramp.png")
    (feed,) = load(tmp_path, graph("float[N,1,H,W] x"), preprocess="resize=16,crop=16,scale=1")
    assert feed["x"].shape == (1, 1, 16, 16)
    np.testing.assert_allclose(feed["x"][0, 0, 8], np.arange(16.5, 48, 2), atol=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no preprocessing is declared"),
        ("mean=0,crop=50", "crop 50x50 is larger than the image 20x40"),
        ("mean=0,size=3", "unknown image preprocessing 'size'"),
        ("mean=zero", "mean=zero cannot be read"),
        ("std=0", "std=0 cannot be read"),
        ("mean=1/2", "mean has 2 numbers for 3 channels"),
        ("resize", "'resize' is not key=value"),
        ("mean=1,mean=2", "said twice"),
        ("mean=1,layout=chw", "unknown preprocessing layout=chw"),
        ("scale=1/0", "scale=1/0 cannot be read"),
        ("scale=1", r"expected %x: float32\[N,3,8,8\], found shape \[1,3,20,20\]"),
    ],
)
def test_bad_image_preprocessing(tmp_path, text, message):
    photo(tmp_path / "a.png", (40, 20))
    if text == "scale=1":
        text = "scale=1,crop=20"
    with pytest.raises(DataError, match=message):
        list(load(tmp_path, graph("float[N,3,8,8] x"), preprocess=text))


def test_damaged_image_and_unfit_graph(tmp_path):
    photo(tmp_path / "a.png", (40, 20))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"image cannot be read.*a\.png"):
        list(load(tmp_path, graph("float[N,3,8,8] x"), preprocess="scale=1"))
    with pytest.raises(DataError, match="one input of rank 4"):
        load(tmp_path, graph("float[N,3] x"), preprocess="scale=1")


# sound


def tone(path, rate=8000, seconds=0.5, channels=1):
    time = np.arange(int(rate * seconds)) / rate
    samples = np.round(16384 * np.sin(2 * np.pi * 440 * time)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(samples, channels).tobytes())


def test_sound(tmp_path):
    tone(tmp_path / "a.wav")
    tone(tmp_path / "b.wav", seconds=0.25, channels=2)
    feeds = list(load(tmp_path, graph("float[N,T] x"), preprocess="rate=16000"))
    assert [feed["x"].shape for feed in feeds] == [(1, 8000), (1, 4000)]
    middle = feeds[0]["x"][0, 1000:1400]
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1000, 1400) / 16000)
    np.testing.assert_allclose(middle, expected, atol=0.005)
    (feed,) = load(tmp_path, graph("float[N,1,3000] x"))
    assert feed["x"].shape == (2, 1, 3000)
    np.testing.assert_array_equal(feed["x"][1, 0, 2000:], 0.0)
    (feed,) = load(tmp_path, graph("float[N,T] x"), preprocess="rate=4000,length=0.25s")
    assert feed["x"].shape == (2, 1000)


def test_bad_sound(tmp_path):
    tone(tmp_path / "a.wav")
    with pytest.raises(DataError, match="length=1s cannot be read"):
        load(tmp_path, graph("float[N,T] x"), preprocess="length=1s")
    with pytest.raises(DataError, match=r"\[batch, time\]"):
        load(tmp_path, graph("float[N,1,80,T] x"))
    (tmp_path / "a.wav").write_bytes(b"RIFFnothing")
    with pytest.raises(DataError, match=r"sound cannot be read.*a\.wav"):
        list(load(tmp_path, graph("float[N,T] x")))


def test_sample_formats_and_same_rate():
    np.testing.assert_array_equal(to_unit(np.uint8([0, 128, 255])), [-1, 0, 127 / 128])
    np.testing.assert_array_equal(to_unit(np.int16([-32768, 16384])), [-1, 0.5])
    kept = np.arange(5.0)
    assert resample(kept, 100, 100) is kept


# text


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of one token per word, ids by first letter."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: index for index, word in enumerate(["[UNK]", "a", "b", "c", "d"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return f"tokenizer={tmp_path / 'tokenizer.json'}"


def test_text_windows_and_lines(tmp_path, tokenizer):
    (tmp_path / "text.txt").write_text("a b c\n\nd a b c d\n a\n")
    two = graph("int64[N,T] input_ids, int64[N,T] attention_mask")
    feeds = list(load(tmp_path / "text.txt", two, preprocess=f"{tokenizer},window=4"))
    assert [f["input_ids"].tolist() for f in feeds] == [[[1, 2, 3, 4], [1, 2, 3, 4]]]
    lines = load(tmp_path / "text.txt", two, preprocess=f"{tokenizer},window=4,split=lines")
    assert [f["input_ids"].tolist() for f in lines] == [[[1, 2, 3]], [[4, 1, 2, 3]], [[1]]]
    fixed = graph("int32[N,4] input_ids, int64[N,4] attention_mask, int64[N,4] position_ids")
    (feed,) = load(tmp_path / "text.txt", fixed, preprocess=f"{tokenizer},split=lines")
    assert feed["input_ids"].tolist() == [[1, 2, 3, 0], [4, 1, 2, 3], [1, 0, 0, 0]]
    assert feed["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert feed["position_ids"].tolist() == [[0, 1, 2, 3]] * 3
    limited = load(
        tmp_path / "text.txt",
        graph("int64[N,T] tokens"),
        limit=1,
        preprocess=tokenizer + ",window=3",
    )
    assert [f["tokens"].tolist() for f in limited] == [[[1, 2, 3]]]


def test_long_text_is_streamed_without_loss(tmp_path, tokenizer):
    (tmp_path / "text.txt").write_text("a b c d a b c\n" * 20_000)
    batches = load(
        tmp_path / "text.txt",
        graph("int64[N,T] x"),
        batch_size=100,
        preprocess=tokenizer + ",window=70",
    )
    feeds = list(batches)
    assert [len(f["x"]) for f in feeds] == [100] * 20
    assert all((f["x"].reshape(-1, 7) == [1, 2, 3, 4, 1, 2, 3]).all() for f in feeds)


def test_bad_text(tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_bytes(b"a b \xff\xfe")
    x = graph("int64[N,T] x")
    with pytest.raises(DataError, match="needs a tokenizer"):
        load(path, x)
    with pytest.raises(DataError, match="tokenizer not found"):
        load(path, x, preprocess="tokenizer=none.json")
    with pytest.raises(DataError, match=r"text cannot be read.*text\.txt"):
        list(load(path, x, preprocess=tokenizer))
    with pytest.raises(DataError, match="cannot fill the input %image"):
        load(path, graph("int64[N,T] input_ids, float[N,3] image"), preprocess=tokenizer)
    (tmp_path / "bad.json").write_text(json.dumps({"model": 3}))
    with pytest.raises(DataError, match="tokenizer cannot be read"):
        load(path, x, preprocess=f"tokenizer={tmp_path / 'bad.json'}")


# synthetic


def test_synthetic_feeds():
    free = graph("float[N,3,H,W] x, int64[N,T] ids, bool[N,T] keep, float16[?] s, float one")
    feeds, again, other = (synthetic(free, 3, seed) for seed in (0, 0, 1))
    assert len(feeds) == 3
    for feed, same, different in zip(feeds, again, other, strict=True):
        assert feed["x"].shape == (2, 3, 32, 32)
        assert feed["ids"].shape == feed["keep"].shape == (2, 8)
        assert feed["one"].shape == ()
        assert set(np.unique(feed["ids"])) == {0, 1}
        assert feed["s"].dtype == np.float16
        assert all(np.array_equal(feed[name], same[name]) for name in feed)
        assert not np.array_equal(feed["x"], different["x"])
    assert len(list(load(feeds, free))) == 3
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])


def test_synthetic_needs_a_rank():
    model = graph("float x")
    model.graph.inputs[0].shape = None
    with pytest.raises(DataError, match="rank is unknown"):
        synthetic(model, 1)


def test_preprocessing_text_and_mapping_agree():
    assert parse({"resize": 256, "mean": (1, 2, 3)}) == parse(" resize=256, mean=1/2/3,")
