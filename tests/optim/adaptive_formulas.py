"""Formulas of optimizers from their papers, in NumPy; `each` applies one to each parameter of its own."""

import numpy as np

DECAY = 0.1


def each(formula):
    """A formula for one parameter, applied to each of its own."""

    def walk(xs, updates, rates):
        return [formula(x, [update[i] for update in updates], rates) for i, x in enumerate(xs)]

    return walk


def size(arrays):
    return np.sqrt(sum((array**2).sum() for array in arrays))


def adopt(x, gs, rates):
    """Taniguchi et al. 2024, arXiv:2411.02853, algorithm 2, with c_t = t^¼."""
    m, v = 0.0, gs[0] ** 2
    for t, (g, lr) in enumerate(zip(gs[1:], rates[1:]), start=1):
        m = 0.9 * m + 0.1 * np.clip(g / np.maximum(np.sqrt(v), 1e-6), -(t**0.25), t**0.25)
        x = x - lr * DECAY * x - lr * m
        v = 0.9999 * v + 0.0001 * g * g
    return x


def nadam(x, gs, rates):
    """Dozat 2016, with μ_t = β₁ (1 - 0.96^(0.004 t) / 2)."""
    m = v = 0.0
    kept = 1.0
    mu = lambda t: 0.9 * (1 - 0.5 * 0.96 ** (0.004 * t))  # noqa: E731
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        g = g + DECAY * x
        m, v, kept = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, kept * mu(t)
        ahead = mu(t + 1) * m / (1 - kept * mu(t + 1)) + (1 - mu(t)) * g / (1 - kept)
        x = x - lr * ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


def rectified(t, above):
    """r_t of Liu et al. 2019, arXiv:1908.03265, with β₂ = 0.999; None where the length is not `above` that number."""
    longest = 2 / (1 - 0.999) - 1
    length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
    if length <= above:
        return None
    return np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))


def radam(x, gs, rates):
    m = v = 0.0
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        g = g + DECAY * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        ratio = rectified(t, above=5)
        step = 1.0 if ratio is None else ratio * np.sqrt(1 - 0.999**t) / (np.sqrt(v) + 1e-8)
        x = x - lr * step * m / (1 - 0.9**t)
    return x


def adafactor(x, gs, rates):
    """Shazeer & Stern 2018, arXiv:1804.04235, algorithms 4 and 5."""
    rows = columns = v = 0.0
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        kept = 1 - t**-0.8
        scale = max(1e-3, np.sqrt(np.mean(x * x))) * min(lr, t**-0.5)
        if x.ndim > 1:
            rows = kept * rows + (1 - kept) * np.mean(g * g, axis=1, keepdims=True)
            columns = kept * columns + (1 - kept) * np.mean(g * g, axis=0, keepdims=True)
            v = rows * columns / np.mean(rows)
        else:
            v = kept * v + (1 - kept) * g * g
        u = g / np.sqrt(v)
        x = x - lr * DECAY * x - scale * u / max(1.0, np.sqrt(np.mean(u * u)))
    return x


def muon(x, gs, rates):
    """Jordan et al. 2024: Newton-Schulz is a polynomial of the singular values, five times over."""
    momentum = 0.0
    for g, lr in zip(gs, rates):
        momentum = 0.95 * momentum + 0.05 * g
        left, values, right = np.linalg.svd(0.95 * momentum + 0.05 * g, full_matrices=False)
        values = values / np.sqrt((values**2).sum())
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        x = x - lr * DECAY * x - lr * np.sqrt(max(1, x.shape[0] / x.shape[1])) * (left * values) @ right
    return x


def soap(x, gs, rates):
    """Vyas et al. 2024, arXiv:2409.11321, algorithm 3: Adam in the eigenbases of g gᵀ and gᵀ g, renewed every 10.

    A vector has no basis. The first gradient only sets the bases.
    """
    sides = [0, 1] if x.ndim > 1 else []
    outer = lambda g, side: g @ g.T if side == 0 else g.T @ g  # noqa: E731
    seen = [0.05 * outer(gs[0], side) for side in sides]
    bases = [np.linalg.eigh(matrix)[1][:, ::-1] for matrix in seen]
    into = lambda a: bases[0].T @ a @ bases[1] if sides else a  # noqa: E731
    back = lambda a: bases[0] @ a @ bases[1].T if sides else a  # noqa: E731
    m = v = np.zeros_like(x)
    for t, (g, lr) in enumerate(zip(gs[1:], rates[1:]), start=1):
        m, v = 0.95 * m + 0.05 * g, 0.95 * v + 0.05 * into(g) ** 2
        # bias corrected before ε is added, up to ε: step √(1 - β₂ᵗ) / (1 - β₁ᵗ)
        rate = lr * np.sqrt(1 - 0.95**t) / (1 - 0.95**t)
        x = x - rate * back(into(m) / (np.sqrt(v) + 1e-8))
        x = x - lr * DECAY * x
        seen = [0.95 * matrix + 0.05 * outer(g, side) for matrix, side in zip(seen, sides)]
        if t % 10 == 0:
            for side in sides:
                power = seen[side] @ bases[side]
                order = np.argsort(-(bases[side] * power).sum(axis=0))
                v = np.take(v, order, axis=side)
                bases[side] = np.linalg.qr(power[:, order])[0]
    return x


