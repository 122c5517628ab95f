"""Packaging: the three folders are installed under one namespace, ``scenefeed``."""

from setuptools import setup

setup(
    packages=[
        "scenefeed.pipelines",
        "scenefeed.pipelines.check",
        "scenefeed.pipelines.commands",
        "scenefeed.pipelines.compare",
        "scenefeed.pipelines.metadata",
        "scenefeed.pipelines.report",
        "scenefeed.transforms",
        "scenefeed.transforms.labels",
        "scenefeed.transforms.sources",
        "scenefeed.transforms.statistics",
        "scenefeed.loader",
    ],
    package_dir={
        "scenefeed.pipelines": "pipelines",
        "scenefeed.transforms": "transforms",
        "scenefeed.loader": "loader",
    },
    package_data={
        "scenefeed.loader": ["py.typed"],
        "scenefeed.pipelines.report": ["page.html", "page.css"],
    },
)
