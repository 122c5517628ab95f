"""No command in a page of a runner is untried in silence."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.deploy.docs import NEVER_RUN, PAGES, blocks, doc_commands

THERE = [page for page in PAGES if (ROOT / f"docs/{page}.md").exists()]


@pytest.mark.parametrize("page", THERE)
def test_a_test_runs_the_commands_of_the_page(page):
    if doc_commands(page):
        tests = [
            p for p in ROOT.glob("tests/**/test_*.py") if f'doc_commands("{page}")' in p.read_text()
        ]
        assert tests, f"docs/{page}.md: mark its commands with *Never run by us: why.*, or run them"


@pytest.mark.parametrize("page", THERE)
def test_a_page_has_no_commands_of_another_fence(page):
    """Which nobody would find."""
    text = (ROOT / f"docs/{page}.md").read_text()
    fences = re.findall(r"^```(\w*)$", text, re.M)
    assert set(fences) <= {"sh", "yaml", "json", "text", ""}
    assert len(list(blocks(text))) == fences.count("sh")


def test_pages_are_there():
    assert {"dataflow", "ec2", "kubernetes"} <= set(THERE)


def test_only_the_line_before_a_block_excuses_it():
    text = "*Never run by us: no cluster.*\n\n```sh\na\n```\nwords\n```sh\nb\n```\n"
    assert [bool(NEVER_RUN.fullmatch(before)) for before, _ in blocks(text)] == [True, False]
    assert not NEVER_RUN.fullmatch("*Never run by us: .*")
