"""Hadamard matrices of many orders, and transforms by them, Kronecker factor by factor.

H [n, n] holds +-1 / sqrt(n) and H Hᵀ = I. n = m * 2^k: H = H_m (x) H_2^k, where H_2^k is
Sylvester's and H_m the smallest that is known among the multiples of n's odd part: Paley's first
(m - 1 a prime, 3 mod 4) and second (m/2 - 1 a prime, 1 mod 4) construction, or Williamson's four
circulants. Not symmetric in general: `inverse` is the transposed one.
Source: Paley 1933; Williamson 1944; QuIP# (arXiv:2402.04396) for their use.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

WILLIAMSON = {
    52: "+-+--++ +---+++ ++-+--+ +----+-",
    156: "+++--+-+-----+--++-- ++++---+--++----+-+- +++--++-+---+-+--+-- +---++-+-+-----+++-+",
    172: "+---++--++++-+-+++-++- ++-++++++----+-+--++-+ "
    "+++-+-++--+-+-++++-+-- ++---++++-+--+--++----",
}
"""First halves (0 .. (m/4 - 1) / 2) of the first rows of symmetric circulants A, B, C, D."""
WIDEST = 64
"""Largest power of two that is multiplied as one matrix; longer ones are cut in two or more."""
ROWS = 1 << 20
"""Numbers that are transformed together: what fits into a core's cache."""


def factors(n: int) -> tuple[int, int]:
    """(m, 2^k), m the smallest order of a known matrix with n = m * 2^k. ValueError without one."""
    m = n
    while m and m % 2 == 0:
        m //= 2
    while n > 0 and n % m == 0:
        if known(m):
            return m, n // m
        m *= 2
    raise ValueError(refusal(n))


def refusal(n: int) -> str:
    """Why there is no Hadamard matrix of order n here, or ''."""
    if n < 1:
        return f"{n} is no order"
    odd, power = n, 1
    while odd % 2 == 0:
        odd, power = odd // 2, power * 2
    if any(known(odd << j) for j in range(power.bit_length())):
        return ""
    if n > 2 and n % 4:
        return f"no Hadamard matrix has order {n}: not a multiple of 4"
    return f"no Hadamard matrix of an order {odd} * 2^j that divides {n} is known here"


def largest_block(n: int) -> int:
    """The largest power of two that divides n: the width of the blocks of a weaker mixing."""
    return n & -n


def known(m: int) -> bool:
    """Whether `small` has order m (powers of two only up to 2: the rest is Sylvester's)."""
    return m in (1, 2) or m in WILLIAMSON or bool(_paley(m))


def _paley(m: int) -> int:
    """1 or 2: which of Paley's constructions gives order m; 0: neither with a prime field."""
    if m % 4 == 0 and _prime(m - 1):
        return 1
    half = m // 2 - 1
    return 2 if m % 4 == 0 and half % 4 == 1 and _prime(half) else 0


def _prime(q: int) -> bool:
    return q > 1 and all(q % d for d in range(2, int(q**0.5) + 1))


@lru_cache(maxsize=32)
def small(m: int) -> np.ndarray:
    """The +-1 matrix [m, m] in float64, not divided by sqrt(m). ValueError for unknown orders."""
    if m == 1:
        return np.ones((1, 1))
    if m == 2:
        return np.array([[1.0, 1.0], [1.0, -1.0]])
    kind = _paley(m)
    if kind:
        return _paley_first(m) if kind == 1 else _paley_second(m)
    if m in WILLIAMSON:
        return _williamson(m)
    raise ValueError(f"no Hadamard matrix of order {m} is known here")


def _jacobsthal(q: int) -> np.ndarray:
    """Q[i, j]: 1 where i - j is a square modulo the prime q, -1 where not, 0 on the diagonal."""
    chi = -np.ones(q)
    chi[np.unique(np.arange(1, q) ** 2 % q)] = 1
    chi[0] = 0
    return chi[np.subtract.outer(np.arange(q), np.arange(q)) % q]


def _bordered(q: int, left: float) -> np.ndarray:
    found = np.zeros((q + 1, q + 1))
    found[0, 1:], found[1:, 0], found[1:, 1:] = 1, left, _jacobsthal(q)
    return found


def _paley_first(m: int) -> np.ndarray:
    return np.eye(m) + _bordered(m - 1, -1)


