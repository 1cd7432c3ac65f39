"""Ten classes of synthetic textures with small defects, in the layout of DAGM2007.

Every image is a pure function of (class, index, seed, size). A class is a pair of functions:
a shape draws the defect as a weight map in [0, 1], and a texture renders the grey image under
that map. A defect-free image is the same texture under a map of zeros.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = range(1, 11)

_TILE = 1024
_TRUTH = 0.25
_THREADS = min(8, os.cpu_count() or 1)

_Ellipse = tuple[float, float, float, float, float]
_Float = NDArray[np.float32]
_Bytes = NDArray[np.uint8]
_Rng = np.random.Generator


class Sample(NamedTuple):
    """One image with its labels; the last three fields are None when it is defect-free.

    image: uint8 [size, size] grey; label: uint8 [size, size] {0, 255}, the weak ellipse;
    truth: uint8 [size, size] {0, 255}, the exact defect pixels; ellipse: semi-axis a,
    semi-axis b, angle in radians, x, y.
    """

    image: _Bytes
    label: _Bytes | None
    truth: _Bytes | None
    ellipse: _Ellipse | None


def ellipse_mask(
    a: float, b: float, angle: float, x: float, y: float, shape: tuple[int, int]
) -> _Bytes:
    """Return the uint8 {0, 255} mask of an ellipse whose centre counts pixels from one."""
    dx = np.arange(shape[1]) - (x - 1)
    dy = np.arange(shape[0])[:, None] - (y - 1)
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = dy * np.cos(angle) - dx * np.sin(angle)
    return np.where((u / a) ** 2 + (v / b) ** 2 <= 1, 255, 0).astype(np.uint8)


# --- periodic noise tiles ---------------------------------------------------------------------


def _periodic(noise: NDArray[np.float64], response: NDArray[np.float64]) -> _Float:
    """Filter a periodic field by a frequency response and bring it to mean 0, variance 1."""
    field = np.fft.irfft2(np.fft.rfft2(noise) * response, s=noise.shape)
    return ((field - field.mean()) / field.std()).astype(np.float32)


@lru_cache(maxsize=64)
def _smooth_tile(sigma_x: float, sigma_y: float) -> _Float:
    """White noise under a Gaussian of the given sigmas in pixels, float32 [1024, 1024]."""
    rng = np.random.default_rng(_seed(round(1000 * sigma_x), round(1000 * sigma_y)))
    fx, fy = np.fft.rfftfreq(_TILE), np.fft.fftfreq(_TILE)[:, None]
    response = np.exp(-2 * np.pi**2 * ((sigma_x * fx) ** 2 + (sigma_y * fy) ** 2))
    return _periodic(rng.standard_normal((_TILE, _TILE)), response)


@lru_cache(maxsize=16)
def _stroke_tile(degrees: int, length: int, count: int) -> _Float:
    """Return randomly scattered tapered strokes of one direction, float32 [1024, 1024]."""
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
    """Return a random, randomly flipped crop of a periodic tile, sheared by slant columns a row."""
    y, x = rng.integers(0, _TILE, 2)
    flip_y, flip_x = rng.choice((-1, 1), 2)
    steps = np.arange(size)
    rows, cols = (y + flip_y * steps) % _TILE, (x + flip_x * steps) % _TILE
    if slant == 0:
        return tile[rows][:, cols]
    shift = np.rint(slant * steps).astype(np.int64)[:, None]
    return tile[rows[:, None], (cols + shift) % _TILE]


def _noise(
    rng: _Rng, size: int, *layers: tuple[float, float, float], slant: float = 0.0
) -> _Float:
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


# --- textures: (generator, weight map) -> grey float32 [size, size] ---------------------------


def _moire(rng: _Rng, weight: _Float) -> _Float:
    size = len(weight)
    wave = np.zeros((size, size))
    centre = rng.uniform(0.1, 0.9, 2) * size
    for gain in (0.75, 0.65):
        chirp = np.pi * rng.integers(1, 8) / 4 + rng.uniform(0.004, 0.03)
        stretch = rng.choice((0.5, 1.0, 1.0, 2.0))
        py = chirp * (np.arange(size) - centre[1]) ** 2
        px = chirp * stretch * (np.arange(size) - centre[0]) ** 2
        wave += gain * (np.outer(np.cos(py), np.cos(px)) - np.outer(np.sin(py), np.sin(px)))
    glow = _noise(rng, size, (90, 90, 1.0))
    field = wave.astype(np.float32) * (1 + 0.25 * glow) + 0.45 * _noise(rng, size, (0.5, 0.5, 1.0))
    grey = np.square(8.2 + 1.55 * field + 0.15 * glow)
    return grey * (1 - weight) + (64 + 2 * glow) * weight


def _streaks(rng: _Rng, weight: _Float) -> _Float:
    level = rng.uniform(8.2, 9.8)
    field = _noise(rng, len(weight), (0.01, 2.8, 1.0), slant=rng.uniform(-0.15, 0.15))
    return np.square(np.maximum(level + (28 / level) * field, 0)) * (1 - 0.9 * weight)


def _cloth(rng: _Rng, weight: _Float) -> _Float:
    field = _noise(
        rng,
        len(weight),
        (0.4, 0.4, 0.06),
        (2.5, 2.0, 0.17),
        (7, 4, 0.2),
        (25, 12, 0.12),
        (60, 300, 0.38),
        (1, 40, 0.04),
        (40, 1, 0.03),
    )
    grey = 128 + 32 * field
    return grey + (250 - grey) * weight


def _star(rng: _Rng, weight: _Float) -> _Float:
    size = len(weight)
    centre = size / 2 + rng.normal(6, 8, 2)
    rays = np.zeros((size, size), np.uint8)
    steps = np.linspace(0, 1, 12)
    for angle in rng.uniform(0, 2 * np.pi, 120):
        radius = steps * rng.uniform(80, 380)
        turn = angle + rng.normal(0, 0.25) * steps**2
        points = centre + np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
        _polyline(rays, points, int(rng.integers(40, 220)), 2)
    rise = cv2.GaussianBlur(rays.astype(np.float32), (0, 0), 1.3)
    grain = _noise(rng, size, (1.2, 1.2, 0.7), (5, 2, 0.3))
    level = 177 + rng.normal(0, 6) + 3 * _noise(rng, size, (80, 80, 1.0))
    grey = level + 0.55 * _emboss(rise) + 9 * _emboss(grain)
    hub = np.zeros((size, size), np.uint8)
    _disc(hub, centre, 9)
    core = cv2.GaussianBlur(hub.astype(np.float32) / 255, (0, 0), 2)
    grey += (108 - grey) * core
    grey *= 1 - 0.35 * weight
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        edge[:] = 40
    return grey


def _grain(rng: _Rng, weight: _Float) -> _Float:
    layers = ((0.01, 0.01, 0.08), (1.5, 1.5, 0.52), (6, 6, 0.15), (30, 30, 0.25))
    field = _noise(rng, len(weight), *layers)
    return 120 + 29 * field - 85 * np.maximum(weight - 0.3, 0)


def _speckle(rng: _Rng, weight: _Float) -> _Float:
    field = _noise(rng, len(weight), (1.3, 1.3, 0.75), (5, 4, 0.18), (30, 30, 0.07))
    return 255 / (1 + np.exp(0.7 - 1.65 * (field - 1.6 * weight)))


def _strokes(rng: _Rng, weight: _Float) -> _Float:
    size = len(weight)
    field = _crop(_stroke_tile(70, 24, 12000), rng, size)
    other = _crop(_stroke_tile(10, 10, 24000), rng, size)
    glow = _noise(rng, size, (1, 1, 0.5), (60, 60, 0.5))
    return 112 + 24 * (field + (other - field) * weight) + 7 * glow - 9 * weight


def _bands(rng: _Rng, weight: _Float) -> _Float:
    layers = ((0.7, 0.7, 0.15), (2, 30, 0.2), (10, 300, 0.55), (30, 30, 0.1))
    return 125 + 27 * _noise(rng, len(weight), *layers) - 52 * weight


def _blotches(rng: _Rng, weight: _Float) -> _Float:
    size = len(weight)
    field = _noise(rng, size, (5, 5, 0.8), (16, 16, 0.2))
    fine = _noise(rng, size, (0.8, 0.8, 1.0))
    return 118 + 34 * field / np.sqrt(1 + field**2) + 9 * fine + 45 * weight


def _funnel(rng: _Rng, weight: _Float) -> _Float:
    size = len(weight)
    centre = size / 2 + rng.normal(0, 12, 2)
    dx, dy = np.arange(size) - centre[0], (np.arange(size) - centre[1])[:, None]
    radius = np.sqrt(dx**2 + dy**2 + 60).astype(np.float32)
    light = ((dx + dy) / radius).astype(np.float32) * np.exp(-radius / 110)
    relief = _emboss(_noise(rng, size, (3, 3, 0.6), (1, 1, 0.4)))
    return 150 + 55 * light + 22 * relief + 4 * _noise(rng, size, (60, 60, 1.0)) - 42 * weight


# --- defect shapes: (generator, size) -> weight map float32 [size, size] in [0, 1] -------------


def _scale(size: int) -> float:
    return min(1.0, size / 256)


def _place(rng: _Rng, size: int) -> NDArray[np.float64]:
    return rng.uniform(0.12 * size, 0.88 * size, 2)


def _polyline(
    canvas: _Bytes, points: NDArray[np.float64], value: int, thickness: int, *, fill: bool = False
) -> None:
    """Draw an anti-aliased line or polygon through points [n, 2] of (x, y)."""
    fixed = [np.rint(points * 16).astype(np.int32)]
    if fill:
        cv2.fillPoly(canvas, fixed, value, cv2.LINE_AA, 4)
    else:
        cv2.polylines(canvas, fixed, False, value, thickness, cv2.LINE_AA, 4)


def _disc(
    canvas: _Bytes, centre: NDArray[np.float64], radius: float, thickness: int = -1
) -> None:
    x, y = (round(16 * float(c)) for c in centre)
    cv2.circle(canvas, (x, y), round(16 * radius), 255, thickness, cv2.LINE_AA, 4)


def _weight(canvas: _Bytes, blur: float) -> _Float:
    """Soften a drawn shape into weights; every pixel of a weight below 2 % becomes zero."""
    weight = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), blur)
    weight *= 1 / max(float(weight.max()), 1e-6)
    return np.where(weight < 0.02, np.float32(0), weight)


def _blob(
    rng: _Rng, size: int, low: float, high: float, stretch: float, wobble: float, blur: float
) -> _Float:
    """Fill an irregular ellipse with a mean radius in [low, high]."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = rng.uniform(low, high) * _scale(size) * np.ones(48)
    for k in (2, 3, 5):
        radius *= 1 + rng.normal(0, wobble / k) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    long = rng.uniform(1, stretch)
    points = np.stack([np.cos(t) * radius * long**0.5, np.sin(t) * radius / long**0.5], 1)
    canvas = np.zeros((size, size), np.uint8)
    _polyline(canvas, points @ _rotation(rng) + _place(rng, size), 255, 1, fill=True)
    return _weight(canvas, max(0.6, blur * _scale(size)))


