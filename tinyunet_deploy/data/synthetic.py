"""Ten classes of synthetic textures with small defects, in the layout of DAGM2007.

Every image is a pure function of (class, index, seed, size). A class is a pair of functions:
a shape draws the defect as a weight map in [0, 1], and a texture renders the grey image under
that map. A defect-free image is the same texture under a map of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image, Mask
from tinyunet_deploy.data.dataset import Ellipse
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.masks import ellipse_mask
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.host import processor_count

CLASSES = range(1, 11)

_TILE = 1024
_TRUTH = 0.25
_THREADS = min(8, processor_count())

_Float = NDArray[np.floating[Any]]
_Rng = np.random.Generator


class Sample(NamedTuple):
    """One image with what is known about it; all but the image are None when it is defect-free."""

    image: Image
    """uint8 [size, size]: grey values."""
    label: Mask | None
    """uint8 [size, size], {0, 255}: the weak label, the ellipse as pixels."""
    truth: Mask | None
    """uint8 [size, size], {0, 255}: the exact defect pixels, all inside the ellipse."""
    ellipse: Ellipse | None
    """The weak label, drawn generously around the defect; it may reach beyond the image."""


# --- periodic noise tiles ---------------------------------------------------------------------


def _seed(*words: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(words)


def _periodic(noise: NDArray[np.float64], response: NDArray[np.float64]) -> _Float:
    """Filter a periodic field by a frequency response and bring it to mean 0, variance 1."""
    field = np.fft.irfft2(np.fft.rfft2(noise) * response, s=noise.shape)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


@lru_cache(maxsize=64)
def _smooth_tile(sigma_x: float, sigma_y: float) -> _Float:
    """White noise under a Gaussian of the given sigmas in pixels, float32 [1024, 1024]."""
    rng = np.random.default_rng(_seed(round(1000 * sigma_x), round(1000 * sigma_y)))
    fx, fy = np.fft.rfftfreq(_TILE), np.fft.fftfreq(_TILE)[:, None]
    response = np.exp(-2 * np.pi**2 * ((sigma_x * fx) ** 2 + (sigma_y * fy) ** 2))
    return _periodic(rng.standard_normal((_TILE, _TILE)), response)


@lru_cache(maxsize=16)
def _stroke_tile(degrees: int, length: int, count: int) -> _Float:
    """Randomly scattered tapered strokes of one direction, float32 [1024, 1024]."""
    rng = np.random.default_rng(_seed(degrees, length, count))
    dots = np.zeros((_TILE, _TILE))
    dots[tuple(rng.integers(0, _TILE, (2, count)))] = rng.normal(0.4, 1.0, count)
    kernel = np.zeros((_TILE, _TILE))
    angle = np.deg2rad(degrees)
    for t in np.linspace(0, 1, 4 * length):
        row, col = length * t * np.sin(angle), length * t * np.cos(angle)
        kernel[round(row), round(col)] += t * (1 - t) ** 0.5
    kernel = np.asarray(np.fft.irfft2(np.fft.rfft2(kernel), s=kernel.shape))
    fx, fy = np.fft.rfftfreq(_TILE), np.fft.fftfreq(_TILE)[:, None]
    soften = np.exp(-2 * np.pi**2 * (fx**2 + fy**2))
    return _periodic(dots, np.asarray(np.fft.rfft2(kernel) * soften))


def _crop(tile: _Float, rng: _Rng, size: int, slant: float = 0.0) -> _Float:
    """A random, randomly flipped crop of a periodic tile, sheared by slant columns a row."""
    y, x = rng.integers(0, _TILE, 2)
    flip_y, flip_x = rng.choice((-1, 1), 2)
    steps = np.arange(size)
    rows, cols = (y + flip_y * steps) % _TILE, (x + flip_x * steps) % _TILE
    if slant == 0:
        return np.asarray(tile.take(rows, 0).take(cols, 1))
    shift = np.rint(slant * steps).astype(np.int64)[:, None]
    return np.asarray(tile[rows[:, None], (cols + shift) % _TILE])


def _noise(rng: _Rng, size: int, *layers: tuple[float, float, float], slant: float = 0.0) -> _Float:
    """Sum independent noise layers of (sigma x, sigma y, variance), float32 [size, size]."""
    total = np.zeros((size, size), np.float32)
    for sigma_x, sigma_y, variance in layers:
        crop = _crop(_smooth_tile(sigma_x, sigma_y), rng, size, slant)
        total += np.float32(variance**0.5) * crop
    return total


def _emboss(height: _Float) -> _Float:
    """Light a height map from the upper left."""
    kernel = np.array([[1, 1, 0], [1, 0, -1], [0, -1, -1]], np.float32) / 3
    return np.asarray(cv2.filter2D(height, -1, kernel, borderType=cv2.BORDER_REPLICATE))


# --- drawing ----------------------------------------------------------------------------------


def _polyline(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    value: int,
    thickness: int,
    *,
    fill: bool = False,
) -> None:
    """Draw an anti-aliased line, or fill a polygon, through points [n, 2] of (x, y)."""
    fixed = [np.rint(points * 16).astype(np.int32)]
    if fill:
        cv2.fillPoly(canvas, fixed, value, cv2.LINE_AA, 4)
    else:
        cv2.polylines(canvas, fixed, False, value, thickness, cv2.LINE_AA, 4)


def _disc(
    canvas: NDArray[np.uint8], centre: NDArray[np.float64], radius: float, thickness: int = -1
) -> None:
    """Draw an anti-aliased circle, filled by default."""
    x, y = (round(16 * float(c)) for c in centre)
    cv2.circle(canvas, (x, y), round(16 * radius), 255, thickness, cv2.LINE_AA, 4)


# --- textures: (generator, weight map) -> grey float32 [size, size] ---------------------------


def _moire(rng: _Rng, weight: _Float) -> _Float:
    """Aliased chirps of two quadratic phases around one centre; the defect is a flat blot."""
    size = len(weight)
    centre_x, centre_y = rng.uniform(0.05, 0.95, 2) * size
    square_x, square_y = (np.arange(size) - centre_x) ** 2, (np.arange(size) - centre_y) ** 2
    wave = np.zeros((size, size))
    for gain, mirror in ((0.8, 1.0), (0.7, rng.uniform(0, 1))):
        chirp = np.pi * rng.integers(1, 6) / 3 + rng.choice((-1, 1)) * rng.uniform(0.001, 0.008)
        x, y = chirp * square_x, chirp * rng.choice((0.5, 1.0, 1.0, 1.0)) * square_y
        even, odd = np.outer(np.cos(y), np.cos(x)), np.outer(np.sin(y), np.sin(x))
        wave += gain * (even - mirror * odd)
    glow = _noise(rng, size, (80, 80, 1.0))
    field = wave.astype(np.float32) * (1.2 + 0.3 * glow) + 0.5 * _noise(rng, size, (0.5, 0.5, 1.0))
    grey = np.square(np.maximum(8.05 + 1.65 * field + 0.25 * glow, 0))
    return np.asarray(grey + (65 + 3 * glow - grey) * weight)


def _streaks(rng: _Rng, weight: _Float) -> _Float:
    """Narrow, nearly vertical streaks; the defect is a dark line."""
    level = rng.uniform(8.2, 9.8)
    field = _noise(rng, len(weight), (0.01, 7, 1.0), slant=rng.uniform(-0.12, 0.12))
    grey = np.square(np.maximum(level + 28 / level * field, 0))
    return np.asarray(grey * (1 - 0.9 * weight))


def _cloth(rng: _Rng, weight: _Float) -> _Float:
    """Soft noise with broad vertical bands; the defect is a cluster of white grains."""
    field = _noise(
        rng,
        len(weight),
        (0.4, 0.4, 0.05),
        (1.6, 1.6, 0.14),
        (6, 4.5, 0.27),
        (20, 14, 0.06),
        (60, 300, 0.44),
        (0.7, 30, 0.012),
        (12, 1.2, 0.02),
    )
    grey = 128 + 32 * field
    return grey + (250 - grey) * weight


def _star(rng: _Rng, weight: _Float) -> _Float:
    """An embossed star of rays in a dark frame; the defect is a dark line."""
    size = len(weight)
    centre = size / 2 + rng.normal(6, 8, 2)
    rays = np.zeros((size, size), np.uint8)
    steps = np.linspace(0, 1, 12)
    for angle in rng.uniform(0, 2 * np.pi, 190):
        radius = steps * rng.uniform(60, 340)
        turn = angle + rng.normal(0.05, 0.1) * steps**2
        points = centre + np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
        _polyline(rays, points, int(rng.integers(30, 230)), 1)
    rise = np.asarray(cv2.GaussianBlur(rays, (0, 0), 1.1), np.float32)
    grain = _noise(rng, size, (1.2, 1.2, 0.7), (5, 2, 0.3))
    level = 181 + rng.normal(0, 6) + 3 * _noise(rng, size, (80, 80, 1.0))
    grey = level + 0.65 * _emboss(rise) + 9 * _emboss(grain)
    hub = np.zeros((size, size), np.uint8)
    _disc(hub, centre, 9)
    core = cv2.GaussianBlur(hub.astype(np.float32) / 255, (0, 0), 2)
    grey += (108 - grey) * core
    grey *= 1 - 0.35 * weight
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        edge[:] = 40
    return grey


def _grain(rng: _Rng, weight: _Float) -> _Float:
    """Noise of several scales; the defect is a patch of dark stripes."""
    layers = ((0.01, 0.01, 0.08), (1.5, 1.5, 0.52), (7, 7, 0.17), (30, 30, 0.23))
    field = _noise(rng, len(weight), *layers)
    return np.asarray(120 + 29 * field - 85 * np.maximum(weight - 0.3, 0))


def _speckle(rng: _Rng, weight: _Float) -> _Float:
    """Hard black and white speckle; the defect is a dark band."""
    field = _noise(rng, len(weight), (1.3, 1.3, 0.75), (5, 4, 0.18), (30, 30, 0.07))
    return 255 / (1 + np.exp(0.7 - 1.65 * (field - 1.4 * weight)))


def _strokes(rng: _Rng, weight: _Float) -> _Float:
    """Tapered strokes of one direction; the defect is a patch of another direction."""
    size = len(weight)
    field = _crop(_stroke_tile(70, 24, 20000), rng, size)
    other = _crop(_stroke_tile(10, 10, 24000), rng, size)
    glow = _noise(rng, size, (0.8, 0.8, 0.5), (80, 80, 0.5))
    return 112 + 24 * (field + (other - field) * weight) + 7 * glow - 9 * weight


def _bands(rng: _Rng, weight: _Float) -> _Float:
    """Vertical bands; the defect is a short dark path."""
    layers = ((0.7, 0.7, 0.15), (2, 30, 0.2), (10, 300, 0.55), (30, 30, 0.1))
    return 125 + 27 * _noise(rng, len(weight), *layers) - 58 * weight


def _blotches(rng: _Rng, weight: _Float) -> _Float:
    """Two-tone blotches; the defect is a bright ring."""
    size = len(weight)
    field = _noise(rng, size, (5, 5, 0.8), (16, 16, 0.2))
    fine = _noise(rng, size, (0.8, 0.8, 1.0))
    return 118 + 34 * field / np.sqrt(1 + field**2) + 9 * fine + 45 * weight


def _funnel(rng: _Rng, weight: _Float) -> _Float:
    """An embossed funnel; the defect is a thin dark line."""
    size = len(weight)
    centre = size / 2 + rng.normal(0, 12, 2)
    dx, dy = np.arange(size) - centre[0], (np.arange(size) - centre[1])[:, None]
    radius = np.sqrt(dx**2 + dy**2 + 60).astype(np.float32)
    light = ((dx + dy) / radius).astype(np.float32) * np.exp(-radius / 110)
    relief = _emboss(_noise(rng, size, (3, 3, 0.6), (1, 1, 0.4)))
    grey = 150 + 55 * light + 22 * relief + 4 * _noise(rng, size, (80, 80, 1.0))
    return np.asarray(grey - 55 * weight)


# --- defect shapes: (generator, size) -> weight map float32 [size, size] in [0, 1] -------------


def _scale(size: int) -> float:
    """Factor on lengths that makes defects fit into images smaller than 256."""
    return min(1.0, size / 256)


def _place(rng: _Rng, size: int) -> NDArray[np.float64]:
    """Centre (x, y) of a defect, away from the border."""
    return rng.uniform(0.12 * size, 0.88 * size, 2)


def _weight(canvas: NDArray[np.uint8], blur: float) -> _Float:
    """Soften a drawn shape into weights; those below 2 % become zero."""
    weight = np.asarray(cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), blur), np.float32)
    weight = weight / weight.max()
    return np.where(weight < 0.02, np.float32(0), weight)


def _blob(
    rng: _Rng,
    size: int,
    low: float,
    high: float,
    stretch: tuple[float, float],
    wobble: float,
    blur: float,
) -> _Float:
    """Fill an irregular ellipse with a mean radius in [low, high]."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = rng.uniform(low, high) * _scale(size) * np.ones(48)
    for k in (2, 3, 5):
        radius *= 1 + rng.normal(0, wobble / k) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    long = rng.uniform(*stretch)
    points = np.stack([np.cos(t) * radius * long**0.5, np.sin(t) * radius / long**0.5], 1)
    canvas = np.zeros((size, size), np.uint8)
    _polyline(canvas, points @ _rotation(rng) + _place(rng, size), 255, 1, fill=True)
    return _weight(canvas, max(0.6, blur * _scale(size)))


