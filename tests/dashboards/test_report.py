import json
import math
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import chromium_path

from moalign.dashboards import Band, Sample, report_html, write_report
from moalign.errors import StorageError
from moalign.frontiers import fit_calibration
from moalign.frontiers.pareto_set import ParetoSet

HOSTILE = "</script><script>document.title = 'taken'</script> [click](javascript:alert(1)) <img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Counts elements, and keeps the text of each JSON script and of everything that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.shown = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1] == ("script", {"type": "application/json", "class": "figure-data"}):
            self.data.append(data)
        elif self.tags and self.tags[-1][0] not in ("script", "style"):
            self.shown += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def figures(page: Page) -> list[dict]:
    return [json.loads(text) for text in page.data if text.strip().startswith("{")]


def test_page_is_self_contained(two) -> None:
    """Plotly is inside; nothing is fetched: no src, no stylesheet, no link but an empty icon."""
    html = report_html(two)
    page = Page(html)
    addresses = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert addresses == ["data:,"]
    assert "plotly.js v" in html
    assert "@import" not in html.split("</style>")[0]


def test_page_starts_with_the_front_in_words(two) -> None:
    shown = Page(report_html(two)).shown
    order = ["runs/demo", "Nine of eleven adapters", "help-desk 1.2 M", "The front", "Asked and attained", "Texts to"]
    places = [shown.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize(("name", "count"), [("two", 1 + 2), ("three", 1 + 3 + 1 + 3), ("five", 6 + 1 + 5)])
def test_every_panel_is_there(name, count, request) -> None:
    """The front, its pairs from three objectives on, parallel coordinates likewise, one control panel per objective."""
    page = Page(report_html(request.getfixturevalue(name)))
    assert len(figures(page)) == count
    labels = [attrs.get("aria-label") for tag, attrs in page.tags if tag == "div" and attrs.get("role") == "img"]
    assert all(labels)


def test_text_is_never_html(two) -> None:
    """Whatever is quoted, the page has the same elements as without it."""
    honest = Page(report_html(two))
    hostile = replace(
        two,
        title=HOSTILE,
        facts=dict.fromkeys(two.facts, HOSTILE),
        samples=[Sample(sample.adapter, HOSTILE, HOSTILE, sample.scores) for sample in two.samples],
    )
    html = report_html(hostile)
    page = Page(html)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in honest.tags]
    assert "<script>document.title" not in html
    assert page.count("a") == page.count("img") == 0
    data = json.loads(re.search(r'id="texts-data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["texts"][0]["response"] == HOSTILE


def test_markup_in_names_is_shown(odd) -> None:
    page = Page(report_html(odd))
    assert "<b>" in page.shown
    assert page.count("b") == 0


@pytest.mark.parametrize("rows", [(), ((1.0, 2.0),), ((1.0, 2.0),) * 3], ids=["empty", "one", "equal"])
def test_poor_runs_are_told_in_sentences(bare, rows) -> None:
    """An empty run, one point, equal points: every section stands, and no number reads NaN."""
    page = Page(report_html(bare(*rows)))
    assert page.count("section") == 5
    assert "No texts were sampled" in page.shown
    assert "No indicators were computed" in page.shown
    assert "nan" not in page.shown.lower()


def test_unknown_errors_do_not_break_the_page(make_set, bare) -> None:
    """Errors and intervals that nobody knows are NaN in a point; JSON has no NaN, so a browser would refuse it."""
    report = bare((1.0, 2.0), (2.0, 1.0))
    unknown = dict.fromkeys(("helpful", "brief"), math.nan)
    intervals = dict.fromkeys(unknown, (math.nan, math.nan))
    points = [replace(point, standard_errors=unknown, intervals=intervals) for point in report.front]
    html = report_html(replace(report, front=ParetoSet(report.front.objectives, report.front.reference_point, points)))
    page = Page(html)
    assert len(figures(page)) == 3
    assert not [text for text in page.data if "NaN" in text]
    assert "±" not in page.shown.split("Every point")[1].split("sorts.")[1]


def test_a_band_and_a_calibration_are_shown_where_they_are_known(two) -> None:
    """Two panels and a table more, a row for each objective; the key says what the shade means."""
    plain = Page(report_html(two))
    band = Band(np.array([[1.0, 4.2]]), np.array([[1.0, 3.8]]), "in 90 % of all samples of the prompts")
    rows, values = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([[4.0, 0.0], [0.0, 4.0], [3.0, 2.9]])
    known = fit_calibration(rows, values, np.full((3, 2), 0.1), np.eye(2))
    page = Page(report_html(replace(two, band=band, calibration=known)))
    assert len(figures(page)) == len(figures(plain)) + 2
    assert page.count("table") == plain.count("table") + 1
    assert "where the front lies in 90 % of all samples of the prompts" in page.shown
    assert "What lies between" not in plain.shown
    note = Page(report_html(replace(two, calibration=fit_calibration(rows[:2], values[:2], values[:2], np.eye(2)))))
    assert "No blend has been measured" in note.shown
    assert "missed by" not in note.shown.split("What lies between")[1].split("Texts to")[0]


def test_violations_are_explained_where_there_are_some(make_set, bare) -> None:
    assert "is a violation" in Page(report_html(bare((1.0, 5.0), (2.0, 6.0), (3.0, 4.0)))).shown
    assert "is a violation" not in Page(report_html(bare((1.0, 6.0), (2.0, 5.0), (3.0, 4.0)))).shown


def test_same_report_same_bytes(two, tmp_path) -> None:
    write_report(tmp_path / "a.html", two)
    write_report(tmp_path / "deeper" / "b.html", two)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "deeper" / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "deeper"]


def test_refused_write_leaves_the_old_report(two, tmp_path) -> None:
    """A folder stands where the file should: one clear error, nothing half written beside it."""
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html"):
        write_report(tmp_path / "report.html", two)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_opens_in_a_browser_with_the_network_off(two, tmp_path) -> None:
    """All figures are drawn, four prompts are read, and a hostile response is text and does not run."""
    browser = chromium_path()
    samples = [Sample(sample.adapter, sample.prompt, HOSTILE, sample.scores) for sample in two.samples]
    path = tmp_path / "report.html"
    write_report(path, replace(two, samples=samples))
    quiet = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
    command = [browser, "--headless", *quiet.split(), "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    page = Page(dom)
    classes = [attrs.get("class") or "" for _, attrs in page.tags]
    assert sum("plot-container" in name for name in classes) == 3
    assert classes.count("exchange") == 4
    assert "<title>runs/demo" in dom
    assert page.count("img") == 0
    assert "[click](javascript:alert(1))" in page.shown
