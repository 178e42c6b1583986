"""Tests of report.html: complete, well-formed, self-contained, and safe for any data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys

import pytest

from detzoo.cli import main, sweep
from detzoo.errors import DataError, UsageError
from detzoo.pages.text import escaped, script_data
from detzoo.sweep.measured import clean_rows
from detzoo.sweep.report.notices import environment_lines, notices
from detzoo.sweep.report.page import frontier_rows, write_report
from detzoo.sweep.results import write_results
from tests.page_elements import Page

SEPARATORS = "a\u2028b\u2029c"
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- $\\frac{1$ `$x$`",
    '"><img src=x onerror=alert(2)>',
    SEPARATORS,
    "&amp; ' \"",
    "${policy} $$ %s {0}",
    "https://elsewhere.example/x.js",
    "\x07bell\x1b[31m",
    "日本語",
    "x" * 400,
)


@pytest.fixture
def report(tmp_path):
    """A function: rows -> (the page's text, its elements, the report)."""

    def make(rows, **options):
        source = tmp_path / "results.csv"
        write_results(source, [])
        written = write_report(rows, source, tmp_path / "report", **options)
        text = written.page.read_text(encoding="utf-8")
        return text, Page(text), written

    return make


@pytest.fixture(scope="module")
def grid_page(synthetic, tmp_path_factory):
    """The page of the paper's grid, its elements, the report."""
    folder = tmp_path_factory.mktemp("sweep")
    rows = synthetic.synthetic_rows()
    rows[3].update(status="failed", reason="killed: out of memory")
    rows[5].update({"mAP": None, "reason": "no checkpoint"})
    rows[6]["latency.median_ms"] = None
    written = write_report(rows, folder / "results.csv", folder)
    text = written.page.read_text(encoding="utf-8")
    return text, Page(text), written


def data_of(text):
    """The JSON of the page's script."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1))


def test_the_page_is_well_formed_and_has_a_row_for_each_point(grid_page):
    text, page, written = grid_page
    assert page.problems == []
    assert text.startswith("<!DOCTYPE html>")
    table = text[text.index('<table id="points"') :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    assert body.count("<tr") == written.num_points == 147
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_the_page_needs_no_network(grid_page):
    text, page, _ = grid_page
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes)
    assert "@import" not in text
    assert not re.search(r"url\((?!['\"]?data:)", text)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon)\b", text)


def test_the_policy_lets_only_the_pages_own_script_run(grid_page):
    text, page, _ = grid_page
    [policy] = [a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    script = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_every_drawn_figure_is_in_the_page(grid_page):
    _, page, written = grid_page
    assert len(written.figures) == 12
    pictures = [attributes for attributes in page.attributes("img") if attributes["src"].startswith("data:image/svg")]
    assert len(pictures) == 12
    for attributes, figure in zip(pictures, written.figures):
        assert base64.b64decode(attributes["src"].split(",")[1]) == figure.svg.read_bytes()
        assert attributes["alt"].startswith(figure.title)


def test_missing_values_are_blank_cells_without_a_value_to_sort_by(grid_page):
    text, _, _ = grid_page
    rows = re.findall(r"<tr.*?</tr>", text[text.index("<tbody>") :], re.S)
    [without_time] = [row for row in rows if 'data-value="faster_rcnn_vgg16_600_16_20"' in row]
    assert '<td class="number"></td>' in without_time
    assert ">0.0<" not in without_time


def test_the_scatter_has_measured_points_only_and_blanks_as_null(grid_page):
    data = data_of(grid_page[0])
    assert len(data["points"]) == 146
    labels = [point["label"] for point in data["points"]]
    assert len(set(labels)) == 146
    assert sum(point["values"]["mAP"] is None for point in data["points"]) == 1
    assert sum(point["values"]["latency.median_ms"] is None for point in data["points"]) == 1
    assert all(len(point["cells"]) == len(data["columns"]) for point in data["points"])


def test_failures_are_listed_with_their_reasons(grid_page):
    text, page, _ = grid_page
    failures = text[text.index('<section id="failed">') :]
    assert "killed: out of memory" in failures
    assert "no checkpoint" in failures
    assert "1 of 147 points failed; the reasons are below." in "".join(page.texts["li"])


def test_the_frontier_is_shown_with_commands_and_configs(grid_page):
    text, page, _ = grid_page
    commands = [command for command in page.texts["pre"] if command.startswith("detzoo benchmark")]
    section = text[text.index('<section id="frontier">') : text.index('<section id="figures">')]
    assert section.count('<div class="card">') == len(commands) >= 10


def test_the_frontier_of_each_device(make_row):
    rows = clean_rows(
        [
            make_row("slow", mAP=0.2, **{"latency.median_ms": 50.0}),
            make_row("fast", mAP=0.3, **{"latency.median_ms": 40.0}),
            make_row("gpu", mAP=0.1, device="GPU", **{"latency.median_ms": 4.0}),
            make_row("unknown", device="TPU", **{"latency.median_ms": 4.0}),
        ]
    )
    found = {device: [row["key"] for row in group] for device, group in frontier_rows(rows, "mAP").items()}
    assert found == {"CPU": ["fast"], "GPU": ["gpu"]}


def test_hostile_data_stay_text(grid, report):
    rows = grid[::9]
    for index, row in enumerate(rows):
        text = HOSTILE[index % len(HOSTILE)]
        for name in ("name", "extractor", "meta_architecture", "config", "command", "environment.cpu"):
            row[name] = text
        row["name"] = f"{text}{index}"
        if index % 4 == 0:
            row["status"], row["reason"] = "failed", text
    rows[1]["device"] = HOSTILE[0]
    text, page, _ = report(rows)
    assert page.problems == []
    assert [attributes.get("id") for attributes in page.attributes("script")] == ["data", None]
    assert not [attributes for attributes in page.attributes("img") if not attributes["src"].startswith("data:")]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not set(SEPARATORS) & {"\u2028", "\u2029"} & set(text)
    assert "\x1b" not in text
    assert "</script><script>" not in text
    assert len(data_of(text)["points"]) == len([row for row in rows if row["status"] == "ok"])


def test_json_in_a_script_element_shows_no_markup_and_reads_back():
    value = {"name": "</script><!-- & \u2028 \u2029 ]]>"}
    text = script_data(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_text_for_html():
    assert escaped("<b a=\"1\" c='2'>&") == "&lt;b a=&quot;1&quot; c=&#x27;2&#x27;&gt;&amp;"


def test_a_config_is_taken_in_only_from_the_sweeps_own_folder(make_row, tmp_path, report):
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.config").write_text("model {\n  ssd {}  # </pre><b>\n}\n", encoding="utf-8")
    (tmp_path.parent / "secret.config").write_text("secret words", encoding="utf-8")
    measured = {"mAP": 0.2, "latency.median_ms": 5.0}
    text, page, _ = report([make_row("a", config="points/a.config", **measured)])
    assert "model {\n  ssd {}  # &lt;/pre&gt;&lt;b&gt;\n}" in text
    for path in ("../secret.config", str(tmp_path.parent / "secret.config"), "\0", "points"):
        text, page, _ = report([make_row("a", config=path, **measured)])
        assert "secret words" not in text
        assert page.problems == []


@pytest.mark.parametrize("count", [1, 2])
def test_few_points(grid, report, count):
    text, page, written = report(grid[:count])
    assert page.problems == []
    assert len(data_of(text)["points"]) == written.num_points == count


def test_without_accuracy_the_page_says_so(grid, report):
    for row in grid[:20]:
        row.update({name: None for name in row if name.startswith(("mAP", "AR@"))})
    text, page, _ = report(grid[:20])
    assert "No point has mAP." in "".join(page.texts["li"])
    assert "there is no frontier" in text
    assert data_of(text)["ys"][0]["name"] == "images_per_second" or data_of(text)["ys"][0]["better"] == "less"


def test_only_failed_points(grid, report):
    rows = [{**row, "status": "failed", "reason": "timed out after 60 s"} for row in grid[:5]]
    text, page, written = report(rows)
    assert page.problems == []
    assert written.figures == ()
    assert "5 points, 0 of them measured" in text
    assert text.count("timed out after 60 s") == 5


def test_notices_on_what_makes_times_incomparable(make_row):
    rows = [
        make_row("a", **{"environment.cpu": "Xeon", "load.is_quiet": True, "latency.repeat_difference": 0.01}),
        make_row("b", **{"environment.cpu": "EPYC", "load.is_quiet": False, "latency.repeat_difference": 0.12}),
        make_row("c", **{"environment.cpu": "EPYC", "precision": "bfloat16"}),
        make_row("d", status="failed"),
    ]
    rows[0]["precision"] = "float32"
    found = "\n".join(notices(clean_rows(rows), "mAP"))
    assert "The points come from 2 machines, so their times do not compare: EPYC; Xeon." in found
    assert "1 point was measured while other programs used the machine: times may be too long (b)." in found
    assert "In 1 of 3 points the two halves of the runs differ by more than 5 %, at most by 12 % (b)." in found
    assert "The points have different numeric precisions: bfloat16, float32." in found
    assert "1 of 4 points failed; the reasons are below." in found


def test_no_notice_where_all_is_well(make_row):
    row = make_row("a", mAP=0.3, **{"latency.median_ms": 5.0, "load.is_quiet": True, "latency.repeat_difference": 0.05})
    assert notices(clean_rows([row]), "mAP") == []


def test_a_yardstick_that_moved_is_noticed(make_row):
    rows = [make_row(str(speed), mAP=0.3, yardstick_gflops=speed) for speed in (100.0, 126.0)]
    assert "the yardstick lies between 100 and 126 GFLOP/s" in "\n".join(notices(clean_rows(rows), "mAP"))


def test_the_environment_lists_each_value_once(make_row):
    rows = [make_row(key, **{"environment.cpu": "Xeon", "environment.cores": 2}) for key in "ab"]
    assert environment_lines(clean_rows(rows))[:2] == [("processor", "Xeon"), ("cores", "2")]


def run_report(*words):
    sweep.Report.run(main.parse_flags("sweep report", sweep.Report, words))


def test_the_command_writes_and_says_where(grid, tmp_path, capsys):
    write_results(tmp_path / "results.csv", grid[:3])
    run_report(f"--output_dir={tmp_path}", f"--report_dir={tmp_path / 'made'}")
    printed = capsys.readouterr().out
    assert f"page     {tmp_path / 'made' / 'report.html'}" in printed
    assert "left out: Number of proposals, R-FCN, GPU [6b]: no point is an R-FCN" in printed
    assert (tmp_path / "made" / "report.html").is_file()
    assert len(list((tmp_path / "made" / "figures").glob("*.svg"))) == len(
        list((tmp_path / "made" / "figures").glob("*.png"))
    )


def test_the_command_without_rows_or_with_a_row_that_cannot_be_read(tmp_path):
    path = tmp_path / "results.csv"
    with pytest.raises(UsageError, match=r"there is no results\.csv"):
        run_report(f"--output_dir={tmp_path}")
    write_results(path, [])
    with pytest.raises(UsageError, match="has no row yet"):
        run_report(f"--results={path}")
    path.write_text(path.read_text(encoding="utf-8") + "a,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 cells"):
        run_report(f"--results={path}")


def test_the_report_starts_without_tensorflow():
    program = (
        "import sys\n"
        "from detzoo.cli import sweep\n"
        "import detzoo.sweep.report.page, detzoo.sweep.report.choose, detzoo.sweep.results\n"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[]"
