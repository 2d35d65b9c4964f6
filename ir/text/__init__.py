"""The text form: graph -> text -> graph, exactly; passes are documented, tested and dumped in it.

    graph mlp(%x: f32[batch,64]) -> %y {
      %wq : i4@64x1*f16[64,128] = const sha:a6141b0c77e2 used:15/16  ; by gptq
      %s  : f16[1,128]          = const sha:77e0a2f3d0b1 max:0.031   ; by gptq
      %w  : f32[64,128]         = quant.Decode(%wq, %s)
      %h  : f32[batch,128]      = Gemm(%x, %w) {alpha=0.5, transB=1} @/fc/Gemm
      %y  : f32[batch,128]      = Relu(%h)
    }

- Names are bare when made of letters, digits and `_ . / : + @ $ ~ * ! -`, else quoted: `%"a b"`.
  `_` is an absent optional input or output. Constants stand before their first reader.
- Types: `f32[4,?,n]` (`?` an unknown dimension), `f32` unknown rank, `f32[]` scalar, `?` unknown
  type, `seq(f32)`, `opt(f32)`, `sparse(f32)`; codes show their QType as the element type.
- Ops: `Conv`, `com.microsoft.MatMulNBits`, `"odd domain"."odd op"`, overloads in braces. An Encode
  or Decode whose overload is its codes' type shows none; else `quant.Scale{u8@0*f32+u8}(%x)`.
- Constants: values when there are few, else a digest of type, shape and bytes that `parse` looks up
  in `tensors` (see `store`); for tests `seed:7` (normal numbers of that seed), `zeros`, `ones`.
- Attributes: `1` int, `1.0` float, `"s"`, lists, `ints[]` (empty lists name their kind),
  `const i64[2] [1, 2]`, `type f32[2]`, `graph then() -> %a {...}`, `ref NAME KIND` in functions,
  `bytes "00ff"` (a string that is not UTF-8).
- `@NAME` is the node's name when `words.derived_name` does not give it; `; by PASS` its provenance,
  `; | {...}` other metadata. Any other text after `;` or `#` is a remark.
- A line `model {ir=10, opset={"": 17}, producer_name="x"}` comes first when something differs
  from the defaults. Functions follow the graph; those of domain `quant` are left out, for
  `ir.ops.define` makes them.

Commentary is not part of the text: doc strings, denotations, metadata other than `ptqc.*` and
`quant.*`, device placement.
"""

from .constants import digest, store
from .parser import parse
from .printer import show

__all__ = ["digest", "parse", "show", "store"]
