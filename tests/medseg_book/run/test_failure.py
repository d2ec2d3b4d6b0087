from medseg_book.run.failure import Failure, parse_traceback

TRACEBACK = [
    "\x1b[31m-----------\x1b[39m",
    "KeyError                    Traceback (most recent call last)",
    "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[4]\x1b[39m, line 3\x1b[39m\n"
    "      1 import a\n----> 3 a.run(\n      4 x)",
    "\x1b[36mFile \x1b[39m/opt/env/lib/python3.11/site-packages/a/b.py:12, in run(x, y)\n"
    "     11 def\n\x1b[32m---> \x1b[39m12     return table[x]",
    "KeyError: 'x'",
]


def test_ipython_s_traceback_is_read():
    line, frames = parse_traceback(TRACEBACK, count=4)
    assert line == 3
    assert frames == [
        ("cell In[4], line 3", "      a.run("),
        ("a/b.py, line 12, in run", "      return table[x]"),
    ]


def test_a_line_of_another_cell_is_not_taken_for_the_failing_one():
    assert parse_traceback(TRACEBACK, count=5)[0] is None
    assert parse_traceback([], None) == (None, [])


def test_the_report_fits_on_a_screen_whatever_happens():
    failure = Failure(
        slug="tiny",
        cell=3,
        n_cells=9,
        heading="T" * 300,
        ename="ValueError",
        evalue="\n".join(f"line {i} " + "x" * 200 for i in range(50)),
        source="\n".join("y" * 300 for _ in range(40)),
        line=20,
        frames=[("a/b.py, line 1, in f", "      " + "z" * 200)] * 30,
    )
    lines = str(failure).splitlines()
    assert len(lines) <= 36 and max(map(len, lines)) <= 100
    assert any(line.startswith(">   20 | y") for line in lines)
    assert "line 0" in str(failure) and "line 49" not in lines[0]


def test_an_error_without_a_line_shows_the_start_of_the_cell():
    report = str(Failure("tiny", 1, 2, "", "DeadKernelError", "died", source="a = 1\nb = 2"))
    assert report.splitlines() == [
        "tiny failed in cell 1 of 2",
        "",
        "  DeadKernelError: died",
        "",
        "     1 | a = 1",
        "     2 | b = 2",
    ]


def test_a_long_message_is_shown_whole_with_its_indentation():
    message = "Hearts: cannot be read\nLayout expected:\n" + "\n".join(
        f"    folder{i}/" for i in range(14)
    )
    message += "\n    a.png  " + "word " * 30
    failure = Failure("tiny", 3, 9, "", "ValueError", message, source="x\n" * 20, line=9)
    lines = str(failure).splitlines()
    assert "[...]" not in str(failure)
    assert "      folder13/" in lines
    wrapped = lines[lines.index("      folder13/") + 2]
    assert wrapped.startswith("      word")
    assert any(line.startswith(">    9 |") for line in lines)


def test_the_summary_is_one_line_of_a_table():
    def summary(message):
        return Failure("tiny", 3, 9, "", "ValueError", message).summary

    assert summary("lr: got\n  \x1b[31m-1\x1b[0m") == "cell 3: ValueError: lr: got -1"
    assert summary("") == "cell 3: ValueError:"
    long = summary("x" * 1000)
    assert len(long) == 300 and long.endswith("x…")