def _rotation(rng: _Rng) -> NDArray[np.float64]:
    """Random rotation of row vectors, [2, 2]."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _path(rng: _Rng, size: int, low: float, high: float, bend: float) -> _Float:
    """Draw an open line with a length in [low, high] that turns by about bend radians."""
    t = np.linspace(-0.5, 0.5, 25)
    heading = rng.normal(0, bend) * t + rng.normal(0, bend / 2) * np.sin(2 * np.pi * t)
    step = rng.uniform(low, high) * _scale(size) / len(t)
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * step, 0)
    canvas = np.zeros((size, size), np.uint8)
    points = (points - points.mean(0)) @ _rotation(rng) + _place(rng, size)
    _polyline(canvas, points, 255, 2)
    return _weight(canvas, 0.8)


def _dots(rng: _Rng, size: int) -> _Float:
    """Scatter small grains along a short random walk."""
    canvas = np.zeros((size, size), np.uint8)
    steps = rng.normal(0, 3.4, (int(rng.integers(20, 70)), 2)) * max(0.5, _scale(size))
    walk = np.cumsum(steps, 0)
    for point in walk - walk.mean(0) + _place(rng, size):
        _disc(canvas, point, rng.uniform(0.4, 1.3))
    return _weight(canvas, 0.5)


def _stripes(rng: _Rng, size: int) -> _Float:
    """Fill a rotated rectangle with parallel stripes of weight 1 on a ground of 0.3."""
    half = rng.uniform(10, 24, 2) * max(0.5, _scale(size))
    turn, centre = _rotation(rng), _place(rng, size)
    canvas = np.zeros((size, size), np.uint8)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    _polyline(canvas, corners @ turn + centre, 77, 1, fill=True)
    for x in np.arange(-half[0], half[0] + 0.1, rng.uniform(4.5, 6)):
        _polyline(canvas, np.array([[x, -half[1]], [x, half[1]]]) @ turn + centre, 255, 2)
    return canvas.astype(np.float32) / 255


def _ring(rng: _Rng, size: int) -> _Float:
    """Draw a thin circle."""
    canvas = np.zeros((size, size), np.uint8)
    _disc(canvas, _place(rng, size), rng.uniform(8, 18) * max(0.5, _scale(size)), 2)
    return _weight(canvas, 0.8)


class _Recipe(NamedTuple):
    """How to make one class, and how loose its labels are.

    slim: least ratio of the semi-axes; loose: largest scale of the ellipse over a tight one.
    """

    texture: Callable[[_Rng, _Float], _Float]
    shape: Callable[[_Rng, int], _Float]
    slim: float
    loose: float


_blemish = partial(_blob, low=17, high=34, stretch=(1, 1.8), wobble=0.15, blur=4)
_band = partial(_blob, low=38, high=60, stretch=(8, 18), wobble=0.05, blur=3)
_stain = partial(_blob, low=22, high=42, stretch=(1, 1.6), wobble=0.2, blur=3)
_thread = partial(_path, low=50, high=180, bend=1.8)
_scratch = partial(_path, low=90, high=190, bend=0.2)
_hair = partial(_path, low=40, high=110, bend=1.8)
_crack = partial(_path, low=60, high=150, bend=0.3)

_RECIPES = {
    1: _Recipe(_moire, _blemish, slim=0.3, loose=1.7),
    2: _Recipe(_streaks, _thread, slim=0.2, loose=1.25),
    3: _Recipe(_cloth, _dots, slim=0.3, loose=2.2),
    4: _Recipe(_star, _scratch, slim=0.25, loose=1.15),
    5: _Recipe(_grain, _stripes, slim=0.4, loose=1.5),
    6: _Recipe(_speckle, _band, slim=0.1, loose=1.15),
    7: _Recipe(_strokes, _stain, slim=0.3, loose=1.3),
    8: _Recipe(_bands, _hair, slim=0.2, loose=1.3),
    9: _Recipe(_blotches, _ring, slim=0.4, loose=1.4),
    10: _Recipe(_funnel, _crack, slim=0.2, loose=1.2),
}


# --- samples ----------------------------------------------------------------------------------


def _enclose(truth: NDArray[np.bool_], rng: _Rng, slim: float, loose: float) -> Ellipse:
    """Draw a generous ellipse that holds every true pixel of bool [size, size]."""
    rows, cols = np.nonzero(truth)
    dx, dy = cols - cols.mean(), rows - rows.mean()
    angle = 0.5 * float(np.arctan2(2 * (dx * dy).mean(), (dx * dx).mean() - (dy * dy).mean()))
    angle += rng.normal(0, 0.05)
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    mid_u, mid_v = (u.min() + u.max()) / 2, (v.min() + v.max()) / 2
    a = max(float(np.ptp(u)) / 2, 2.0) * rng.uniform(1.0, 1.3)
    b = max(float(np.ptp(v)) / 2, 2.0, slim * a) * rng.uniform(1.0, 1.6)
    mid_u, mid_v = mid_u + rng.normal(0, 0.08) * a, mid_v + rng.normal(0, 0.08) * b
    reach = float(np.hypot((u - mid_u) / a, (v - mid_v) / b).max()) * rng.uniform(1.04, loose)
    x = cols.mean() + mid_u * np.cos(angle) - mid_v * np.sin(angle) + 1
    y = rows.mean() + mid_u * np.sin(angle) + mid_v * np.cos(angle) + 1
    return Ellipse(a * reach, b * reach, angle, float(x), float(y))


def weak_label(class_id: int, truth: NDArray[np.generic], rng: np.random.Generator) -> Ellipse:
    """One draw of the label of a class around a defect, an ellipse that holds all of it.

    Args:
        class_id: 1 to 10; classes differ in how loose their labels are.
        truth: [H, W], not zero where the defect is.
    """
    recipe = _RECIPES[class_id]
    return _enclose(truth != 0, rng, recipe.slim, recipe.loose)


def _check(classes: Sequence[int], size: int, seed: int) -> None:
    for class_id in classes:
        if class_id not in CLASSES:
            raise ValueError(f"the class must be one of 1 to 10, not {class_id}")
    if size < 64 or size % 16:
        raise ValueError(f"the size must be a multiple of 16 and at least 64, not {size}")
    if seed < 0:
        raise ValueError(f"the seed must not be negative, not {seed}")


def sample(class_id: int, index: int, *, defective: bool, seed: int = 0, size: int = 512) -> Sample:
    """One image of a class, the same for the same arguments.

    The defect is the only thing that ``defective`` changes.

    Args:
        class_id: 1 to 10.
        index: number of the image, from 0.
        size: height and width in pixels, a multiple of 16 and at least 64.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check([class_id], size, seed)
    if index < 0:
        raise ValueError(f"the index must not be negative, not {index}")
    recipe = _RECIPES[class_id]
    words = (seed, class_id, index, size)
    background, flaw = (np.random.default_rng(s) for s in _seed(*words).spawn(2))
    weight = recipe.shape(flaw, size) if defective else np.zeros((size, size), np.float32)
    image = np.clip(np.rint(recipe.texture(background, weight)), 0, 255).astype(np.uint8)
    if not defective:
        return Sample(image, None, None, None)
    truth = weight > _TRUTH
    ellipse = weak_label(class_id, truth, flaw)
    label = ellipse_mask(*ellipse, image.shape)
    return Sample(image, label, np.where(truth, 255, 0).astype(np.uint8), ellipse)


