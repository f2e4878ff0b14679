"""The shapes of a metric against size, and their least-squares fits over a whole grid (PURE: numpy only).

A shape is a function of x = log10(N / pivot) with theta = (first, second, third), see height().
Given the exponent, or half and steepness, the rest is linear (variable projection: Golub & Pereyra 1973), so every
point of a grid over those is tried. Everything is vectorised over many fits, for the bootstrap.
"""

import math
from typing import Literal

import numpy as np

from bigchem.sweep.scores.estimate import Floats

Shape = Literal["linear", "power", "saturating"]
SHAPES: dict[Shape, tuple[str, str, str]] = {
    "linear": ("height", "slope", ""),
    "power": ("floor", "factor", "exponent"),
    "saturating": ("top", "half", "steepness"),
}
"""Names of each shape's parameters."""
EXPONENTS = np.geomspace(0.02, 3.0, 48)
"""Published exponents of loss against size lie between 0.05 and 0.5; 0.02 is already a straight line in the log."""
STEEPNESS = np.geomspace(0.1, 6.0, 20)
_HALVES, _BEYOND = 33, 2.0
"""How many halves are tried, to two decades beyond the sizes."""
_ZOOMS = 4
_REWEIGHTED = 5


def height(shape: Shape, theta: Floats, x: Floats) -> Floats:
    """The curve's values for theta [..., 3], with x broadcast against [...]."""
    first, second, third = theta[..., 0], theta[..., 1], theta[..., 2]
    if shape == "linear":
        result: Floats = first + second * x
    elif shape == "power":
        result = first + second * 10 ** (-third * x)
    else:
        result = first / (1 + 10 ** np.clip(-third * (x - second), -300, 300))
    return result


def _grid(shape: Shape, x: Floats, rising: Floats) -> Floats:
    """The search grid of each of b fits: [b, k, 2] of (exponent, 0) or (steepness, half). rising [b]: 1 or -1."""
    if shape == "linear":
        pairs = np.zeros((1, 2))
    elif shape == "power":
        pairs = np.stack([EXPONENTS, np.zeros_like(EXPONENTS)], axis=1)
    else:
        halves = np.linspace(x.min() - _BEYOND, x.max() + _BEYOND, _HALVES)
        pairs = np.stack(np.meshgrid(STEEPNESS, halves, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = np.broadcast_to(pairs, (len(rising), *pairs.shape)).copy()
    if shape == "saturating":
        grid[..., 0] *= rising[:, None]
    return grid


def _project(shape: Shape, grid: Floats, x: Floats, y: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of y [b, n] in the linear parameters at each point of grid [b, k, 2]; weight broadcasts
    to [b, k, n]. Returns theta [b, k, 3] and the weighted squared error [b, k]."""
    if shape == "saturating":
        basis = 1 / (1 + 10 ** np.clip(-grid[..., :1] * (x - grid[..., 1:]), -300, 300))
        constant: Floats = np.zeros(grid.shape[:2])
        factor = (weight * basis * y[:, None]).sum(-1) / (weight * basis**2).sum(-1).clip(1e-300)
    else:
        basis = np.broadcast_to(x, (*grid.shape[:2], len(x))) if shape == "linear" else 10 ** (-grid[..., :1] * x)
        total = weight.sum(-1)
        centre = (weight * basis).sum(-1) / total
        middle = (weight * y[:, None]).sum(-1) / total
        centred = basis - centre[..., None]
        factor = (weight * centred * y[:, None]).sum(-1) / (weight * centred**2).sum(-1).clip(1e-300)
        constant = middle - factor * centre
    error = (weight * (constant[..., None] + factor[..., None] * basis - y[:, None]) ** 2).sum(-1)
    if shape == "saturating":
        return np.stack([factor, grid[..., 1], grid[..., 0]], axis=-1), error
    return np.stack([constant, factor, grid[..., 0]], axis=-1), error


def search(shape: Shape, x: Floats, y: Floats, weight: Floats, scale: float = math.inf) -> Floats:
    """The best theta [b, 3] of fits to y [b, n], over the whole grid, then over finer grids about the best.

    weight [n]: of squared residuals. scale: residuals well beyond it count linearly; infinite: plain least squares.
    """
    rising = np.where((weight * (x - x.mean()) * y).sum(-1) >= 0, 1.0, -1.0)
    grid, fits = _grid(shape, x, rising), np.arange(len(y))
    found = np.zeros((len(y), 3))
    for zoom in range(1 if shape == "linear" else 1 + _ZOOMS):
        theta, error = _fit_robustly(shape, grid, x, y, weight, scale)
        best = error.argmin(axis=1)
        found = theta[fits, best]
        grid = _finer(shape, grid[fits, best], x, zoom)
    return found


def _fit_robustly(
    shape: Shape, grid: Floats, x: Floats, y: Floats, weight: Floats, scale: float
) -> tuple[Floats, Floats]:
    """_project, with a soft-L1 loss by a few rounds of reweighting if scale is finite."""
    theta, error = _project(shape, grid, x, y, weight)
    for _ in range(0 if math.isinf(scale) else _REWEIGHTED):
        root = np.sqrt(1 + ((height(shape, theta[..., None, :], x) - y[:, None]) / scale) ** 2)
        theta, _ = _project(shape, grid, x, y, weight / root)
        root = np.sqrt(1 + ((height(shape, theta[..., None, :], x) - y[:, None]) / scale) ** 2)
        error = (weight * 2 * (root - 1)).sum(-1)
    return theta, error


def _finer(shape: Shape, centre: Floats, x: Floats, zoom: int) -> Floats:
    """A grid [b, k, 2] about the best point of each fit [b, 2], as wide as one step of the previous grid."""
    coarse = EXPONENTS if shape == "power" else STEEPNESS
    step = (x.max() - x.min() + 2 * _BEYOND) / (_HALVES - 1) if shape == "saturating" else 0.0
    across = np.linspace(-1.0, 1.0, 7) / 3**zoom
    ratio, shift = (coarse[1] / coarse[0]) ** across, np.unique(step * across)
    pairs = np.stack(np.meshgrid(ratio, shift, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.stack([centre[:, None, 0] * pairs[:, 0], centre[:, None, 1] + pairs[:, 1]], axis=-1)
