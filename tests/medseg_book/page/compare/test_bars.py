import io

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from medseg_book.page.compare import _bars as progress

CODE = """
from medseg_book.page.compare import _bars as progress
with progress.bar(2, "outer") as outer:
    for _ in range(2):
        with progress.bar(3, "inner") as inner:
            for _ in range(3):
                inner.set_postfix({"loss": "0.5"}, refresh=False)
                inner.update()
                inner.refresh()
        outer.update()
with progress.bar(1, "second") as bar:
    bar.update()
print("done")
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def draw():
    with progress.bar(3, "work") as bar:
        bar.update(3)
        bar.refresh()


def test_a_terminal_sees_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    draw()
    assert "work" in screen.getvalue() and "3/3" in screen.getvalue()
    assert screen.getvalue().endswith("\r") and screen.getvalue().split("\r")[-2].strip() == ""


def test_a_pipe_gets_nothing(capsys):
    draw()
    assert capsys.readouterr() == ("", "")


@pytest.fixture(scope="module")
def notebook():
    """The notebook run as papermill does it, with no one there to type an answer."""
    cell = nbformat.v4.new_code_cell(CODE)
    nb = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(nb, timeout=120, kernel_name="python3").execute()
    return nb.cells[0].outputs


def test_a_batch_run_stores_no_bar(notebook):
    assert [(o.output_type, o.get("text")) for o in notebook] == [("stream", "done\n")]


def test_a_person_gets_one_display_that_ends_empty():
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    messages = []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        client.execute_interactive(CODE, allow_stdin=True, timeout=120, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    kinds = [m["msg_type"] for m in messages]
    assert kinds.count("display_data") == 1
    texts = [
        m["content"]["data"]["text/plain"] for m in messages if "display_data" in m["msg_type"]
    ]
    assert any("outer" in t and "inner" in t and "loss=0.5" in t for t in texts)
    assert texts[-1] == ""
    assert [m["content"]["text"] for m in messages if m["msg_type"] == "stream"] == ["done\n"]
