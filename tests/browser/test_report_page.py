"""The report in Chromium: all of it shows at two widths, nothing runs, nothing is fetched."""

import shutil

import pytest

from scenefeed.pipelines.report import write_report
from tests.pipelines.reports import Page, crowd, figures, hostile

pytestmark = pytest.mark.browser
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium: `make test-browser` installs it where apt is and rights are")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, small_dataset):
    folder = tmp_path_factory.mktemp("pages")
    sets = {
        "small": small_dataset / "out", "hostile": hostile(folder / "hostile"),
        "crowd": crowd(folder / "crowd", 2000),
    }  # fmt: skip
    for name, out in sets.items():
        more = figures(folder, out) if name == "hostile" else {}
        write_report(out, folder / f"{name}.html", **more)
    return folder


@pytest.fixture(params=["small", "hostile", "crowd"])
def path(pages, request):
    return pages / f"{request.param}.html"


@pytest.fixture(params=WIDTHS)
def opened(chromium, path, request):
    """The page, and all that it logged, asked for or opened."""
    context = chromium.new_context(viewport={"width": request.param, "height": 900})
    page, seen = context.new_page(), []
    page.on("console", lambda m: seen.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: seen.append(f"error: {e}"))
    page.on("dialog", lambda d: (seen.append(f"dialog: {d.message}"), d.dismiss()))
    page.on("request", lambda r: seen.append(r.url))
    page.goto(path.as_uri(), wait_until="load")
    yield page, seen
    context.close()


def test_all_shows_and_nothing_runs(opened, path):
    page, seen = opened
    images = page.evaluate(
        "Array.from(document.images, i => [i.complete, i.naturalWidth, i.width])"
    )
    assert len(images) == len(Page(path.read_text()).images) > 5
    assert all(complete and natural > 0 and shown > 0 for complete, natural, shown in images)
    page.click("summary >> nth=0")
    assert page.evaluate("document.querySelector('details').open")
    assert [x for x in seen if not x.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.scripts.length") == 0


def test_nothing_is_wider_than_the_window(opened):
    page, _ = opened
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window
    # Nor is any text cut off, but in boxes that scroll.
    beyond = page.evaluate(
        """Array.from(document.querySelectorAll('body *'), e => [e.tagName, e.id, e.className,
            e.getBoundingClientRect().right, !!e.closest('.scroll, pre, .hidden, .skip')])
            .filter(x => x[3] > window.innerWidth + 1 && !x[4])"""
    )
    assert beyond == []


def test_masks_can_be_lifted_without_a_script(chromium, pages):
    page = chromium.new_page()
    page.goto((pages / "small.html").as_uri())
    visible = "getComputedStyle(document.querySelector('img.over')).visibility"
    assert page.evaluate(visible) == "visible"
    page.click("#over + label")
    assert page.evaluate(visible) == "hidden"
    page.close()


def test_the_page_prints(opened):
    page, _ = opened
    document = page.pdf(format="A4")
    assert document[:5] == b"%PDF-"
    assert document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") > 1
