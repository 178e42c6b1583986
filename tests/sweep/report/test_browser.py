"""The page in a headless browser: no error, sorting, filter, hover, keys, the width of a phone, paper."""

from __future__ import annotations

import pytest

from detzoo.sweep.report.page import write_report

ARROW_RIGHT, END = "\ue014", "\ue010"  # W3C WebDriver's letters for keys
COLUMN = """
const table = document.getElementById("points");
const heads = [...table.tHead.rows[0].cells].map((cell) => cell.querySelector("button").textContent);
const column = heads.indexOf(arguments[0]);
"""
CLICK = COLUMN + 'table.tHead.rows[0].cells[column].querySelector("button").click();'
VALUES = COLUMN + "return [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);"
PLACE = """
document.getElementById("plot").scrollIntoView({block: "center", behavior: "instant"});
const box = document.querySelectorAll("#plot .point")[arguments[0]].getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2];
"""
HEADING = 'const head = document.querySelector("#row h3"); return head && head.textContent;'


@pytest.fixture(scope="module")
def page(synthetic, tmp_path_factory):
    """The grid's page; one point failed, one has no accuracy, and one has a name that tries to be markup."""
    folder = tmp_path_factory.mktemp("sweep")
    rows = synthetic.synthetic_rows()
    rows[0].update(
        {"name": "</script><img src=x onerror=document.title='broken'>", "reason": "<b>", "status": "failed"}
    )
    for name in rows[0]:
        if name.startswith(("latency.", "mAP", "memory.", "parameters")):
            rows[0][name] = None
    rows[1].update({"mAP": None, "reason": "no checkpoint"})
    return write_report(rows, folder / "results.csv", folder).page


@pytest.fixture(scope="module")
def programs(browser_module):
    if browser_module.find_programs() is None:
        pytest.skip("needs chromium and chromedriver on the PATH")
    return browser_module


@pytest.fixture(scope="module")
def desktop(programs, page):
    with programs.Browser(1280, 1000) as browser:
        browser.open(page)
        yield browser


@pytest.fixture(scope="module")
def phone(programs, page):
    with programs.Browser(mobile_width=390) as browser:
        browser.open(page)
        yield browser


def numbers(texts):
    return [float(text.replace(",", "")) for text in texts if text]


def test_no_error_is_logged_and_no_name_became_markup(desktop):
    assert desktop.console() == []
    assert desktop.run("return document.title") != "broken"
    assert desktop.run('return document.querySelectorAll("img[src=x]").length') == 0


def test_nothing_is_fetched(desktop):
    entries = desktop.run('return performance.getEntriesByType("resource").map((entry) => entry.name)')
    assert [entry for entry in entries if not entry.startswith("data:")] == []


def test_columns_sort_as_numbers_both_ways_with_blanks_last(desktop):
    desktop.run(CLICK, "median ms")
    texts = desktop.run(VALUES, "median ms")
    assert numbers(texts) == sorted(numbers(texts))
    assert texts[-1] == ""
    assert len(numbers(texts)) == 146
    desktop.run(CLICK, "median ms")
    texts = desktop.run(VALUES, "median ms")
    assert numbers(texts) == sorted(numbers(texts), reverse=True)
    assert texts[-1] == ""


def test_accuracy_sorts_with_the_best_first(desktop):
    desktop.run(CLICK, "mAP %")
    texts = desktop.run(VALUES, "mAP %")
    assert numbers(texts) == sorted(numbers(texts), reverse=True)
    assert texts[-2:] == ["", ""]  # the failed point and the one without a checkpoint


def test_text_sorts_by_its_letters(desktop):
    desktop.run(CLICK, "extractor")
    texts = desktop.run(VALUES, "extractor")
    assert texts[0] == "Inception v2"
    assert texts[-1] == "VGG-16"


def test_the_filter_keeps_rows_with_all_words(desktop):
    script = """
    const field = document.querySelector("input[data-filters=points]");
    field.value = arguments[0];
    field.dispatchEvent(new Event("input"));
    return [...document.querySelectorAll("#points tbody tr")].filter((row) => !row.hidden).length;
    """
    assert desktop.run(script, "ssd 600") == 2  # MobileNet v1 and Inception v2
    assert desktop.run('return document.querySelector("#all [role=status]").textContent') == "2 of 147 points"
    assert desktop.run(script, "") == 147


def test_hover_shows_the_points_row(desktop):
    assert desktop.run('return document.querySelectorAll("#plot .point").length') == 145
    place = desktop.run(PLACE, 0)
    desktop.move_to(*place)
    assert desktop.run(HEADING) == "SSD MobileNet v1, 300 px"  # points come by rising time
    row = desktop.run('return document.getElementById("row").textContent')
    assert "detzoo benchmark --pipeline_config_path=points/ssd_mobilenet_v1_300/pipeline.config" in row


def test_arrow_keys_walk_along_the_points(desktop):
    desktop.run('document.querySelector("#plot svg").focus()')
    first = desktop.run(HEADING)
    desktop.press(ARROW_RIGHT)
    second = desktop.run(HEADING)
    assert second not in (None, first)
    desktop.press(END)
    assert desktop.run(HEADING) == "Faster R-CNN Inception-ResNet v2, 600 px, stride 8, 300 prop."


def test_other_axes_can_be_chosen(desktop):
    script = """
    const select = document.getElementById("x");
    select.selectedIndex = [...select.options].findIndex((option) => option.text.startsWith(arguments[0]));
    select.dispatchEvent(new Event("change"));
    return [...document.querySelectorAll("#plot text")].map((text) => text.textContent);
    """
    assert "parameters, millions" in desktop.run(script, "parameters")
    assert "multiply-adds, billions" in desktop.run(script, "multiply-adds")
    desktop.run(script, "time")
    assert desktop.console() == []


def test_it_fits_a_phone_and_tables_scroll_in_their_box(phone):
    assert phone.run("return document.documentElement.scrollWidth") <= 390
    wide, shown = phone.run(
        'const box = document.querySelector("#all .box"); return [box.scrollWidth, box.clientWidth]'
    )
    assert shown < 390 < wide
    assert phone.console() == []


def test_a_tap_shows_the_points_row(phone):
    phone.move_to(*phone.run(PLACE, 0), click=True)
    assert phone.run(HEADING) is not None


def test_it_prints(desktop):
    printed = desktop.pdf()
    assert printed.startswith(b"%PDF")
    pages = printed.count(b"/Type /Page\n") or printed.count(b"/Type /Page ")
    assert 5 <= pages <= 40
