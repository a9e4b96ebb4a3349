"""Heavy libraries have homes, command lines start light, and files keep to one idea each."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = (
    "brainunet",
    "server/brainunet_server",
    "client/brainunet_client",
    "simulation/brainunet_sim",
    "dashboard/brainunet_dashboard",
)

_TORCH_HOMES = (
    "brainunet/data/augment.py",
    "brainunet/data/augment_scanner.py",
    "brainunet/data/patches.py",
    "brainunet/inference",
    "brainunet/losses",
    "brainunet/model",
    "brainunet/starter",
    "brainunet/study",
    "brainunet/training",
    "client/brainunet_client/tasks.py",
)
_STORE = ("server/brainunet_server/store",)
_REGISTRIES = ("brainunet/registry", "server/brainunet_server/registry")
_DASHBOARD = ("dashboard/brainunet_dashboard",)

# Library -> the files and folders that may import it. Elsewhere it is forbidden, in functions and TYPE_CHECKING too.
HOMES: dict[str, tuple[str, ...]] = {
    "alembic": _STORE,
    "cryptography": (
        "brainunet/certificates.py",
        "brainunet/kit.py",
        "brainunet/sealed.py",
        "brainunet/signing.py",
        "client/brainunet_client/enrolment.py",
        "client/brainunet_client/preflight",
        "client/brainunet_client/flower",
        "server/brainunet_server/administration.py",
        "server/brainunet_server/authority.py",
        "server/brainunet_server/kits.py",
        "server/brainunet_server/membership.py",
        "server/brainunet_server/roster.py",
        "server/brainunet_server/flower",
    ),
    "dynamic_network_architectures": ("brainunet/model/baselines.py",),
    "flwr": (
        "brainunet/flower_bundle.py",  # these two are what both ends must agree on
        "brainunet/flower_records.py",
        "client/brainunet_client/flower",
        "client/brainunet_client/node.py",  # its thin edge; here the environment is set before the import
        "server/brainunet_server/flower",
        "simulation/brainunet_sim",
    ),
    "google": _REGISTRIES,  # protobuf
    "grpc": _REGISTRIES,
    "grpc_health": _REGISTRIES,
    "jinja2": ("brainunet/pictures",),
    "matplotlib": ("brainunet/pictures", "simulation/brainunet_sim"),
    "monai": ("brainunet/model/baselines.py",),
    "nibabel": ("brainunet/data/volumes.py", "brainunet/data/written_volumes.py"),
    "opacus": ("brainunet/training/case_by_case.py",),
    "plotly": _DASHBOARD,
    "openvino": ("brainunet/inference/openvino_engine.py", "brainunet/inference/openvino_graph.py"),
    "sqlalchemy": _STORE,
    "streamlit": _DASHBOARD,
    "torch": _TORCH_HOMES,
    "torchio": _TORCH_HOMES,
}

# Module -> the libraries that importing it must not load: `--help` is instant, and the coordinator has no torch.
_HEAVY = ("torch", "torchio", "flwr", "sqlalchemy", "streamlit", "matplotlib", "jinja2", "grpc", "google.protobuf")
LIGHT: dict[str, tuple[str, ...]] = {
    "brainunet.cli": _HEAVY,
    "brainunet_client.cli": (*_HEAVY, "cryptography", "httpx"),
    "brainunet_client.supervisor": _HEAVY,
    "brainunet_dashboard.cli": (*_HEAVY, "pandas", "plotly"),
    "brainunet_server.cli": _HEAVY,
    "brainunet_sim.cli": _HEAVY,
    "brainunet.data": ("torch", "torchio", "flwr"),
    "brainunet.evaluation.results": _HEAVY,
    "brainunet.evaluation.scoring": _HEAVY,
    "brainunet.metrics": ("torch", "torchio", "flwr"),
    "brainunet.modelfile": ("torch", "torchio", "flwr"),
    "brainunet.registry.pulled": (*_HEAVY, "cryptography"),
    "brainunet.wire": ("torch", "torchio", "flwr"),
    "brainunet_server.rounds": ("torch", "torchio", "flwr"),
    "brainunet_server.store": ("torch", "torchio", "flwr"),
}

MAX_LINES = 400
NAMES_THAT_SAY_NOTHING = frozenset({"utils", "common", "helpers", "base", "misc", "manager"})


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported_libraries(source: str) -> Iterator[tuple[int, str]]:
    """Line and first name of every absolute import, wherever in the file it stands.

    >>> list(imported_libraries("import torch.nn as nn"))
    [(1, 'torch')]
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name.partition(".")[0]) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def away_from_home(path: Path, root: Path = ROOT) -> list[str]:
    """What the file imports outside its home, as sentences."""
    where = path.relative_to(root)
    return [
        f"{where.as_posix()}:{line} imports {library}, whose home is {', '.join(HOMES[library])}"
        for line, library in imported_libraries(path.read_text())
        if library in HOMES and not any(where.is_relative_to(home) for home in HOMES[library])
    ]


