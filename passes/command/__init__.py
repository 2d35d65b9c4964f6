"""The commands of `ptqc`, one module each.

A command module has a docstring (its help), `EXAMPLE`, `arguments(parser)` that declares its
options, `run(args, screen)` that does the work and returns what `--json` writes, and
`stopped(args)` that says what Ctrl-C left behind. It imports what is slow to import only when it
runs, so that `ptqc --help` and a mistyped option answer at once.
"""

NAMES = ("quantize", "compare", "inspect", "bench", "recipes", "explain")