def _rotation(rng: _Rng) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _path(
    rng: _Rng, size: int, low: float, high: float, bend: float, thickness: int, blur: float
) -> _Float:
    """Draw an open line with a length in [low, high] that turns by about bend radians."""
    t = np.linspace(-0.5, 0.5, 25)
    heading = rng.normal(0, bend) * t + rng.normal(0, bend / 2) * np.sin(2 * np.pi * t)
    step = rng.uniform(low, high) * _scale(size) / len(t)
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * step, 0)
    canvas = np.zeros((size, size), np.uint8)
    points = (points - points.mean(0)) @ _rotation(rng) + _place(rng, size)
    _polyline(canvas, points, 255, thickness)
    return _weight(canvas, blur)


def _dots(rng: _Rng, size: int) -> _Float:
    """Scatter small grains along a short random walk."""
    canvas = np.zeros((size, size), np.uint8)
    steps = rng.normal(0, 3.0, (int(rng.integers(14, 40)), 2)) * max(0.6, _scale(size))
    walk = np.cumsum(steps, 0)
    for point in walk - walk.mean(0) + _place(rng, size):
        _disc(canvas, point, rng.uniform(0.6, 1.6))
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
    canvas = np.zeros((size, size), np.uint8)
    _disc(canvas, _place(rng, size), rng.uniform(6, 15) * max(0.6, _scale(size)), 2)
    return _weight(canvas, 0.8)


