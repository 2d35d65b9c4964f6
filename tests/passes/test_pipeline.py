"""Pipelines read what they write, and refuse what they cannot read."""

import typing
from dataclasses import dataclass, fields
from enum import Enum
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.errors import PipelineError
from ir.qtype import QType
from passes import Pass, Pipeline, Stat
from passes.core import REGISTRY, register
from passes.pipeline import build, split
from passes.place import Place
from passes.ranges import Method
from passes.registry import passes, recipes
from passes.rounding.clip import Clip
from passes.rounding.rtn import Rtn

QTYPES = st.sampled_from(
    ["i8@0x1*f32", "u8@0*f32+u8", "i4@128x1*f16+i4", "e2m1@16x1*e4m3*f32", "vq8.65536@8x1*f16"]
).map(QType.parse)
TEXTS = st.text(max_size=12)


@dataclass(frozen=True)
class Every(Pass):
    """Every kind of option. Not registered."""

    name: ClassVar[str] = "every"

    text: str = "a"
    maybe: str | None = None
    words: tuple[str, ...] = ()
    number: int = 1
    real: float = 0.5
    on: bool = False
    method: Method = Method.MSE
    kinds: tuple[Stat, ...] = ()
    w: QType | None = None
    rows: tuple[tuple[int, ...], ...] = ()

    def run(self, graph, ctx):
        raise NotImplementedError("only its options matter")


