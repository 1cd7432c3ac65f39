"""Files of formats that are not read are named, never called corrupt."""

from __future__ import annotations

import pytest

from tests.data.test_decoding_rules import refusal

FOREIGN = [
    (b"GIF89a", "a GIF image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\0\0\0\x20ftypavif", "an AVIF image"),
    (b"\0\0\0\x20ftypavis", "an AVIF image"),
    (b"\0\0\0\x18ftypheic", "a HEIC image"),
    (b"\0\0\0\x18ftyphevc", "a HEIC image"),
    (b"\0\0\0\x18ftypmif1", "a HEIF image, such as HEIC or AVIF"),
    (b"\0\0\0\x18ftypmsf1", "a HEIF image, such as HEIC or AVIF"),
    (b"\0\0\0\x18ftypcrx ", "a Canon raw file"),
    (b"\0\0\0\x18ftypisom", "a video or another ISO media file"),
    (b"IIU\0", "a Panasonic raw file"),
    (b"IIRO", "an Olympus raw file"),
    (b"IIRS", "an Olympus raw file"),
    (b"FUJIFILMCCD-RAW ", "a Fujifilm raw file"),
    (b"gimp xcf v011", "a GIMP file"),
    (b"NRRD0005", "an NRRD file"),
    (b"#?RGBE\n", "a Radiance HDR image"),
    (b"DDS |", "a DDS image"),
    (b"SDPX", "a DPX image"),
    (b"XPDS", "a DPX image"),
    (b"\x80\x2a\x5f\xd7", "a Cineon image"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (b"\x8bJNG\r\n\x1a\n", "a JNG image"),
    (b"BPG\xfb", "a BPG image"),
    (b"FLIF", "a FLIF image"),
    (b"\x97JB2\r\n\x1a\n", "a JBIG2 image"),
    (b"\x59\xa6\x6a\x95", "a Sun raster image"),
    (b"\x01\xda\x01", "an SGI image"),
    (b"\0\0\1\0", "an icon file"),
    (b"%PDF-1.7", "a PDF document"),
    (b"%!PS-Adobe", "a PostScript document"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"II\xbc\x01", "a JPEG XR image"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE\n", "a Radiance HDR image"),
    (b"8BPS\0\x01", "a Photoshop file"),
    (bytes(128) + b"DICM", "a DICOM file"),
    (b"SIMPLE  =                    T", "a FITS file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY\x01\0", "a NumPy array"),
    (b"P7\n", "a PAM image"),
    (b"Pf\n", "a floating-point PFM image"),
    (b"PF\n", "a floating-point PFM image"),
    (b"qoif", "a QOI image"),
]


@pytest.mark.parametrize(("start", "name"), FOREIGN)
def test_what_a_file_is_instead_of_an_image_is_named(start: bytes, name: str) -> None:
    error = refusal(start + bytes(200))
    assert (error.reason, error.what) == ("unsupported", f"is {name}")
    assert refusal(b" " + start + bytes(200)).reason == "not-an-image"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, not the image"),
        (b"<!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"\xef\xbb\xbf\n<HTML>", "is a web page"),
        (b"<?xml version='1.0'?><svg/>", "is an SVG drawing"),
        (b"BA" + bytes(12) + b"BM" + bytes(99), "is an OS/2 array of bitmaps"),
    ],
)
def test_what_is_not_told_by_one_signature(data: bytes, what: str) -> None:
    error = refusal(data)
    assert (error.reason, error.what[: len(what)]) == ("unsupported", what)
    assert error.hint


@pytest.mark.parametrize(
    "data", [b"a", bytes(4096), b"\xff" * 99, b"hello", b"BAD", b"BA" + bytes(99)]
)
def test_what_is_unknown_is_not_an_image(data: bytes) -> None:
    assert refusal(data).reason == "not-an-image"
