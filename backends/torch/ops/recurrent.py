"""RNN, GRU and LSTM: one loop over time; the products with the input are taken for all steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.table import op

_ACTIVATIONS: dict[str, Callable[[Tensor, float | None, float | None], Tensor]] = {
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "tanh": lambda x, a, b: torch.tanh(x),
    "relu": lambda x, a, b: torch.relu(x),
    "affine": lambda x, a, b: (1.0 if a is None else a) * x + (0.0 if b is None else b),
    "leakyrelu": lambda x, a, b: F.leaky_relu(x, 0.01 if a is None else a),
    "thresholdedrelu": lambda x, a, b: torch.where(x > (1.0 if a is None else a), x, x * 0),
    "scaledtanh": lambda x, a, b: (
        (1.0 if a is None else a) * torch.tanh((1 if b is None else b) * x)
    ),
    "hardsigmoid": lambda x, a, b: torch.clamp(
        (0.2 if a is None else a) * x + (0.5 if b is None else b), 0, 1
    ),
    "elu": lambda x, a, b: F.elu(x, 1.0 if a is None else a),
    "softsign": lambda x, a, b: F.softsign(x),
    "softplus": lambda x, a, b: F.softplus(x),
}
Floats = tuple[float, ...] | None
Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def _activations(
    names: tuple[str, ...] | None, default: tuple[str, ...], count: int, alpha: Floats, beta: Floats
) -> list[Callable[[Tensor], Tensor]]:
    chosen = [name.lower() for name in (names or default * count)]
    alphas, betas = list(alpha or ()), list(beta or ())
    out = []
    for name in chosen:  # alphas and betas are listed only for the functions that take them
        if name not in _ACTIVATIONS:
            raise ValueError(f"recurrent activation {name!r} is unknown")
        takes_a = name not in ("sigmoid", "tanh", "relu", "softsign", "softplus")
        takes_b = name in ("affine", "scaledtanh", "hardsigmoid")
        a = alphas.pop(0) if takes_a and alphas else None
        b = betas.pop(0) if takes_b and betas else None
        out.append(lambda x, fn=_ACTIVATIONS[name], a=a, b=b: fn(x, a, b))
    return out


def _walk(
    step: Step, gates: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None, back: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one direction over gates[T, B, G]; past a sequence's end the state stands still."""
    rows: list[Tensor] = [state[0]] * gates.shape[0]
    for t in reversed(range(gates.shape[0])) if back else range(gates.shape[0]):
        new = step(gates[t], state)
        if lengths is not None:
            live = (t < lengths).unsqueeze(1)
            new = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
            rows[t] = torch.where(live, new[0], torch.zeros_like(new[0]))
        else:
            rows[t] = new[0]
        state = new
    return torch.stack(rows), state


def _run(
    make: Callable[[int], Step],
    gate_count: int,
    x: Tensor,
    w: Tensor,
    biases: Tensor | None,
    states: list[Tensor | None],
    lengths: Tensor | None,
    direction: str,
    layout: int,
) -> tuple[Tensor, ...]:
    """All directions: (Y, last state, ...) in the node's layout. `biases`: [D, G] on the input."""
    x = x.transpose(0, 1) if layout else x
    count, size = w.shape[0], w.shape[1] // gate_count
    given = [s.transpose(0, 1) if s is not None and layout else s for s in states]
    zero = torch.zeros(count, x.shape[1], size, dtype=x.dtype, device=x.device)
    starts = [zero if s is None else s for s in given]
    outs, lasts = [], []
    for d in range(count):
        gates = F.linear(x, w[d], None if biases is None else biases[d])
        back = direction == "reverse" or d == 1
        y, last = _walk(make(d), gates, tuple(s[d] for s in starts), lengths, back)
        outs.append(y)
        lasts.append(last)
    y = torch.stack(outs, 1)  # [T, D, B, H]
    final = [torch.stack(parts) for parts in zip(*lasts, strict=True)]
    if layout:
        return y.permute(2, 0, 1, 3), *(f.transpose(0, 1) for f in final)
    return y, *final


def _check(clip: float | None) -> Callable[[Tensor], Tensor]:
    return (lambda v: v) if not clip else (lambda v: torch.clamp(v, -clip, clip))


@op("RNN")
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
    *,
    activation_alpha: Floats = None,
    activation_beta: Floats = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    fns = _activations(activations, ("Tanh",), w.shape[0], activation_alpha, activation_beta)
    bound = _check(clip)

    def build(d: int) -> Step:
        return lambda g, s: (fns[d](bound(g + F.linear(s[0], r[d]))),)

    bias = None if b is None else b[:, : w.shape[1]] + b[:, w.shape[1] :]
    return _run(build, 1, x, w, bias, [h0], lengths, direction, layout)


@op("GRU")
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
    *,
    activation_alpha: Floats = None,
    activation_beta: Floats = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int = 0,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """Gates in the order update z, reset r, hidden h."""
    default = ("Sigmoid", "Tanh")
    fns = _activations(activations, default, w.shape[0], activation_alpha, activation_beta)
    bound, size = _check(clip), r.shape[-1]
    rest = torch.zeros_like(r[..., 0]) if b is None else b[:, 3 * size :]

    def build(d: int) -> Step:
        f, g = fns[2 * d : 2 * d + 2]
        r_zr, r_h, b_zr, b_h = (
            r[d, : 2 * size],
            r[d, 2 * size :],
            rest[d, : 2 * size],
            rest[d, 2 * size :],
        )

        def step(x_in: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (h,) = state
            gate = f(bound(x_in[:, : 2 * size] + F.linear(h, r_zr, b_zr)))
            z, reset = gate[:, :size], gate[:, size:]
            if linear_before_reset:
                inner = reset * F.linear(h, r_h, b_h)
            else:
                inner = F.linear(reset * h, r_h, b_h)
            return ((1 - z) * g(bound(x_in[:, 2 * size :] + inner)) + z * h,)

        return step

    bias = None if b is None else b[:, : 3 * size]
    return _run(build, 3, x, w, bias, [h0], lengths, direction, layout)


@op("LSTM")
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    p: Tensor | None = None,
    *,
    activation_alpha: Floats = None,
    activation_beta: Floats = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int = 0,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Gates in the order input i, output o, forget f, cell c; peepholes in the order i, o, f."""
    default = ("Sigmoid", "Tanh", "Tanh")
    fns = _activations(activations, default, w.shape[0], activation_alpha, activation_beta)
    bound, size = _check(clip), r.shape[-1]

    def build(d: int) -> Step:
        f, g, out = fns[3 * d : 3 * d + 3]
        peep = torch.zeros(3 * size, dtype=x.dtype) if p is None else p[d]
        p_i, p_o, p_f = peep[:size], peep[size : 2 * size], peep[2 * size :]

        def step(x_in: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = state
            i, o, forget, cell = (x_in + F.linear(h, r[d])).split(size, -1)
            i = f(bound(i + p_i * c))
            forget = 1 - i if input_forget else f(bound(forget + p_f * c))
            c = forget * c + i * g(bound(cell))
            return f(bound(o + p_o * c)) * out(c), c

        return step

    bias = None if b is None else b[:, : 4 * size] + b[:, 4 * size :]
    return _run(build, 4, x, w, bias, [h0, c0], lengths, direction, layout)