# --- files ------------------------------------------------------------------------------------


def write_dataset(
    root: Path,
    *,
    classes: Sequence[int] = CLASSES,
    train: int = 80,
    test: int = 40,
    defective: float = 0.25,
    size: int = 512,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write ``ClassK/{Train,Test}`` in the layout of the release, with exact ``Truth/`` masks.

    ``Labels.txt`` comes last, so a folder that has one is complete.

    Args:
        train: images in each Train folder, numbered from 1.
        test: images in each Test folder, numbered on from ``train + 1``.
        defective: share of defective images, rounded to whole images in each folder.
        progress: called with 1 after each image.

    Returns:
        How many images were written.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(classes, size, seed)
    if train < 0 or test < 0:
        raise ValueError(f"the counts must not be negative, not train={train} and test={test}")
    if not 0 <= defective <= 1:
        raise ValueError(f"the defective share must lie in [0, 1], not {defective}")

    def write(job: tuple[Path, int, int, bool]) -> None:
        folder, class_id, index, bad = job
        image, label, truth, _ = sample(class_id, index, defective=bad, seed=seed, size=size)
        write_png(folder / f"{index:04}.PNG", image)
        if label is not None and truth is not None:
            write_png(folder / "Label" / f"{index:04}_label.PNG", label)
            write_png(folder / "Truth" / f"{index:04}_truth.PNG", truth)

    jobs, tables = [], {}
    for class_id in dict.fromkeys(classes):
        for split, first, count in (("Train", 1, train), ("Test", train + 1, test)):
            folder = Path(root) / f"Class{class_id}" / split
            for name in ("Label", "Truth"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(_seed(seed, class_id, first, count))
            chosen = set((first + rng.permutation(count)[: round(defective * count)]).tolist())
            rows = ["1\n"]
            for index in range(first, first + count):
                bad = index in chosen
                label = f"{index:04}_label.PNG" if bad else "0\t"
                rows.append(f"{index:04}\t{int(bad)}\t{index:04}.PNG\t0\t{label}\n")
                jobs.append((folder, class_id, index, bad))
            tables[folder / "Label" / "Labels.txt"] = "".join(rows).encode()
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(write, jobs):
            if progress is not None:
                progress(1)
    for path, table in tables.items():
        write_atomic(path, table)
    return len(jobs)
