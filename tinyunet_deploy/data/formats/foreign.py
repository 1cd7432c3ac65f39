"""Recognise files of unsupported formats by their first bytes."""

from __future__ import annotations

from typing import Final

from tinyunet_deploy.data.formats.header import FormatError

__all__ = ["describe_foreign"]

_SIGNATURES: Final = (
    (0, b"GIF8", "a GIF image"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image, such as HEIC or AVIF"),
    (4, b"ftypmsf1", "a HEIF image, such as HEIC or AVIF"),
    (4, b"ftypcrx", "a Canon raw file"),
    (4, b"ftyp", "a video or another ISO media file"),
    (0, b"II\xbc", "a JPEG XR image"),
    (0, b"IIU\0", "a Panasonic raw file"),
    (0, b"IIRO", "an Olympus raw file"),
    (0, b"IIRS", "an Olympus raw file"),
    (0, b"FUJIFILMCCD-RAW", "a Fujifilm raw file"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"#?RGBE", "a Radiance HDR image"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"gimp xcf", "a GIMP file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"NRRD000", "an NRRD file"),
    (0, b"P7\n", "a PAM image"),
    (0, b"Pf\n", "a floating-point PFM image"),
    (0, b"PF\n", "a floating-point PFM image"),
    (0, b"qoif", "a QOI image"),
    (0, b"DDS ", "a DDS image"),
    (0, b"SDPX", "a DPX image"),
    (0, b"XPDS", "a DPX image"),
    (0, b"\x80\x2a\x5f\xd7", "a Cineon image"),
    (0, b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (0, b"\x8bJNG\r\n\x1a\n", "a JNG image"),
    (0, b"BPG\xfb", "a BPG image"),
    (0, b"FLIF", "a FLIF image"),
    (0, b"\x97JB2\r\n\x1a\n", "a JBIG2 image"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster image"),
    (0, b"\x01\xda", "an SGI image"),
    (0, b"\0\0\1\0", "an icon file"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
)
"""(position, signature, name); an earlier row wins."""
_TEXT: Final = (
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)
_TEXT_SEARCHED: Final = 512
"""Number of bytes at the beginning that are searched for the signature of a text file."""
_LFS_POINTER: Final = b"version https://git-lfs"


def describe_foreign(data: bytes) -> FormatError | None:
    """Return the error that names the format of a file; None if the format is unknown."""
    if data.startswith(_LFS_POINTER):
        what = "is a pointer of Git LFS, not the image itself"
        return FormatError("unsupported", what, "fetch the images: git lfs pull")
    if data.startswith(b"BA") and data[14:16] == b"BM":
        hint = "save each bitmap as a file of its own"
        return FormatError("unsupported", "is an OS/2 array of bitmaps", hint)
    for position, signature, name in _SIGNATURES:
        if data.startswith(signature, position):
            return FormatError("unsupported", f"is {name}", "convert it to PNG or TIFF")
    head = data[:_TEXT_SEARCHED].lower()
    for signature, name in _TEXT:
        if signature in head:
            return FormatError("unsupported", f"is {name}", "save the image itself as PNG or TIFF")
    return None
