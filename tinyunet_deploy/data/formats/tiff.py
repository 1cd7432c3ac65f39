"""TIFF and BigTIFF files: checks their structure, decodes every block in full or refuses.

It reads grey, RGB, palette and CMYK images of 1, 2, 4, 8 and 16-bit samples, in strips or tiles.
Source: Adobe, "TIFF Revision 6.0", 1992, and its Technical Notes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.formats.header import FormatError, Header, Samples, several_images
from tinyunet_deploy.data.formats.tiff_blocks import (
    COMPRESSIONS,
    JPEG,
    PREDICTED,
    Blocks,
    decode_blocks,
)
from tinyunet_deploy.data.formats.tiff_directory import (
    SIGNATURES,
    Directory,
    read_directories,
    read_sub_directories,
)

__all__ = ["SIGNATURES", "decode", "decode_labels", "read_header"]

_NEW_SUBFILE_TYPE: Final = 254
_MASK: Final = 4
_NOT_AN_IMAGE: Final = 1 | _MASK
"""Bits of the subfile type that mark a reduced version of another image or a transparency mask."""
_OLD_SUBFILE_TYPE: Final = 255
_OLD_REDUCED: Final = 2
_WIDTH: Final = 256
_HEIGHT: Final = 257
_BITS: Final = 258
_COMPRESSION: Final = 259
_PHOTOMETRIC: Final = 262
_FILL_ORDER: Final = 266
_DESCRIPTION: Final = 270
_STRIP_OFFSETS: Final = 273
_CHANNELS: Final = 277
_ROWS_PER_STRIP: Final = 278
_STRIP_SIZES: Final = 279
_LARGEST_VALUES: Final = (281, 341)
"""MaxSampleValue and SMaxSampleValue."""
_PLANAR: Final = 284
_PREDICTOR: Final = 317
_COLOUR_MAP: Final = 320
_TILE_WIDTH: Final = 322
_TILE_HEIGHT: Final = 323
_TILE_OFFSETS: Final = 324
_TILE_SIZES: Final = 325
_SUB_DIRECTORIES: Final = 330
_EXTRA_SAMPLES: Final = 338
_ALPHA: Final = (1, 2)
"""Meanings of an extra channel: transparency, with colours multiplied by it or not."""
_SAMPLE_FORMAT: Final = 339
_JPEG_TABLES: Final = 347
_IMAGE_DEPTH: Final = 32997
_IMAGEJ_STACK: Final = re.compile(rb"ImageJ=[^\0]*?\nimages=([0-9]{1,9})\b")
"""Description of an ImageJ stack, which may keep its images after the samples of one directory."""
_TIFFFILE_STACK: Final = re.compile(rb'\{"shape": \[([0-9, ]{1,99})\]')
"""Description by tifffile, whose writer may keep the images of a shape in the same way."""

_WHITE_IS_ZERO: Final = 0
_BLACK_IS_ZERO: Final = 1
_RGB: Final = 2
_PALETTE: Final = 3
_CMYK: Final = 5
_YCBCR: Final = 6
_COLOURS: Final = {
    _WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3,
}  # fmt: skip
"""Photometric interpretation -> samples of a pixel, without transparency."""
_FOREIGN_PHOTOMETRICS: Final = {
    4: "a transparency mask", 8: "CIE L*a*b* colour", 9: "ICC L*a*b* colour",
    10: "ITU L*a*b* colour", 32803: "a colour filter array (raw Bayer data)",
    32844: "CIE Log L", 32845: "CIE Log Luv", 34892: "linear raw data",
}  # fmt: skip
_SAMPLE_FORMATS: Final = {
    2: "signed integer", 3: "floating-point", 5: "complex integer", 6: "complex",
}  # fmt: skip
_UNSIGNED: Final = (1, 4)
"""Sample formats: unsigned integer, and undefined."""
_MAX_CHANNELS: Final = 4
_MAX_BLOCKS: Final = 1 << 18
"""Largest number of strips or tiles; a strip is often one row of several hundred pixels."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Storage of the samples of one image."""

    directory: Directory
    photometric: int
    channels: int
    compression: int