def strategy(kind) -> st.SearchStrategy:
    """Values of an annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
    if arguments:
        return st.one_of(*(strategy(part) for part in arguments))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    return {
        type(None): st.none(), str: TEXTS, int: st.integers(), bool: st.booleans(), QType: QTYPES,
        float: st.floats(allow_nan=False),
    }[kind]  # fmt: skip


def options(cls) -> st.SearchStrategy[dict]:
    hints = typing.get_type_hints(cls)
    return st.fixed_dictionaries({f.name: strategy(hints[f.name]) for f in fields(cls)})


def made(cls, values: dict):
    """The pass, or None where it refuses the values."""
    try:
        return cls(**values)
    except ValueError:
        return None


@given(st.data())
def test_every_registered_pass_reads_its_own_text(data):
    cls = data.draw(st.sampled_from(sorted(passes().values(), key=lambda c: c.name)))
    step = made(cls, data.draw(options(cls)))
    if step is not None:
        assert Pipeline.parse(str(step)) == Pipeline(step)


@given(options(Every))
def test_every_kind_of_option_round_trips(values):
    step = Every(**values)
    text = str(step)
    inner = text[len("every{") : -1] if "{" in text else ""
    assert build(Every, inner) == step
    assert split(f"a{{x=1}} | {text} | b", "|")[1].strip() == text


@given(st.data())
def test_pipelines_round_trip(data):
    classes = st.sampled_from(sorted(passes().values(), key=lambda c: c.name))
    steps = []
    for cls in data.draw(st.lists(classes, min_size=1, max_size=4)):
        step = made(cls, data.draw(options(cls)))
        if step is not None:
            steps.append(step)
    if steps:
        assert Pipeline.parse(str(Pipeline(*steps))) == Pipeline(*steps)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("clip", Clip()),
        ("clip{}", Clip()),
        (" clip { percentile , percent = 99.0 } ", Clip(Method.PERCENTILE, 99.0)),
        ("place{w=i8@0x1*f32,a=none}", Place(w=QType.parse("i8@0x1*f32"))),
        ("place{i8@0x1*f32}", Place(w=QType.parse("i8@0x1*f32"))),
        ("place{w=i8@0x1*f32,keep=[first 'value:/a b/*' into:Softmax&!Conv]}",
         Place(w=QType.parse("i8@0x1*f32"),
               keep=("first", "value:/a b/*", "into:Softmax&!Conv"))),
        ("place{w=i8@0x1*f32,keep=first}", Place(w=QType.parse("i8@0x1*f32"), keep=("first",))),
    ],
)  # fmt: skip
def test_ways_to_write_options(text, step):
    assert Pipeline.parse(text).steps == (step,)


def test_only_what_differs_from_the_defaults_is_written():
    assert str(Clip()) == "clip"
    assert str(Clip(percent=99.0)) == "clip{percent=99.0}"
    assert str(Place(w=QType.parse("i8@0*f32"), dynamic=False)) == "place{w=i8@0*f32}"


@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipes_stand_for_their_pipelines(name):
    whole = Pipeline.parse(name)
    assert whole == recipes()[name].read()
    assert Pipeline.parse(str(whole)) == whole
    assert Pipeline.parse(f"dedup | {name} | dedup").steps[1:-1] == whole.steps
    assert name not in passes()


def test_options_of_a_recipe_reach_its_steps():
    steps = Pipeline.parse("w8a8{clip=entropy,keep=[first last]}").steps
    assert Clip(Method.ENTROPY) in steps
    (place,) = [step for step in steps if isinstance(step, Place)]
    assert place.keep == ("first", "last")
    with pytest.raises(
        PipelineError, match="option 'clip' of 'w8a8' has no value; write key=value"
    ):
        Pipeline.parse("w8a8{clip}")
    with pytest.raises(PipelineError, match="'kl' is not valid; expected one of minmax"):
        Pipeline.parse("w8a8{clip=kl}")


def test_edits_make_new_pipelines():
    pipeline = Pipeline.parse("dedup | clip | rtn | clip")
    text = str(pipeline)
    assert str(pipeline.replace("clip", Rtn(), Rtn())) == "dedup | rtn | rtn | rtn | rtn | rtn"
    assert str(pipeline.without("clip")) == "dedup | rtn"
    assert str(pipeline + Pipeline(Clip(percent=60.0))) == f"{text} | clip{{percent=60.0}}"
    assert str(pipeline) == text
    assert len(pipeline) == 4
    for edit in (pipeline.replace, pipeline.without):
        with pytest.raises(PipelineError, match="no step 'gptq' to replace in 'dedup"):
            edit("gptq")
    with pytest.raises(AttributeError):
        pipeline.steps = ()
    with pytest.raises(AttributeError):
        pipeline.steps[1].percent = 1.0


@pytest.mark.parametrize(
    "text", ["", "a b", "clip{", "clip}", "clip{percent=}", "clip{=1}", "clip{percent=60,}", "|",
             "clip{percent='60}", "{mse}", "clip || rtn", "place{w=i8@0*f32,dynamic=maybe}"]
)  # fmt: skip
def test_unreadable_texts_are_refused_with_a_remedy(text):
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse(text)
    assert caught.value.hint


@given(st.text("clip{}[]|,='mse percent0.9 ", max_size=30))
def test_no_text_does_more_than_be_refused(text):
    try:
        pipeline = Pipeline.parse(text)
    except PipelineError:
        return
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_a_name_used_twice_is_an_error():
    class Rtn(Pass):
        name: ClassVar[str] = "rtn"

    with pytest.raises(
        ValueError, match=r"pass name 'rtn' of .* is taken by passes\.rounding\.rtn"
    ):
        register(Rtn)
    assert passes()["rtn"] is REGISTRY["rtn"] is not Rtn


def test_a_plugin_that_cannot_be_loaded_is_named(monkeypatch):
    from importlib import metadata

    from passes import registry

    class Broken:
        name, value = "acme", "acme.passes"

        def load(self):
            raise ImportError("no module named acme")

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Broken()])
    registry._load.cache_clear()
    try:
        with pytest.raises(PipelineError) as caught:
            registry.passes()
    finally:
        monkeypatch.undo()
        registry._load.cache_clear()
    assert str(caught.value) == (
        "the passes of 'acme' (acme.passes) cannot be loaded: no module named acme; "
        "repair or uninstall that package"
    )
