"""The pipeline on tiny notebooks (order, parameters, failure, picking up), then on the course."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from liveness_utils import config, pipeline, report
from liveness_utils.errors import ConfigError
from liveness_utils.pipeline import PipelineError

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = 'profile = "quick"\ndata_dir = ""\nrun_dir = ""\nseed = 0\nworkers = 2'


def write_notebook(folder, name, *code, extra=""):
    parameters = new_code_cell(f"{PARAMETERS}\n{extra}", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# Lesson {name}"), parameters, *map(new_code_cell, code)]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")


WRITE = (
    "from liveness_utils import config\n"
    "where = config.paths(profile, data_dir, run_dir)\n"
    "config.write_metrics('{}', {{'seed': seed, 'nan': float('nan')}}, where.run)"
)


@pytest.fixture
def lessons(tmp_path):
    folder = tmp_path / "lessons"
    folder.mkdir()
    write_notebook(folder, "00_first", WRITE.format("00"), "import sys; print(sys.executable)")
    write_notebook(folder, "01_second", WRITE.format("01"), "assert epochs > 0", extra="epochs = 1")
    return folder


@pytest.mark.slow
def test_parameters_arrive_and_results_are_collected(lessons, tmp_path):
    lines = []
    out = tmp_path / "run"
    done = pipeline.run("quick", {"seed": 7, "epochs": 2}, out=out, notebooks=lessons, say=lines.append)
    assert [step.notebook for step in done.steps] == ["00_first", "01_second"]
    collected = json.loads((out / "metrics.json").read_text())
    assert collected["notebooks"]["01_second"] == {"seed": 7, "nan": None}
    assert sys.executable in (out / "notebooks" / "00_first.ipynb").read_text()
    assert len(lines) == 3 and lines[0].startswith("00_first")
    page = done.report.read_text()
    assert "Lesson 00_first" in page and (out / "report" / "01_second.html").exists()


def test_an_unknown_parameter_is_refused_before_anything_runs(lessons, tmp_path):
    with pytest.raises(PipelineError, match="did you mean epochs"):
        pipeline.run("quick", {"epoch": 2}, out=tmp_path / "run", notebooks=lessons)
    assert not (tmp_path / "run").exists()


def test_an_unknown_profile_or_number_is_refused(lessons, tmp_path):
    with pytest.raises(ConfigError, match="Unknown profile"):
        pipeline.run("fast", out=tmp_path / "run", notebooks=lessons)
    with pytest.raises(PipelineError, match="No notebook 05"):
        pipeline.run("quick", from_="05", out=tmp_path / "run", notebooks=lessons)
    with pytest.raises(PipelineError, match="Nothing lies between"):
        pipeline.select(pipeline.course_notebooks(lessons), "01", "00")


@pytest.mark.slow
def test_a_failure_names_notebook_cell_and_error_and_from_picks_up(lessons, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(PipelineError, match=r"01_second.ipynb.*cell 4.*assert epochs.*--from 01"):
        pipeline.run("quick", {"epochs": 0}, out=out, notebooks=lessons)
    assert (out / "notebooks" / "01_second.failed.ipynb").exists()
    assert not (out / "notebooks" / "01_second.ipynb").exists()
    assert "Failed" in (out / "report" / "index.html").read_text()

    done = pipeline.run("quick", {"epochs": 1}, from_="1", out=out, notebooks=lessons)
    assert [step.error for step in done.steps] == [None, None]
    assert not (out / "notebooks" / "01_second.failed.ipynb").exists()
    assert "00_first" in json.loads((out / "metrics.json").read_text())["notebooks"]


@pytest.mark.slow
def test_a_dying_kernel_is_a_sentence_too(tmp_path):
    write_notebook(tmp_path, "00_dies", "import os; os._exit(139)")
    with pytest.raises(PipelineError, match="00_dies.ipynb stopped"):
        pipeline.run("quick", out=tmp_path / "run", notebooks=tmp_path)


def test_widget_state_does_not_survive(tmp_path):
    cell = new_code_cell("x")
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a slider"}
    cell.outputs = [nbformat.v4.new_output("display_data", data=view)]
    book = new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    nbformat.write(book, tmp_path / "a.ipynb")
    pipeline.without_widget_state(tmp_path / "a.ipynb")
    text = (tmp_path / "a.ipynb").read_text()
    assert "widget" not in text and "a slider" in text


def test_the_headline_is_found_wherever_notebook_06_put_it():
    rate = {"value": 0.025, "k": 1, "n": 40, "low": 0.001, "high": 0.13}
    found = {"acer": {"value": 0.03, "low": 0.01, "high": 0.06}, "apcer_worst": rate, "bpcer": rate}
    tiles = report.headline({"notebooks": {"06_evaluation": {"reports": {"test": found}}}})
    assert [t["value"] for t in tiles] == ["3.0 %", "2.5 %", "2.5 %"]
    assert report.headline({"notebooks": {}}) == []


@pytest.mark.slow
def test_the_command_says_one_sentence_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "liveness_utils.cli", "run", "-p", "sed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr and len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_quick_course_runs_from_end_to_end(tmp_path):
    """Every notebook on its predecessors' real output, in a folder of its own."""
    done = pipeline.run("quick", {"data_dir": str(tmp_path / "data")}, out=tmp_path / "run", say=print)
    names = [path.stem for path in pipeline.course_notebooks()]
    assert [step.notebook for step in done.steps] == names
    assert all(step.error is None for step in done.steps)
    paths = config.paths("quick", tmp_path / "data", tmp_path / "run")
    assert (paths.bundle / "bundle.json").exists()
    assert list(paths.figures.glob("*.png")) and list(paths.figures.glob("*.pdf"))
    collected = json.loads((paths.run / "metrics.json").read_text())
    assert set(collected["notebooks"]) == set(names)


def test_a_report_leads_with_the_released_model_and_shows_the_runs_own_beside_it():
    rates = [{"acer": v, "apcer_worst": v, "bpcer": v} for v in (0.05, 0.3)]
    metrics = {"notebooks": {"06": {"released": rates[0], "test": rates[1]}}}
    assert [report.headline(metrics, own)[0]["value"] for own in (False, True)] == ["5.0 %", "30.0 %"]
    assert report.headline({"notebooks": {"06": {"test": rates[1]}}}) == report.headline(metrics, own=True)


def test_the_page_shows_the_released_model_first(tmp_path):
    rates = [{"acer": v, "apcer_worst": v, "bpcer": v} for v in (0.05, 0.3)]
    notebooks = {"06_evaluation": {"released": rates[0], "test": rates[1]}}
    config.write_json(tmp_path / "metrics.json", {"profile": "quick", "notebooks": notebooks})
    page = report.build(tmp_path).read_text(encoding="utf-8")
    assert (
        page.index("The released model")
        < page.index("5.0 %")
        < page.index("trained, on few clips")
        < page.index("30.0 %")
    )