def read_header(data: bytes) -> Header:
    """Read the directories; refuse several images, and variants that are not supported."""
    directories = read_directories(data)
    images = [directory for directory in directories.directories if _is_image(directory)]
    images += _more_images(data, images, directories.directories)
    if len(images) > 1:
        count = f"{len(images)} or more" if directories.more else len(images)
        raise several_images(count, "save each page as a file of its own, as tiffsplit does")
    if not images:
        raise FormatError("unsupported", "contains only a reduced image or a mask")
    # Not an image of another kind: a JPEG behind the tags is the preview of a camera.
    if data.startswith(SIGNATURES, max(map(_end, directories.directories))):
        raise several_images("2 or more", "save each image as a file of its own")
    directory = images[0]
    height, width = directory.number(_HEIGHT), directory.number(_WIDTH)
    channels = directory.number(_CHANNELS, 1)
    compression = directory.number(_COMPRESSION, 1)
    bits = _bits(directory)
    photometric = directory.number(_PHOTOMETRIC, -1)
    _require_readable(directory, bits, channels, compression, photometric)
    layout = _Layout(directory, photometric, channels, compression)
    return Header(
        height,
        width,
        bits,
        _stated_depth(directory) if bits == 16 else None,
        indirect=photometric in (_WHITE_IS_ZERO, _PALETTE),
        white_is_zero=photometric == _WHITE_IS_ZERO and bits == 16,
        lossy=compression == JPEG,
        details=layout,
    )


