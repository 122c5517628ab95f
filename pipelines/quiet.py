"""Keeping what libraries log from the user, who gets one line."""

from __future__ import annotations

import logging
import os


def quieten() -> None:
    """Beam logs a failure several times over, GDAL each odd header: the user gets one line."""
    beams = ("apache_beam", "root", "PrismRunner", "FlinkRunner", "SparkRunner")
    tensorflow = ("absl", "tensorflow")
    for name in (*beams, *tensorflow, "rasterio", "py.warnings", "gcsfs", "s3fs", "google"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def is_quiet() -> bool:
    """Whether ``quieten`` was called."""
    return logging.getLogger("apache_beam").level == logging.CRITICAL
