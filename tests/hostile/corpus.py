"""A folder such as no station should have, built by code: every entry and what becomes of it."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

SIZE = 64
"""Height and width that the model takes."""


def picture() -> NDArray[np.uint8]:
    """uint8 [64, 64]: every grey value, no symmetry, and smooth enough to survive JPEG."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return (2 * x + y + 30 * ((x // 8 + y // 8) % 2)).astype(np.uint8)


def save(array: NDArray[Any], kind: str, mode: str | None = None, **options: Any) -> bytes:
    """An image file as another program writes it."""
    image = PIL.Image.fromarray(array)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """One part of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png(width: int, height: int, pixels: bytes, *more: bytes, bits: int = 8) -> bytes:
    """A PNG file of any header and any compressed pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    parts = (header, *more, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def same_picture() -> dict[str, bytes]:
    """``picture`` in many formats, without loss: each must get the same mask."""
    grey = picture()
    deep = grey.astype(np.uint16) * 257
    turned = PIL.Image.Exif()
    turned[274] = 6
    alpha = np.dstack([grey, grey, grey, np.roll(grey, 9)])
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    top_down = bytearray(save(grey[::-1], "BMP", "RGB"))
    struct.pack_into("<i", top_down, 22, -SIZE)
    return {
        "grey.png": save(grey, "PNG"),
        "grey.bmp": save(grey, "BMP"),
        "grey.tif": save(grey, "TIFF"),
        "lzw.tiff": save(grey, "TIFF", compression="tiff_lzw"),
        "deflate.tiff": save(grey, "TIFF", compression="tiff_deflate"),
        "white-is-0.tiff": save(grey, "TIFF", tiffinfo={262: 0}),
        "16-bit.png": save(deep, "PNG"),
        "16-bit.tiff": save(deep, "TIFF"),
        "palette.png": save(grey, "PNG", "P"),
        "palette.bmp": save(grey, "BMP", "P"),
        "palette.tiff": save(grey, "TIFF", "P"),
        "rgb.png": save(grey, "PNG", "RGB"),
        "rgb.bmp": save(grey, "BMP", "RGB"),
        "rgb.tiff": save(grey, "TIFF", "RGB"),
        "top-down.bmp": bytes(top_down),
        "cmyk.tiff": PIL_cmyk(grey),
        "rgba.png": save(alpha, "PNG"),
        "rgba.tiff": save(alpha, "TIFF"),
        "grey-alpha.png": save(grey, "PNG", "LA"),
        "transparent-palette.png": save(grey, "PNG", "P", transparency=7),
        "turned.png": save(grey, "PNG", exif=turned),
        "turned.tiff": save(grey, "TIFF", tiffinfo={274: 6}),
        "lossless.webp": save(grey, "WEBP", "RGB", lossless=True),
        "grey.pgm": save(grey, "PPM"),
        "rgb.ppm": save(grey, "PPM", "RGB"),
        "plain.pnm": b"P2 64 64 255 " + b" ".join(b"%d" % value for value in grey.flat),
        "big.tiff": save(grey, "TIFF", big_tiff=True),
        "with-gamma.png": png(
            SIZE, SIZE, zlib.compress(rows), chunk(b"gAMA", struct.pack(">I", 100_000))
        ),
        "more-behind.png": save(grey, "PNG") + bytes(5000),
        "mislabelled-png.jpg": save(grey, "PNG"),
        "mislabelled-bmp.tiff": save(grey, "BMP"),
    }


def PIL_cmyk(grey: NDArray[np.uint8]) -> bytes:  # noqa: N802
    file = io.BytesIO()
    PIL.Image.fromarray(grey).convert("RGB").convert("CMYK").save(file, "TIFF")
    return file.getvalue()


def close_picture() -> dict[str, bytes]:
    """``picture`` as JPEG, which changes it by little."""
    grey = picture()
    turned = PIL.Image.Exif()
    turned[274] = 6
    file = io.BytesIO()
    PIL.Image.fromarray(grey).convert("RGB").convert("CMYK").save(file, "JPEG", quality=95)
    return {
        "grey.jpg": save(grey, "JPEG", quality=95),
        "rgb.jpeg": save(grey, "JPEG", "RGB", quality=95),
        "progressive.jpg": save(grey, "JPEG", quality=95, progressive=True),
        "cmyk.jpg": file.getvalue(),
        "turned.jpg": save(grey, "JPEG", exif=turned, quality=95),
        "restarts.jpg": save(grey, "JPEG", quality=95, restart_marker_blocks=3),
        "more-behind.jpg": save(grey, "JPEG", quality=95) + bytes(5000),
    }


def scan_bomb() -> bytes:
    """A progressive JPEG that asks for its pixels to be gone over 50,000 times."""
    data = save(picture(), "JPEG", progressive=True)
    begin = data.rfind(b"\xff\xda")
    return data[:begin] + data[begin:-2] * 50_000 + data[-2:]


def broken_pictures() -> dict[str, tuple[bytes, str]]:
    """Files that are no usable picture, and the reason that each must be skipped for."""
    grey = picture()
    whole = {kind: save(grey, kind) for kind in ("PNG", "JPEG", "BMP", "TIFF")}
    half = {kind: data[: len(data) // 2] for kind, data in whole.items()}
    flipped = bytearray(whole["PNG"])
    flipped[len(flipped) // 2] ^= 4
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    wide = struct.pack(
        "<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 65_000, 65_000, 1, 24, *[0] * 6
    )
    frame = struct.pack(">BHHB", 8, 65_000, 65_000, 1) + b"\x01\x11\0"
    fields = struct.pack("<HHIIHHII", 256, 4, 1, 65_000, 257, 4, 1, 65_000)
    thumbnail = save(grey[:16, :16], "JPEG")
    with_thumbnail = save(grey, "JPEG", exif=b"Exif\0\0" + thumbnail)
    return {
        "two-pages.tiff": (
            save(grey, "TIFF", save_all=True, append_images=[PIL.Image.fromarray(255 - grey)]),
            "several-images",
        ),
        "animated.png": (
            save(grey, "PNG", save_all=True, append_images=[PIL.Image.fromarray(255 - grey)]),
            "several-images",
        ),
        "empty.png": (b"", "empty"),
        "one-byte.png": (b"\x89", "not-an-image"),
        "text.png": (b"not an image\n", "not-an-image"),
        "gif.png": (save(grey, "GIF", "P"), "unsupported"),
        "half.png": (half["PNG"], "truncated"),
        "half.jpg": (half["JPEG"], "truncated"),
        "half.bmp": (half["BMP"], "truncated"),
        "half.tiff": (half["TIFF"], "truncated"),
        "flipped.png": (bytes(flipped), "corrupt"),
        "half-with-an-end.jpg": (half["JPEG"] + b"\xff\xd9", "truncated"),
        "half-before-another.jpg": (half["JPEG"] + whole["JPEG"], "truncated"),
        "half-with-a-thumbnail.jpg": (with_thumbnail[: -len(whole["JPEG"]) // 3], "truncated"),
        "half-with-zeros.jpg": (half["JPEG"] + bytes(len(half["JPEG"])), "truncated"),
        "half-the-pixels.png": (png(SIZE, SIZE, zlib.compress(rows[: len(rows) // 2])), "corrupt"),
        "unknown-chunk.png": (png(SIZE, SIZE, zlib.compress(rows), chunk(b"ABCD", b"")), "corrupt"),
        "two-sizes.png": (
            png(SIZE, SIZE, zlib.compress(rows), png(650, 650, b"")[8:33]),
            "corrupt",
        ),
        "float.tiff": (save(grey.astype(np.float32), "TIFF"), "unsupported"),
        "1x1.png": (save(grey[:1, :1], "PNG"), "wrong-size"),
        "1xN.png": (save(grey[:1], "PNG"), "wrong-size"),
        "Nx1.png": (save(grey[:, :1], "PNG"), "wrong-size"),
        "zero-wide.png": (png(0, SIZE, b""), "corrupt"),
        "65000.png": (png(65_000, 65_000, zlib.compress(bytes(1000))), "too-large"),
        "65000.bmp": (wide, "too-large"),
        "65000.jpg": (
            b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9",
            "too-large",
        ),
        "65000.tiff": (b"II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(4), "too-large"),
        "48-KB-of-400-Mpixel.png": (
            png(20_000, 20_000, zlib.compress(bytes(20_000 * 2501), 9), bits=1),
            "too-large",
        ),
        "scan-bomb.jpg": (scan_bomb(), "corrupt"),
    }


NAMES = [
    b"new\nline.png", b"tab\t.png", b"\x1b[31mred.png", b"quote'\".png", b"-o.png", b"--help.png",
    b"$(touch pwned).png", b"%s%n.png", b"a b.png", b"\xff\xfe.png", b"\xe6\xa4\x9c.png", b"*.png",
    b"\\.png", b"back\x08space.png", b"\xe2\x80\xae.gnp.png", b"n" * 236 + b".png", b"C:.png",
]  # fmt: skip
"""Names of good images that must come through as they are."""


def build(folder: Path) -> dict[str, str]:
    """Build the folder.

    Returns:
        Name below the folder -> ``same`` or ``close`` for a picture that must get the mask of
        ``grey.png``, or nearly, else the reason that it is skipped for.
    """
    good = save(picture(), "PNG")
    expected: dict[str, str] = {}

    def put(name: str | bytes, data: bytes, outcome: str) -> Path:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        expected[os.fsdecode(name)] = outcome
        return path

    for name, data in same_picture().items():
        put(f"formats/{name}", data, "same")
    for name, data in close_picture().items():
        put(f"formats/{name}", data, "close")
    for name, (data, reason) in broken_pictures().items():
        put(f"broken/{name}", data, reason)
    for raw in NAMES:
        put(b"names/" + raw, good, "same")
    put(b"names/" + b"m" * 251 + b".bmp", save(picture(), "BMP"), "name-too-long")

    for name, data in (("a/x.png", good), ("b/x.png", good), ("a/x.bmp", save(picture(), "BMP"))):
        put(f"twins/{name}", data, "same")
    put("twins/a/x.bmp.png", good, "same")
    put("taken/x.bmp", save(picture(), "BMP"), "name-taken")
    put("taken/x-bmp.png/inside.png", good, "same")

    odd = folder / "odd"
    odd.mkdir()
    (odd / "folder.png").mkdir()
    os.mkfifo(odd / "fifo.png")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        here = Path.cwd()
        os.chdir(odd)  # the path of a socket may have 107 bytes only
        server.bind("socket.png")
        os.chdir(here)
    for name, target, reason in (
        ("zero.png", "/dev/zero", "not-a-file"),
        ("tty.png", "/dev/tty", "not-a-file"),
        ("self.png", "/proc/self/mem", "unreadable"),
        ("pages.png", "/proc/self/pagemap", "changing"),
        ("dangling.png", "nowhere", "missing"),
        ("loop.png", "loop.png", "unreadable"),
        ("ping.png", "pong.png", "unreadable"),
        ("pong.png", "ping.png", "unreadable"),
        ("folder-link.png", "folder.png", "not-a-file"),
        ("root.png", "/", "not-a-file"),
        ("out.png", "../../outside.png", "same"),
        ("passwd.png", "/etc/passwd", "not-an-image"),
    ):
        (odd / name).symlink_to(target)
        expected[f"odd/{name}"] = reason
    expected |= {"odd/fifo.png": "not-a-file", "odd/socket.png": "not-a-file"}
    (odd / "round").symlink_to("..")
    (folder.parent / "outside.png").write_bytes(good)
    with (odd / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)
    expected["odd/sparse.png"] = "too-large"

    deep = folder / Path(*["d"] * 250)
    deep.mkdir(parents=True)
    (deep / "x.png").write_bytes(good)
    expected["/".join("d" * 201)] = "not-a-file"

    locked = put("locked/file.png", good, "same" if os.geteuid() == 0 else "unreadable")
    locked.chmod(0)
    put("locked/folder/x.png", good, "same")
    return expected


def lock(folder: Path, expected: dict[str, str]) -> dict[str, str]:
    """Take a folder's rights away, and say what an ordinary user then gets."""
    (folder / "locked" / "folder").chmod(0)
    seen = {**expected, "locked/file.png": "unreadable", "locked/folder": "unreadable"}
    del seen["locked/folder/x.png"]
    return seen
