"""Image file formats, one module each: checks the file strictly, then decodes its samples.

Every module has ``read_header``, ``decode`` and ``decode_labels``, see :class:`header.Format`. Each
bounds its work by the size of the image in the header and by limits on the file's structure.
"""
