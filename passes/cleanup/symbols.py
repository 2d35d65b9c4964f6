"""Dimensions that are not known numbers: polynomials with whole coefficients over named sizes.

Shape arithmetic in exported models is sums and products of a few dimensions, done once per layer;
a general algebra system costs more to import than a whole clean-up may take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Poly:
    """A sum of `coefficient * product of names`. Names stand for sizes, so they are >= 0.

    Terms are sorted and without zeros, so equal polynomials compare equal. A polynomial without
    a name is never made: operations return a plain int then.
    """

    terms: tuple[tuple[tuple[str, ...], int], ...]

    @staticmethod
    def named(name: str) -> Poly:
        """The size known by a name."""
        return Poly((((name,), 1),))

    def __add__(self, other: int | Poly) -> int | Poly:
        return _collect((*self.terms, *_terms(other)))

    def __mul__(self, other: int | Poly) -> int | Poly:
        return _collect(
            (tuple(sorted(a + b)), m * n) for a, m in self.terms for b, n in _terms(other)
        )

    def __neg__(self) -> int | Poly:
        return self * -1

    def __sub__(self, other: int | Poly) -> int | Poly:
        return self + other * -1

    def __rsub__(self, other: int) -> int | Poly:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: int | Poly) -> int | Poly:
        """Exact when one term divides every term; else a size of its own named by the quotient.

        raises: ArithmeticError when a sign is not known (ONNX cuts towards zero, Python downwards).
        """
        divisor = _terms(other)
        if len(divisor) == 1:
            names, number = divisor[0]
            parts = [_without(term, names) for term, _ in self.terms]
            exact = number > 0 and all(n % number == 0 for _, n in self.terms)
            if exact and all(part is not None for part in parts):
                return _collect(
                    (part or (), n // number)
                    for part, (_, n) in zip(parts, self.terms, strict=True)
                )
        if not self.nonnegative or any(n <= 0 for _, n in divisor):
            raise ArithmeticError(f"the sign of {self} // {other} is not known")
        return Poly.named(f"({self}//{other})")

    def __rfloordiv__(self, other: int) -> int | Poly:
        if other < 0 or not self.nonnegative:
            raise ArithmeticError(f"the sign of {other} // {self} is not known")
        return Poly.named(f"({other}//{self})")

    @property
    def nonnegative(self) -> bool:
        """Whether no term can make it negative."""
        return all(n > 0 for _, n in self.terms)

    def __str__(self) -> str:
        return "+".join(
            "*".join([*([str(n)] if n != 1 else []), *names]) for names, n in self.terms
        )


def _terms(value: int | Poly) -> tuple[tuple[tuple[str, ...], int], ...]:
    return value.terms if isinstance(value, Poly) else (((), int(value)),)


def _collect(terms: Iterable[tuple[tuple[str, ...], int]]) -> int | Poly:
    total: dict[tuple[str, ...], int] = defaultdict(int)
    for names, number in terms:
        total[names] += number
    kept = tuple(sorted((names, number) for names, number in total.items() if number))
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    return Poly(kept)


def _without(names: tuple[str, ...], taken: tuple[str, ...]) -> tuple[str, ...] | None:
    """`names` less one of each of `taken`, or None when one is missing."""
    rest = list(names)
    for name in taken:
        if name not in rest:
            return None
        rest.remove(name)
    return tuple(rest)


def differ(a: int | Poly, b: int | Poly) -> bool:
    """Whether the two are provably never equal."""
    if isinstance(a, int) and isinstance(b, int):
        return a != b
    gap = a - b
    if isinstance(gap, int):
        return gap != 0
    # A sum of non-negative terms plus a positive constant is never zero (nor is its negative).
    for side in (gap, -gap):
        if (
            isinstance(side, Poly)
            and side.nonnegative
            and any(not names for names, _ in side.terms)
        ):
            return True
    return False
