from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import picture
from benchmarks.picture import BROWSERS, PICTURES
from tests.test_benchmarks_report import made_up_line
from tinyunet_deploy import synthetic
from tinyunet_deploy.backends import open_backend
from tinyunet_deploy.backends.fake import FakeBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.images import draw_miss
