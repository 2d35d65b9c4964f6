"""Rounding that makes up for its own errors: the GPTQ recursion, free of graphs and of formats.

found = solve(weight, hessian, IntegerGrid(scale, zero, limits))    # codes, values, loss
"""

from passes.rounding.core.factor import Damped, SolveError, factor
from passes.rounding.core.grids import Grid, IntegerGrid, KeepOutliers, PairGrid, TwoGrids
from passes.rounding.core.solve import Solution, act_order, solve

__all__ = [
    "Damped",
    "Grid",
    "IntegerGrid",
    "KeepOutliers",
    "PairGrid",
    "Solution",
    "SolveError",
    "TwoGrids",
    "act_order",
    "factor",
    "solve",
]
