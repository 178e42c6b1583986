"""results.csv: kinds of cells, problems named all at once, and appending from many processes."""

from __future__ import annotations

import multiprocessing
import pathlib

import pytest

from detzoo.errors import DataError, UsageError
from detzoo.sweep.columns import EARLIER_NAMES, NAMES
from detzoo.sweep.results import append_row, format_row, read_results, read_with_problems, set_cells, write_results


def row(key: str, **values: object) -> dict:
    return {"key": key, "name": f"point {key}", "status": "ok", **values}


def write_lines(path: pathlib.Path, *rows: dict[str, str]) -> None:
    """A results.csv with the given cells as text."""
    lines = [",".join(NAMES)] + [",".join(cells.get(name, "") for name in NAMES) for cells in rows]
    path.write_text("\n".join(lines) + "\n")


def test_each_kind_of_cell_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    values = {
        "key": "a1",
        "name": 'with "quotes", commas',
        "status": "failed",
        "reason": "out of memory\nafter 3 s",
        "proposals": 300,
        "mAP": 0.125,
        "latency.median_ms": 12.5,
        "jit_compile": False,
        "parameters": 3_191_072,
        "load.is_quiet": True,
    }
    append_row(file, values)
    [read] = read_results(file)
    assert set(read) == set(NAMES)
    assert read["reason"] == "out of memory after 3 s"  # one row, one line
    assert {name: value for name, value in read.items() if value is not None and name != "reason"} == {
        name: value for name, value in values.items() if name != "reason"
    }
    assert read["jit_compile"] is False
    assert read["checkpoint"] is None
    assert len(file.read_text().splitlines()) == 2


def test_a_later_row_of_the_same_key_replaces_the_earlier_one(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    append_row(file, row("a", mAP=0.1))
    append_row(file, row("b"))
    append_row(file, row("a", mAP=0.2))
    assert [(read["key"], read["mAP"]) for read in read_results(file)] == [("a", 0.2), ("b", None)]


def test_every_unreadable_cell_is_named_with_its_line_and_column(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    good = {"key": "a", "name": "a", "status": "ok"}
    write_lines(
        file,
        good,
        {**good, "proposals": "3e2", "mAP": "n/a"},
        {**good, "status": "done"},
        {**good, "key": ""},
        {**good, "jit_compile": "yes", "latency.median_ms": "nan"},
    )
    with file.open("a") as stream:
        stream.write("x,y,z\n")
        stream.write('"open quote' + "," * (len(NAMES) - 1) + "\n")
    rows, problems = read_with_problems(file)
    assert [read["key"] for read in rows] == ["a"]
    assert [tuple(problem.removeprefix(f"{file}:").split(": ", 2)) for problem in problems[:6]] == [
        ("3", "column 'proposals'", "found '3e2'; accepted: a whole number, or nothing"),
        ("3", "column 'mAP'", "found 'n/a'; accepted: a number, or nothing"),
        ("4", "column 'status'", "found 'done'; accepted: ok, failed or skipped"),
        ("5", "column 'key'", "found ''; accepted: a text that is not empty"),
        ("6", "column 'jit_compile'", "found 'yes'; accepted: true or false, or nothing"),
        ("6", "column 'latency.median_ms'", "found 'nan'; accepted: a number, or nothing"),
    ]
    assert f"{file}:7: 3 cells; accepted: {len(NAMES)}, one for each column" in problems
    assert any(problem.startswith(f"{file}:8: not a line of CSV") for problem in problems)
    with pytest.raises(DataError, match=r"(?s):3: column 'proposals'.*:8: not a line of CSV"):
        read_results(file)


def test_files_of_other_columns_are_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("key,name,latency.medain_ms\na,b,3\n")
    with pytest.raises(DataError, match=r"unknown column 'latency.medain_ms'; did you mean.*latency.median_ms"):
        read_results(file)
    with pytest.raises(DataError, match=r"unknown column 'latency.medain_ms'"):
        append_row(file, row("a"))
    assert file.read_text() == "key,name,latency.medain_ms\na,b,3\n"
    file.write_text(",".join(reversed(NAMES)) + "\n")
    with pytest.raises(DataError, match="another order"):
        read_results(file)


def test_missing_empty_and_binary_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match=r"there is no results.csv at"):
        read_results(tmp_path / "results.csv")
    (tmp_path / "empty.csv").touch()
    assert read_results(tmp_path / "empty.csv") == []
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UsageError, match="not a text file"):
        read_results(tmp_path / "picture.csv")


