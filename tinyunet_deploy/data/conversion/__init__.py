"""Convert annotations of other tools to images/ and masks/.

::

    coco      a JSON file of images, annotations and categories; polygons, RLE as a list of counts
              or as a string
    yolo      labels/NAME.txt beside images/NAME.jpg: a class and the corners of a polygon a line
    labelme   NAME.json beside each image
    cvat      annotations.xml of "CVAT for images 1.1"

Each reader turns its files into an :class:`~tinyunet_deploy.data.conversion.model.AnnotatedSet` and
refuses whatever it does not understand; ``writer.py`` draws the masks, the same way for all.
"""