def _paley_second(m: int) -> np.ndarray:
    conference = _bordered(m // 2 - 1, 1)
    one, two = np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[1.0, -1.0], [-1.0, -1.0]])
    return np.kron(conference, one) + np.kron(np.eye(m // 2), two)


def _williamson(m: int) -> np.ndarray:
    a, b, c, d = (_circulant(half, m // 4) for half in WILLIAMSON[m].split())
    return np.block([[a, b, c, d], [-b, a, -d, c], [-c, d, a, -b], [-d, -c, b, a]])


def _circulant(half: str, size: int) -> np.ndarray:
    start = np.array([1.0 if sign == "+" else -1.0 for sign in half])
    row = np.array([start[min(i, size - i)] for i in range(size)])
    return row[np.subtract.outer(np.arange(size), np.arange(size)) % size]


def parts(n: int) -> list[np.ndarray]:
    """Matrices of +-1 whose Kronecker product is sqrt(n) H, each of at most max(m, WIDEST)."""
    m, power = factors(n)
    found = [small(m)] if m > 1 else []
    bits = power.bit_length() - 1
    widest = WIDEST.bit_length() - 1
    count = -(-bits // widest)
    for i in range(count):
        found.append(_sylvester(bits // count + (i < bits % count)))
    return found or [np.ones((1, 1))]


@lru_cache(maxsize=8)
def _sylvester(bits: int) -> np.ndarray:
    found = np.ones((1, 1))
    for _ in range(bits):
        found = np.kron(found, small(2))
    return found


def matrix(n: int) -> np.ndarray:
    """H f64[n, n]. ValueError where `refusal` says why not."""
    found = np.ones((1, 1))
    for part in parts(n):
        found = np.kron(found, part)
    return found / np.sqrt(n)


def signs(n: int, rng: np.random.Generator) -> np.ndarray:
    """Random +-1 f64[n]: diag(signs) H mixes otherwise than H, for every seed."""
    return rng.integers(0, 2, n) * 2.0 - 1


def transform(
    x: np.ndarray, axis: int = -1, *, inverse: bool = False, block: int = 0
) -> np.ndarray:
    """x H along an axis (x Hᵀ when `inverse`), in x's own precision.

    block: the axis is cut into parts of this many numbers, each transformed alone; 0: the whole
    axis. Costs n times the sum of the factors' orders a row, and one array of x's size.
    ValueError where the order has no matrix, or block does not divide the axis.
    """
    size = x.shape[axis]
    order = block or size
    if size % order:
        raise ValueError(f"blocks of {order} do not divide {size}")
    kind = x.dtype if x.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    found = parts(order)
    scaled = [(p.T if inverse else p).astype(kind) for p in found]
    scaled[-1] = scaled[-1] / kind.type(np.sqrt(order))
    if axis in (0, -x.ndim) and x.ndim > 1 and size == order:
        return _columns(x.astype(kind, copy=False), scaled).astype(x.dtype, copy=False)
    rows = np.moveaxis(x, axis, -1)
    flat = np.ascontiguousarray(rows).reshape(-1, order)
    out = np.empty(flat.shape, kind)
    step = max(ROWS // order, 1)
    for start in range(0, len(flat), step):
        out[start : start + step] = _rows(flat[start : start + step], scaled)
    return np.moveaxis(out.reshape(rows.shape), -1, axis).astype(x.dtype, copy=False)


def _rows(x: np.ndarray, scaled: list[np.ndarray]) -> np.ndarray:
    """x [r, n] times the Kronecker product: every factor acts on its own axis."""
    sizes = [len(part) for part in scaled]
    for i, part in enumerate(scaled):
        behind = int(np.prod(sizes[i + 1 :], dtype=int))
        if behind == 1:
            x = x.reshape(-1, sizes[i]) @ part
        else:
            x = np.matmul(part.T, x.reshape(-1, sizes[i], behind))
    return x.reshape(-1, int(np.prod(sizes)))


def _columns(x: np.ndarray, scaled: list[np.ndarray]) -> np.ndarray:
    """The product's transpose times x [n, ...], column by column: no array is turned round."""
    out = x.reshape(len(x), -1)
    sizes = [len(part) for part in scaled]
    for i, part in enumerate(scaled):
        behind = int(np.prod(sizes[i + 1 :], dtype=int)) * out.shape[1]
        out = np.matmul(part.T, out.reshape(-1, sizes[i], behind)).reshape(len(x), -1)
    return out.reshape(x.shape)