_Texture = Callable[[_Rng, _Float], _Float]
_Shape = Callable[[_Rng, int], _Float]

_RECIPES: dict[int, tuple[_Texture, _Shape]] = {
    1: (_moire, partial(_blob, low=18, high=36, stretch=1.8, wobble=0.15, blur=4)),
    2: (_streaks, partial(_path, low=50, high=170, bend=1.2, thickness=3, blur=0.8)),
    3: (_cloth, _dots),
    4: (_star, partial(_path, low=90, high=180, bend=0.2, thickness=3, blur=0.8)),
    5: (_grain, _stripes),
    6: (_speckle, partial(_blob, low=45, high=75, stretch=16, wobble=0.05, blur=2)),
    7: (_strokes, partial(_blob, low=22, high=42, stretch=1.6, wobble=0.2, blur=3)),
    8: (_bands, partial(_path, low=40, high=110, bend=1.8, thickness=3, blur=0.9)),
    9: (_blotches, _ring),
    10: (_funnel, partial(_path, low=60, high=150, bend=0.3, thickness=2, blur=0.8)),
}


# --- samples ----------------------------------------------------------------------------------


def _seed(*words: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(words)


def _enclose(truth: NDArray[np.bool_], rng: _Rng) -> _Ellipse:
    """Draw a generous ellipse that holds every true pixel of bool [size, size]."""
    rows, cols = np.nonzero(truth)
    dx, dy = cols - cols.mean(), rows - rows.mean()
    angle = 0.5 * float(np.arctan2(2 * (dx * dy).mean(), (dx * dx).mean() - (dy * dy).mean()))
    angle += rng.normal(0, 0.05)
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    mid_u, mid_v = (u.min() + u.max()) / 2, (v.min() + v.max()) / 2
    a = max(float(np.ptp(u)) / 2, 2.0) * rng.uniform(1.0, 1.3)
    b = max(float(np.ptp(v)) / 2, 2.0, 0.12 * a) * rng.uniform(1.0, 1.6)
    mid_u, mid_v = mid_u + rng.normal(0, 0.08) * a, mid_v + rng.normal(0, 0.08) * b
    reach = float(np.hypot((u - mid_u) / a, (v - mid_v) / b).max()) * rng.uniform(1.04, 1.2)
    x = cols.mean() + mid_u * np.cos(angle) - mid_v * np.sin(angle) + 1
    y = rows.mean() + mid_u * np.sin(angle) + mid_v * np.cos(angle) + 1
    return a * reach, b * reach, angle, float(x), float(y)


def _check(classes: Sequence[int], size: int, seed: int) -> None:
    for class_id in classes:
        if class_id not in CLASSES:
            raise ValueError(f"the class must be one of 1 to 10, not {class_id}")
    if size < 64 or size % 16:
        raise ValueError(f"the size must be a multiple of 16 and at least 64, not {size}")
    if seed < 0:
        raise ValueError(f"the seed must not be negative, not {seed}")


def sample(
    class_id: int, index: int, *, defective: bool, seed: int = 0, size: int = 512
) -> Sample:
    """Return one image of a class; the defect is the only thing that `defective` changes."""
    _check([class_id], size, seed)
    if index < 0:
        raise ValueError(f"the index must not be negative, not {index}")
    texture, shape = _RECIPES[class_id]
    words = (seed, class_id, index, size)
    background, flaw = (np.random.default_rng(s) for s in _seed(*words).spawn(2))
    weight = shape(flaw, size) if defective else np.zeros((size, size), np.float32)
    image = np.clip(np.rint(texture(background, weight)), 0, 255).astype(np.uint8)
    if not defective:
        return Sample(image, None, None, None)
    truth = weight > _TRUTH
    ellipse = _enclose(truth, flaw)
    label = ellipse_mask(*ellipse, image.shape)
    return Sample(image, label, np.where(truth, 255, 0).astype(np.uint8), ellipse)


# --- files ------------------------------------------------------------------------------------


def _write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in its folder and rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _write_png(path: Path, image: _Bytes) -> None:
    _write(path, cv2.imencode(".png", image)[1].tobytes())


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
    """Write `ClassK/{Train,Test}` folders in the released layout and return the image count.

    Beside `Label/` a folder `Truth/` holds the exact defect pixels. Of n images in a split
    exactly round(defective * n) are defective. `progress` is called with 1 for every image.
    """
    _check(classes, size, seed)
    if train < 0 or test < 0:
        raise ValueError(f"the counts must not be negative, not train={train} and test={test}")
    if not 0 <= defective <= 1:
        raise ValueError(f"the defective share must lie in [0, 1], not {defective}")

    def write(job: tuple[Path, int, int, bool]) -> None:
        folder, class_id, index, bad = job
        image, label, truth, _ = sample(class_id, index, defective=bad, seed=seed, size=size)
        _write_png(folder / f"{index:04}.PNG", image)
        if label is not None and truth is not None:
            _write_png(folder / "Label" / f"{index:04}_label.PNG", label)
            _write_png(folder / "Truth" / f"{index:04}_truth.PNG", truth)

    jobs = []
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
                label = f"{index:04}_label.PNG" if bad else ""
                rows.append(f"{index:04}\t{int(bad)}\t{index:04}.PNG\t0\t{label}\n")
                jobs.append((folder, class_id, index, bad))
            _write(folder / "Label" / "Labels.txt", "".join(rows).encode())
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(write, jobs):
            if progress is not None:
                progress(1)
    return len(jobs)
