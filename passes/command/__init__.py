"""The commands of `ptqc`, one module each.

A command module has a docstring (its help), `EXAMPLE`, `arguments(parser)` that declares its options and
`run(args, screen)` that does the work and returns what `--json` writes. It imports what is slow to import
only when it runs, so that `ptqc --help` and a mistyped option answer at once.
"""

NAMES = ("quantize", "compare", "inspect", "bench", "recipes", "explain")