def stable_adamw(x, gs, rates):
    """Wortsman et al. 2023, arXiv:2304.13013, algorithm 2: AdamW with update clipping."""
    m = v = np.zeros_like(x)
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        first, second = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in (0.9, 0.99))
        m, v = first * m + (1 - first) * g, second * v + (1 - second) * g * g
        lr = lr / max(1.0, np.sqrt(np.mean(g * g / np.maximum(v, 1e-16))))
        x = x - lr * DECAY * x - lr * m / (np.sqrt(v) + 1e-8)
    return x


def schedule_free_adam(with_rectifier):
    """Defazio et al. 2024, arXiv:2405.15682: y between the average and z; y holds the weights while training."""

    def formula(x, gs, rates):
        y = average = z = x
        v, total, largest = 0.0, 0.0, 0.0
        for t, (g, lr) in enumerate(zip(gs, rates), start=1):
            v = 0.999 * v + 0.001 * g * g
            ratio = rectified(t, above=4) if with_rectifier else 1.0
            lr = lr * (ratio or 0.0)
            step = DECAY * y + (g if ratio is None else g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
            largest = max(largest, lr)
            total += largest**2
            z = z - lr * step
            average = average + (largest**2 / total if total else 0.0) * (z - average)
            y = 0.1 * z + 0.9 * average
        return y

    return each(formula)


def inner(one, other):
    return sum((a * b).sum() for a, b in zip(one, other))


def prodigy(xs, updates, rates):
    """Mishchenko & Defazio 2023, arXiv:2306.06101, algorithm 4, with the sums over d₀."""
    begin, first = xs, 1e-6
    d, keep, numerator = first, np.sqrt(0.999), 0.0
    ms, vs, sums = ([np.zeros_like(x) for x in xs] for _ in range(3))
    for gs, lr in zip(updates, rates):
        rate, before = d * lr, d
        numerator = keep * numerator + d / first * rate * inner(gs, [x0 - x for x0, x in zip(begin, xs)])
        ms = [0.9 * m + 0.1 * before * g for m, g in zip(ms, gs)]
        vs = [0.999 * v + 0.001 * before**2 * g * g for v, g in zip(vs, gs)]
        sums = [keep * s + before / first * rate * g for s, g in zip(sums, gs)]
        d = max(d, numerator / sum(np.abs(s).sum() for s in sums))
        xs = [x - rate * DECAY * x - rate * m / (np.sqrt(v) + d * 1e-8) for x, m, v in zip(xs, ms, vs)]
    return xs


def dadapt_adam(xs, updates, rates):
    """Defazio & Mishchenko 2023, arXiv:2301.07733, algorithm 5."""
    d, keep, weighted = 1e-6, np.sqrt(0.999), 0.0
    ms, vs, sums = ([np.zeros_like(x) for x in xs] for _ in range(3))
    for gs, lr in zip(updates, rates):
        rate = d * lr
        gain = rate * inner(gs, [s / (np.sqrt(v) + 1e-8) for s, v in zip(sums, vs)])
        ms = [0.9 * m + 0.1 * rate * g for m, g in zip(ms, gs)]
        vs = [0.999 * v + 0.001 * g * g for v, g in zip(vs, gs)]
        sums = [keep * s + (1 - keep) * rate * g for s, g in zip(sums, gs)]
        weighted = keep * weighted + (1 - keep) * gain
        d = max(d, weighted / ((1 - keep) * sum(np.abs(s).sum() for s in sums)))
        xs = [x - rate * DECAY * x - m / (np.sqrt(v) + 1e-8) for x, m, v in zip(xs, ms, vs)]
    return xs


def dadapt_sgd(xs, updates, rates):
    """Defazio & Mishchenko 2023, arXiv:2301.07733, algorithm 4."""
    begin, d, weighted = xs, 1e-6, 0.0
    scale, sums = size(updates[0]), [np.zeros_like(x) for x in xs]
    for gs, lr in zip(updates, rates):
        gs = [g + DECAY * x for g, x in zip(gs, xs)]
        rate = d * lr / scale
        weighted += rate * inner(gs, sums)
        sums = [s + rate * g for s, g in zip(sums, gs)]
        d = max(d, 2 * weighted / size(sums))
        xs = [0.9 * x + 0.1 * (x0 - s) for x, x0, s in zip(xs, begin, sums)]
    return xs


ADAPTIVE = {
    "adopt": each(adopt),
    "nadam": each(nadam),
    "radam": each(radam),
    "adafactor": each(adafactor),
    "soap": each(soap),
    "stable_adamw": each(stable_adamw),
    "schedule_free_adamw": schedule_free_adam(False),
    "schedule_free_radam": schedule_free_adam(True),
    "prodigy": prodigy,
    "dadapt_adam": dadapt_adam,
    "dadapt_sgd": dadapt_sgd,
}