def test_every_heavy_library_stays_at_home() -> None:
    assert [problem for path in python_files(*PACKAGES) for problem in away_from_home(path)] == []


@pytest.mark.parametrize("library", HOMES)
@pytest.mark.parametrize(
    "code",
    [
        "import {library}\n",
        "from {library}.deep import name\n",
        "def later():\n    import json, {library} as other\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {library} import name\n",
    ],
)
def test_an_import_away_from_home_is_found(tmp_path: Path, library: str, code: str) -> None:
    offender = tmp_path / "brainunet" / "labels.py"
    offender.parent.mkdir()
    offender.write_text(code.format(library=library))

    assert len(away_from_home(offender, tmp_path)) == 1


@pytest.mark.parametrize("library", HOMES)
def test_an_import_at_home_is_fine_and_a_name_that_only_begins_alike_is_another(tmp_path: Path, library: str) -> None:
    home = tmp_path / HOMES[library][0]
    path = home if home.suffix else home / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text(f"import {library}\nimport {library}ish\nfrom . import {library}\n")

    assert away_from_home(path, tmp_path) == []


def test_a_folder_whose_name_only_begins_like_a_home_is_not_home(tmp_path: Path) -> None:
    path = tmp_path / "brainunet" / "models" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text("import torch\n")

    assert len(away_from_home(path, tmp_path)) == 1


@pytest.mark.parametrize("heavy", sorted(set(LIGHT.values())), ids=len)
def test_importing_loads_nothing_heavy(heavy: tuple[str, ...]) -> None:
    modules = [module for module, forbidden in LIGHT.items() if forbidden == heavy]
    # one process for all that may load as little; the first one to load something is named
    report = (
        "import importlib, sys\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
        f"    if loaded := sorted(set({heavy!r}) & set(sys.modules)): sys.exit(f'{{module}} loads {{loaded}}')"
    )

    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=False, timeout=60)

    assert (run.returncode, run.stderr) == (0, "")


def test_the_whole_coordinator_runs_without_torch() -> None:
    modules = [
        ".".join(path.relative_to(ROOT / "server").with_suffix("").parts).removesuffix(".__init__")
        for path in python_files("server/brainunet_server")
        if "migrations" not in path.parts  # alembic runs those, inside a migration only
    ]
    hide_torch = "import sys; sys.modules.update(torch=None, torchio=None)"
    code = f"{hide_torch}; import {', '.join(modules)}"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert run.returncode == 0, run.stderr


def test_no_file_is_over_400_lines() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in python_files(*PACKAGES, "tests", "benchmarks")
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }

    assert long == {}, "look for the second idea in these files"


def test_no_module_has_a_name_that_says_nothing() -> None:
    modules = [path.relative_to(ROOT) for path in python_files(*PACKAGES, "tests", "benchmarks")]

    assert [m.as_posix() for m in modules if NAMES_THAT_SAY_NOTHING & {m.stem, *m.parent.parts}] == []


def test_top_level_folders_are_no_packages() -> None:
    # benchmarks is one: the wheel of Opacus has a package of that name, which would else be found in its place
    outer = {(ROOT / package).parent for package in PACKAGES} | {ROOT / "tests", ROOT / "deploy"}

    assert [path for path in outer if (path / "__init__.py").exists()] == []
