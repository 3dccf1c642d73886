"""What holds for the repository as a whole: versions agree, imports live, notebooks keep house style."""

import ast
import doctest
import importlib
import importlib.metadata
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from liveness_utils import check

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MODULES = sorted([*(ROOT / "liveness_utils").rglob("*.py"), *(ROOT / "notebooks" / "studies").glob("*.py")])


def pins():
    """All pins of requirements.txt, whatever the platform."""
    text = (ROOT / "requirements.txt").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==([^\s;#]+)", text, re.M))


# --- names -------------------------------------------------------------------------------


def sources() -> dict[str, str]:
    """Python that uses the package from outside, by file: notebooks cell by cell, scripts and benchmarks."""
    found = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for d in ("scripts", "benchmarks", "tests", "notebooks/studies") for p in (ROOT / d).rglob("*.py")}  # fmt: skip
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[path.name] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return found


@pytest.mark.parametrize("name", sorted(sources()))
def test_every_name_that_is_used_of_the_package_exists(name):
    """What is renamed in the package is noticed here, not by a notebook some minutes later."""
    tree, modules, missing = ast.parse(sources()[name]), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("liveness_utils", "studies"):
            source = importlib.import_module(node.module)
            for alias in node.names:
                if find_spec(f"{node.module}.{alias.name}") if hasattr(source, "__path__") else None:
                    modules[alias.asname or alias.name] = importlib.import_module(f"{node.module}.{alias.name}")
                elif not hasattr(source, alias.name):
                    missing.append(f"{node.module}.{alias.name}")
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    stored |= {a.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for a in (*n.args, *n.kwonlyargs)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in stored:
            owner = modules.get(node.value.id)
            if owner is not None and not hasattr(owner, node.attr) and not find_spec_of(owner, node.attr):
                missing.append(f"{owner.__name__}.{node.attr}")
    assert not missing


def find_spec_of(owner, name: str) -> bool:
    """Whether a package has a module of that name that nothing has imported yet."""
    return hasattr(owner, "__path__") and find_spec(f"{owner.__name__}.{name}") is not None


# --- versions -----------------------------------------------------------------------------


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {line.split("==")[0]: line.split("==")[1].split(";")[0].strip() for part in lists for line in part}


def test_every_line_of_requirements_is_a_pin():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.match(r"^[a-z0-9.-]+==\S+( ; [^#]+)?(  # .+)?$", line), line


def test_every_pin_takes_the_first_python_of_its_series():
    """Debian 12 has 3.11.2; a package that wants 3.11.5 cannot be installed there."""
    code = (  # in a process of its own: here, what has been imported may bring copies of packages along
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.name.lower(): d.metadata.get('Requires-Python') for d in m.distributions()}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
    from packaging.specifiers import SpecifierSet

    wanted = {name: spec for name, spec in json.loads(told).items() if spec and name in pins()}
    assert len(wanted) > 100
    assert not {name: spec for name, spec in wanted.items() if not SpecifierSet(spec).contains("3.11.0")}


def test_pyproject_agrees_with_requirements():
    known = pins()
    assert {name: known.get(name) for name in declared()} == declared()


def test_every_direct_requirement_is_declared_and_says_where_it_is_used():
    text = (ROOT / "requirements.txt").read_text().split("# What the above need")[0]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("  # " in line for line in lines)
    assert {line.split("==")[0] for line in lines} == set(declared())


def test_environment_agrees_with_requirements():
    text = (ROOT / "environment.yml").read_text()
    conda = dict(re.findall(r"^  - ([a-z0-9-]+)=([0-9][^=\s]*)$", text, re.M))
    pip = dict(re.findall(r"^      - ([a-z0-9-]+)==([^\s;]+)", text, re.M))
    assert conda.pop("python") == "3.11"
    assert not re.search(r"^  - [a-z0-9-]+=[^=\s]+=", text, re.M), "a build string"
    assert {**conda, **pip} == {name: pins()[name] for name in {**conda, **pip}}
    assert set(declared()) - {"psutil"} <= {**conda, **pip}.keys()
    assert not conda.keys() & pip.keys()


def test_the_light_install_has_neither_torch_nor_tensorflow():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    light = " ".join(project["dependencies"] + project["optional-dependencies"]["runtime"])
    for heavy in ("torch", "tensorflow", "lightning", "anny", "numba"):
        assert not re.search(rf"\b{heavy}==", light)


def test_linux_only_wheels_carry_a_marker():
    text = (ROOT / "requirements.txt").read_text()
    for line in re.findall(r"^(?:nvidia-|cuda-|triton=).*$", text, re.M):
        assert 'sys_platform == "linux"' in line, line
    for name in ("litert-torch", "litert-converter"):
        assert re.search(rf'^{name}==\S+ ; sys_platform != "win32"', text, re.M), name


def test_there_is_one_opencv_wheel():
    names = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    assert {n for n in names if n.startswith("opencv")} == {"opencv-contrib-python"}
    assert [n for n in pins() if n.startswith("opencv")] == ["opencv-contrib-python"]


def test_check_names_what_is_missing_and_how_to_mend_it(monkeypatch):
    found = check.installed
    monkeypatch.setattr(check, "installed", lambda n: None if n == "av" else found(n))
    lines, good = check.report()
    assert not good and any(line.startswith("MISSING  av") for line in lines)
    assert any("-m pip install" in line and "av==" in line for line in lines)


def test_check_notices_a_second_opencv(monkeypatch):
    found = check.installed
    monkeypatch.setattr(check, "installed", lambda n: "5.0" if n == "opencv-python" else found(n))
    lines, good = check.report()
    assert not good and any("uninstall -y opencv-python" in line for line in lines)


def test_check_notices_a_library_of_the_system_that_is_missing(monkeypatch):
    assert not check.loads("libnowhere.so.9")
    monkeypatch.setattr(check.sys, "platform", "linux")
    monkeypatch.setattr(check, "loads", lambda name: name != "libEGL.so.1")
    lines, good = check.report(runtime=True)
    assert not good and any(line.startswith("MISSING  libEGL.so.1") for line in lines)
    assert any("install-system.sh libraries" in line for line in lines)


# --- imports --------------------------------------------------------------------------------

ORDERS = {
    "mediapipe first": "import liveness_utils, mediapipe, torch, torchvision, lightning",
    "tensorflow first": "import liveness_utils, tensorflow, torch; import torch._dynamo",
    "both, then an optimiser": (
        "import liveness_utils, mediapipe, tensorflow, torch, torchvision\n"
        "torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).step()"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("code", ORDERS.values(), ids=ORDERS)
def test_no_import_order_kills_the_process(code):
    if not all(find_spec(name) for name in ("torch", "tensorflow", "mediapipe")):
        pytest.skip("needs the course's packages")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]


def test_the_package_itself_imports_nothing_heavy():
    code = (
        "import sys, liveness_utils, liveness_utils.cli, liveness_utils.config\n"
        "print([m for m in ('torch', 'tensorflow', 'mediapipe', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.stdout.strip() == "[]", ended.stderr


# --- code -----------------------------------------------------------------------------------


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def public(path):
    """Functions and classes of a module that others may use."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [n for n in tree(path).body if isinstance(n, kinds) and not n.name.startswith("_")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_modules_and_what_is_public_say_what_they_are(path):
    assert ast.get_docstring(tree(path)), f"{path.name} has no docstring"
    silent = [node.name for node in public(path) if not ast.get_docstring(node)]
    assert not silent, f"no docstring: {silent}"


def test_arguments_of_public_functions_are_annotated():
    functions = [(p, n) for p in MODULES for n in public(p) if isinstance(n, ast.FunctionDef)]
    arguments = [(p, f, a) for p, f in functions for a in [*f.args.args, *f.args.kwonlyargs]]
    bare = [f"{p.stem}.{f.name}({a.arg})" for p, f, a in arguments if a.annotation is None]
    assert len(bare) <= 0.05 * len(arguments), f"no annotation: {bare}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_no_star_imports_and_no_prints_in_the_package(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.names[0].name != "*", path.name
        if path.name != "cli.py" and isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") != "print", f"{path.name}:{node.lineno}"


def tracked_text():
    for folder in ("liveness_utils", "notebooks", "scripts", "benchmarks", "data", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".ipynb", ".md", ".js", ".html", ".sh", ".json", ".yaml"}:
                if "generated" not in path.parts and "__pycache__" not in path.parts:
                    yield path
    yield from (ROOT / n for n in ("README.md", "Makefile", "pyproject.toml", "environment.yml"))


def test_no_absolute_paths_of_anybodys_machine():
    pattern = re.compile(r"/(?:home|Users)/\w|(?<![\w./])/(?:work|root|tmp)/\w|[A-Z]:\\\\?Users")
    for path in tracked_text():
        hit = pattern.search(path.read_text(encoding="utf-8"))
        assert not hit, f"{path.relative_to(ROOT)}: {hit.group(0)}"


# --- notebooks --------------------------------------------------------------------------------


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def prose(path):
    return "\n".join(source(c) for c in cells(path) if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name[:2])
def test_a_notebook_has_one_parameters_cell_of_literals(path):
    tagged = [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    names = {}
    for node in ast.parse(source(tagged[0])).body:
        assert isinstance(node, ast.Assign), "literals only"
        names[node.targets[0].id] = ast.literal_eval(node.value)
    assert {"profile", "run_dir"} <= set(names)
    assert names["profile"] in ("quick", "full") and names["run_dir"] == ""
    for line in source(tagged[0]).splitlines():
        assert not line.strip() or "#" in line, f"no comment: {line}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name[:2])
def test_a_notebook_opens_and_closes_as_the_course_does(path):
    first = cells(path)[0]
    assert first["cell_type"] == "markdown" and source(first).startswith("# ")
    text = prose(path).lower()
    for word in ("minutes", "reads", "writes", "exercises", "what we saw"):
        assert word in text, f"{path.name} does not say {word!r}"
    place = NOTEBOOKS.index(path)
    for neighbour in NOTEBOOKS[max(0, place - 1) : place + 2]:
        assert neighbour == path or neighbour.name in prose(path), f"no link to {neighbour.name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name[:2])
def test_a_notebook_leaves_no_noise(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in book["metadata"], "saved widget state"
    assert path.stat().st_size < 1_500_000, "outputs too large for a page"
    for cell in book["cells"]:
        assert "!pip" not in source(cell) and "%pip" not in source(cell)
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"stderr under: {source(cell)[:60]}"
            assert output["output_type"] != "error", f"error under: {source(cell)[:60]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name[:2])
def test_a_notebook_writes_its_metrics(path):
    assert "write_metrics" in "\n".join(source(c) for c in cells(path) if c["cell_type"] == "code")


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        if not target.startswith("notebooks/") or NOTEBOOKS:
            assert (ROOT / target).exists(), target


def test_readme_says_what_was_measured():
    from liveness_utils import bundle
    from liveness_utils.deployment import benchmark_report

    raw = (ROOT / "README.md").read_text(encoding="utf-8")
    text = " ".join(raw.split())
    assert benchmark_report.markdown(bundle.load(ROOT / "data" / "bundle").metrics["real_world"]) in raw
    held = json.loads((ROOT / "data" / "bundle" / "metrics.json").read_text(encoding="utf-8"))
    report = held["test"]
    worst, alone = report["apcer_worst"], report["without_injection"]["acer"]
    acers = [f"{100 * r['value']:.1f} % [{100 * r['low']:.1f}, {100 * r['high']:.1f}]" for r in (report["acer"], alone)]
    assert f"EER {100 * report['eer']['value']:.1f} %, BPCER {report['bpcer']['k']} of {report['bpcer']['n']}" in text
    assert f"{worst['k']} of {worst['n']} {worst['species'].replace('_', ' ')}" in text
    assert f"ACER {acers[0]}, without injections {acers[1]}" in text
    ships = held["released"]
    assert (
        f"turns {ships['bpcer']['k']} of {ships['bpcer']['n']} living faces away: EER {100 * ships['eer']['value']:.1f} %"
        in text
    )
    assert all(f"{r['k']} of {r['n']} {name.replace('_', ' ')}s" in text for name, r in report["apcer"].items())
    casia = bundle.load(ROOT / "data" / "bundle").metrics["real_world"]["casia"]
    rate = casia["untouched"]["rates"]["BPCER"]
    assert f"{rate['k']} of {rate['n']} living videos" in text
    two = {r["left_out"]: r for r in casia["taught"] if (r["camera"], r["people"], r["clips"]) == ("each camera", 2, 0)}
    whole, alone = two["all"], two["every attack"]
    assert f"it turns {100 * whole['bpcer']:.0f} % away and accepts {100 * whole['apcer']:.0f} % of the attacks" in text
    assert f"video replays are left out, {100 * two['video_replay']['apcer']:.0f} % of them pass" in text
    assert (
        f"it turns {100 * alone['bpcer']:.0f} % away and accepts {100 * alone['apcer']:.0f} % "
        f"(worst: {100 * alone['apcer_worst']:.0f} % of replays)" in text
    )
    away = next(r for r in casia["elsewhere"] if r["people"] == 2)
    assert (
        f"says so in {100 * away['announced']:.0f} % of the videos, and in {100 * away['announced_there']:.0f} %"
        in text
    )


def test_examples_in_docstrings_are_true():
    import liveness_utils
    import studies

    told = {}
    for package in (liveness_utils, studies):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            told[found.name] = doctest.testmod(importlib.import_module(found.name))
    assert not [name for name, result in told.items() if result.failed]
    assert told["liveness_utils.bundle"].attempted and told["studies.own_data"].attempted