def test_what_a_spreadsheet_saves_is_read(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    append_row(file, row("a", mAP=0.5))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    append_row(file, row("b"))
    assert [read["mAP"] for read in read_results(file)] == [0.5, None]


def test_a_line_cut_short_spoils_no_other(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    append_row(file, row("a"))
    with file.open("a") as stream:
        stream.write("b,cut sh")
    append_row(file, row("c"))
    rows, problems = read_with_problems(file)
    assert [read["key"] for read in rows] == ["a", "c"]
    assert problems == [f"{file}:3: 2 cells; accepted: {len(NAMES)}, one for each column"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "red"}, "no column 'colour'"),
        ({"mAP": "0.3"}, "'mAP' takes a number"),
        ({"mAP": float("nan")}, "'mAP' takes a number"),
        ({"proposals": True}, "'proposals' takes a whole number"),
        ({"jit_compile": 1}, "'jit_compile' takes true or false"),
        ({"name": 3}, "'name' takes a text"),
    ],
)
def test_a_value_of_another_kind_is_a_mistake_of_the_caller(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        format_row(values)


def _append_many(path: str, writer: int, count: int) -> None:
    for index in range(count):
        append_row(path, row(f"{writer}-{index}", reason="x" * (37 * writer), proposals=index))


def test_many_processes_append_to_one_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    writers = [
        multiprocessing.get_context("fork").Process(target=_append_many, args=(str(file), w, 40)) for w in range(6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = read_results(file)
    assert {read["key"] for read in rows} == {f"{writer}-{index}" for writer in range(6) for index in range(40)}
    assert all(len(read["reason"] or "") == 37 * int(str(read["key"])[0]) for read in rows)
    assert len(file.read_text().splitlines()) == 241  # one header


def test_cells_of_rows_that_are_there_can_be_set(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    assert set_cells(file, {"a": {"published.mAP": 0.3}}) == 0
    assert not file.exists()
    for key in "ab":
        append_row(file, row(key))
    assert set_cells(file, {"a": {"published.mAP": 0.3}, "c": {"published.mAP": 0.4}}) == 1
    assert [found["published.mAP"] for found in read_results(file)] == [0.3, None]
    assert set_cells(file, {"a": {"published.mAP": 0.3}}) == 0  # as it is already
    assert set_cells(file, {"a": {"published.mAP": None}}) == 1
    assert [found["published.mAP"] for found in read_results(file)] == [None, None]


def test_writing_anew_replaces_as_a_whole(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    append_row(file, row("old"))
    write_results(file, [row("a", mAP=0.25), row("b")])
    assert [(read["key"], read["mAP"]) for read in read_results(file)] == [("a", 0.25), ("b", None)]
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")] == ["results.csv"]


def test_a_file_of_an_earlier_version_gains_the_column_of_runtimes(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    cells = {"key": "a1", "name": "old", "status": "ok", "device": "CPU", "mAP": "0.5"}
    file.write_text(
        "\n".join([",".join(EARLIER_NAMES), ",".join(cells.get(name, "") for name in EARLIER_NAMES)]) + "\n"
    )
    [old] = read_results(file)
    assert (old["runtime"], old["device"], old["mAP"]) == ("tensorflow", "CPU", 0.5)
    append_row(file, row("b2", runtime="litert"))
    assert [(each["key"], each["runtime"]) for each in read_results(file)] == [("a1", "tensorflow"), ("b2", "litert")]
    assert file.read_text().splitlines()[0] == ",".join(NAMES)