def decode(data: bytes, header: Header) -> Samples:
    """Decode to grey [H, W] or RGB [H, W, 3], without transparency; rotation is ignored."""
    samples = _decode_stored(data, header)
    layout: _Layout = header.details
    white = (1 << header.bits) - 1
    if layout.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        grey = samples if samples.ndim == 2 else samples[..., 0]
        if layout.photometric == _WHITE_IS_ZERO:
            grey = white - grey
        return grey * np.uint8(255 // white) if header.bits < 8 else grey
    if layout.photometric == _PALETTE:
        return _colour_map(layout.directory, header.bits)[
            samples if samples.ndim == 2 else samples[..., 0]
        ]
    if layout.photometric == _CMYK:
        return _rgb_of_cmyk(samples)
    return samples[..., :3]


def decode_labels(data: bytes, header: Header) -> Samples:
    """Decode to the stored values: [H, W] or [H, W, C] with transparency; CMYK becomes RGB."""
    samples = _decode_stored(data, header)
    return _rgb_of_cmyk(samples) if header.details.photometric == _CMYK else samples


def _decode_stored(data: bytes, header: Header) -> Samples:
    """Decode every block: uint8 or uint16, [H, W], or [H, W, C] of more than one channel."""
    layout: _Layout = header.details
    blocks = _blocks(layout, header)
    _require_apart(data, blocks, layout.directory)
    planes = layout.channels if blocks.planar else 1
    samples = np.empty(
        (header.height, header.width, layout.channels), np.uint16 if header.bits == 16 else np.uint8
    )
    decoded = decode_blocks(data, blocks, layout.compression)
    down = -(-header.height // blocks.height)
    across = -(-header.width // blocks.width)
    for plane in range(planes):
        channel = slice(plane, plane + 1) if blocks.planar else slice(None)
        for row in range(down):
            for column in range(across):
                y, x = row * blocks.height, column * blocks.width
                place = samples[y : y + blocks.height, x : x + blocks.width, channel]
                place[:] = next(decoded)[: place.shape[0], : place.shape[1]]
    return samples[..., 0] if layout.channels == 1 else samples


def _more_images(data: bytes, images: list[Directory], chain: list[Directory]) -> list[Directory]:
    """Return the images after the first that do not count as pages.

    They are in sub-directories, or are marked as reduced versions without being smaller.

    Raises:
        FormatError: there are more images after the samples of the first.
    """
    if not images:
        return []
    first = images[0]
    hint = "save each page as a file of its own"
    if first.number(_IMAGE_DEPTH, 1) > 1:
        raise several_images(first.number(_IMAGE_DEPTH), hint)
    stack = _IMAGEJ_STACK.match(first.raw(_DESCRIPTION))
    if stack is not None and len(images) == 1 and int(stack[1]) > 1:
        raise several_images(int(stack[1]), hint)
    shaped = _TIFFFILE_STACK.match(first.raw(_DESCRIPTION))
    if shaped is not None and len(images) == 1:
        sides = [int(side) for side in shaped[1].split(b",") if side.strip()]
        pixels = first.number(_WIDTH) * first.number(_HEIGHT) * first.number(_CHANNELS, 1)
        if math.prod(sides) > pixels > 0:
            raise several_images(math.prod(sides) // pixels, hint)
    below = read_sub_directories(data, first, _SUB_DIRECTORIES)
    others = [directory for directory in (*chain, *below) if directory not in images]
    return [
        directory for directory in others if _is_image(directory) or _is_as_large(directory, first)
    ]


def _end(directory: Directory) -> int:
    """Return the position behind the directory, its values and its strips or tiles."""
    ends = [directory.end]
    for offsets, sizes in ((_STRIP_OFFSETS, _STRIP_SIZES), (_TILE_OFFSETS, _TILE_SIZES)):
        begins, lengths = directory.array(offsets), directory.array(sizes)
        if len(begins) == len(lengths) > 0:
            ends.append(int((begins + lengths).max()))
    return max(ends)


def _is_as_large(directory: Directory, image: Directory) -> bool:
    """Return whether a "reduced version" of an image is as large as the image, or larger."""
    if directory.number(_NEW_SUBFILE_TYPE, 0) & _MASK:
        return False
    return all(directory.number(tag, 0) >= image.number(tag) for tag in (_WIDTH, _HEIGHT))


def _is_image(directory: Directory) -> bool:
    reduced = directory.number(_NEW_SUBFILE_TYPE, 0) & _NOT_AN_IMAGE
    return not reduced and directory.number(_OLD_SUBFILE_TYPE, 0) != _OLD_REDUCED


def _bits(directory: Directory) -> int:
    bits = directory.numbers(_BITS) or (1,)
    if len(set(bits)) > 1:
        raise _unsupported(f"has samples of {', '.join(map(str, bits[:8]))} bits")
    return bits[0]


def _stated_depth(directory: Directory) -> int | None:
    """Return the depth in bits if the largest value that the file states is that of a camera."""
    for tag in _LARGEST_VALUES:
        for largest in directory.numbers(tag)[:1]:
            if not largest & (largest + 1) and 8 < largest.bit_length() <= 16:
                return largest.bit_length()
    return None


def _require_readable(
    directory: Directory, bits: int, channels: int, compression: int, photometric: int
) -> None:
    for code in directory.numbers(_SAMPLE_FORMAT):
        if code not in _UNSIGNED:
            raise _unsupported(f"has {bits}-bit {_SAMPLE_FORMATS.get(code, 'unknown')} samples")
    if bits not in (1, 2, 4, 8, 16):
        packed = " packed" if 8 < bits < 16 else ""
        raise _unsupported(f"has {bits}-bit{packed} samples")
    if compression not in COMPRESSIONS:
        raise _unsupported(f"has an unknown compression ({compression})")
    if COMPRESSIONS[compression] is not None:
        raise _unsupported(f"has {COMPRESSIONS[compression]} compression")
    if photometric not in (-1, *_COLOURS, *_FOREIGN_PHOTOMETRICS):
        raise _unsupported(f"has an unknown photometric interpretation ({photometric})")
    if photometric in _FOREIGN_PHOTOMETRICS:
        raise _unsupported(f"has {_FOREIGN_PHOTOMETRICS[photometric]}")
    if channels > _MAX_CHANNELS or (photometric == _CMYK and channels != 4):
        raise _unsupported(f"has {channels} channels")
    if photometric in _COLOURS and channels not in (
        _COLOURS[photometric],
        _COLOURS[photometric] + 1,
    ):
        raise _unsupported(f"has {channels} channels")
    if photometric == _YCBCR and compression != JPEG:
        raise _unsupported("has YCbCr colour without JPEG compression")
    if photometric in (_PALETTE, _CMYK) and bits == 16:
        raise _unsupported("has a 16-bit palette or 16-bit CMYK colour")
    if compression == JPEG and (bits != 8 or photometric == _PALETTE or channels not in (1, 3)):
        raise _unsupported(f"has JPEG compression of {channels} {bits}-bit channels")
    if bits < 8 and channels > 1:
        raise _unsupported(f"has {channels} channels of {bits} bits")
    if directory.number(_FILL_ORDER, 1) != 1:
        raise _unsupported("has the bits of its bytes in reversed order")
    predictor = directory.number(_PREDICTOR, 1)
    if predictor not in (1, 2) or (predictor == 2 and bits < 8):
        raise _unsupported(f"has predictor {predictor} of {bits}-bit samples")
    if predictor == 2 and compression not in PREDICTED:
        raise _unsupported("has a predictor without Deflate or LZW compression")
    two_images = _COLOURS.get(photometric) == 1 and channels == 2  # as of two cameras
    if two_images and directory.number(_EXTRA_SAMPLES, 0) not in _ALPHA:
        raise _unsupported("has a second channel that is not called transparency")


def _unsupported(what: str) -> FormatError:
    return FormatError("unsupported", what, "convert it to 8- or 16-bit grey PNG or TIFF")


def _blocks(layout: _Layout, header: Header) -> Blocks:
    """Return where the strips or tiles are, after a check of their number and their size.

    Raises:
        FormatError: the table of the blocks is missing, or does not fit the image.
    """
    directory = layout.directory
    if layout.photometric not in _COLOURS:
        raise FormatError("corrupt", "does not say what its samples mean")
    tiled = directory.has(_TILE_OFFSETS) or directory.has(_TILE_WIDTH)
    if tiled:
        height, width = directory.number(_TILE_HEIGHT), directory.number(_TILE_WIDTH)
        offsets, sizes = directory.array(_TILE_OFFSETS), directory.array(_TILE_SIZES)
    else:
        width = header.width
        height = min(directory.number(_ROWS_PER_STRIP, header.height), header.height)
        offsets, sizes = directory.array(_STRIP_OFFSETS), directory.array(_STRIP_SIZES)
    planes = directory.number(_PLANAR, 1)
    if planes not in (1, 2):
        raise FormatError("corrupt", f"has {planes} as its planar configuration")
    planar = planes == 2
    if min(height, width) < 1:
        raise FormatError("corrupt", "has strips or tiles without pixels")
    down, across = -(-header.height // height), -(-header.width // width)
    count = down * across * (layout.channels if planar else 1)
    name = "tiles" if tiled else "strips"
    if count > _MAX_BLOCKS:
        raise FormatError("too-large", f"has {count} {name}, more than {_MAX_BLOCKS}")
    if len(offsets) != count or len(sizes) != count:
        raise FormatError(
            "corrupt", f"lists {len(offsets)} offsets and {len(sizes)} sizes of its {count} {name}"
        )
    if down * height * across * width > 2 * header.height * header.width + (1 << 22):
        raise FormatError("too-large", f"has {name} far larger than the image")
    return Blocks(
        offsets=offsets,
        sizes=sizes,
        height=height,
        width=width,
        rows_in_last=height if tiled else header.height - (down - 1) * height,
        per_plane=down * across,
        channels=1 if planar else layout.channels,
        planar=planar,
        bits=header.bits,
        big_endian=directory.big_endian,
        predictor=directory.number(_PREDICTOR, 1),
        ycbcr=layout.photometric == _YCBCR,
        jpeg_tables=directory.raw(_JPEG_TABLES),
    )


def _require_apart(data: bytes, blocks: Blocks, directory: Directory) -> None:
    """Refuse strips or tiles that share bytes with each other or with values of the directory."""
    order = np.argsort(blocks.offsets, kind="stable")
    begins = blocks.offsets[order]
    ends = begins + blocks.sizes[order]
    if ends.max() > len(data):
        return  # the file is cut off, and decoding says so
    if (ends[:-1] > begins[1:]).any():
        raise FormatError("corrupt", "has strips or tiles that overlap", "save the image again")
    values = [entry.position for entry in directory.entries.values()]
    before = np.searchsorted(begins, values, side="right") - 1
    if ((before >= 0) & (values < ends[before])).any():
        what = "has a strip or tile where its tags are"
        raise FormatError("corrupt", what, "save the image again")


def _colour_map(directory: Directory, bits: int) -> NDArray[np.uint8]:
    """Return the palette, uint8 [2**bits, 3] RGB; 8-bit values in a 16-bit map stay as they are."""
    entries = directory.array(_COLOUR_MAP)
    if len(entries) != 3 << bits:
        raise FormatError("corrupt", f"has {len(entries)} palette entries, not {3 << bits}")
    colours = entries.reshape(3, 1 << bits).T
    if colours.max() > np.iinfo(np.uint8).max:
        colours = colours >> 8
    return colours.astype(np.uint8)


def _rgb_of_cmyk(samples: Samples) -> NDArray[np.uint8]:
    """Convert CMYK, uint8 [H, W, 4], to RGB, uint8 [H, W, 3]: (255 - ink) (255 - black) / 255."""
    white = 255 - samples.astype(np.uint16)
    return (white[..., :3] * white[..., 3:] // 255).astype(np.uint8)
