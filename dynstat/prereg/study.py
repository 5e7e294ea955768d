"""The folder of a study: where it lies, what code it brings, and whether it may be written to."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from ..errors import DynstatError
from ..files import read_text, sha256_bytes, sha256_file
from ..imports import imported

#: The names that the plan of a study may have; just one lies in its folder.
PLAN_NAMES = ("plan.yaml", "plan.toml", "plan.json")
_CODE = (".py", ".pyc", ".pyd", ".so")
ALLOWED_IMPORTS = ("__future__", "dynstat.registry")


def find_study(name: str | Path) -> Path:
    """Return the folder of a study, from its name, its folder, its plan file or one of its locks.

    Raises
    ------
    DynstatError
        F001 where there is none.
    """
    from .. import study_path

    path = Path(name)
    if path.is_file():
        path = path.parent
    if path.is_dir() and has_plan(path):
        return path
    if len(path.parts) == 1 and not path.is_dir():
        try:
            found = study_path(str(name))
        except DynstatError:
            found = path
        if has_plan(found):
            return found
    raise DynstatError(
        "F001",
        f"{name} is not a study",
        where=str(path),
        expected="a study's name, or a folder with plan.yaml (or plan.toml, plan.json)",
        mend="`dynstat prereg new FOLDER` starts one",
    )


def has_plan(folder: Path) -> bool:
    """Return whether a plan lies in a folder, in any of its spellings."""
    return any((folder / name).exists() for name in PLAN_NAMES)


def is_installed(folder: Path) -> bool:
    """Return whether the study lies in the installed package, where nothing may be written."""
    import dynstat

    return folder.resolve().parent == Path(dynstat.__file__).resolve().parent / "analyses"


def code_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a study that Python can import."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in _CODE and "__pycache__" not in p.parts]
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in files}


def foreign_code(paths: Mapping[str, str], folder: Path) -> list[str]:
    """Return a problem for every method whose code is neither dynstat's nor in the study's folder.

    Nothing hashes such code, so that it could be changed under the lock unseen.

    Parameters
    ----------
    paths : mapping of str to str
        By method or metric, where its function stands: ``module:function``.
    folder : Path
        Of the study.
    """
    from .. import study_path

    problems = []
    for name, path in paths.items():
        module = path.partition(":")[0]
        top = module.partition(".")[0]
        if module.startswith("dynstat.analyses."):
            home = study_path(module.split(".")[2])
            if home.resolve() == folder.resolve() or code_hashes(home) == code_hashes(folder):
                continue
        elif top in ("dynstat", _package(folder)) or not _has_file(top):
            continue
        problems.append(f"{name} is {path}, which is not in the study's folder")
    return problems


def _has_file(top: str) -> bool:
    """Return whether a module lies in a file: one of memory has none, one that is not found cannot be run."""
    if top in sys.modules:
        return getattr(sys.modules[top], "__file__", None) is not None
    return importlib.util.find_spec(top) is not None


def _package(folder: Path) -> str:
    return f"dynstat_study_{sha256_bytes(str(folder.resolve()).encode())[:12]}"


def register_methods(folder: Path) -> None:
    """Import a study's analysis.py, so that the methods it registers can be named.

    The file may only register methods: it imports the registry and no more, which keeps checking light.

    Raises
    ------
    DynstatError
        P307 where the file imports anything else, or raises.
    """
    from .. import study_path

    file = folder / "analysis.py"
    if not file.exists():
        return
    package = _package(folder)
    try:
        if study_path(folder.name).resolve() == folder.resolve():
            package = f"dynstat.analyses.{folder.name}"
    except DynstatError:
        pass
    name = f"{package}.analysis"
    if name in sys.modules:
        return
    _check_imports(file)
    try:
        if package not in sys.modules and not package.startswith("dynstat.analyses."):
            spec = importlib.util.spec_from_loader(package, None, is_package=True)
            assert spec is not None
            module = importlib.util.module_from_spec(spec)
            module.__path__ = [str(folder)]
            sys.modules[package] = module
        importlib.import_module(name)
    except DynstatError:
        raise
    except Exception as e:
        raise DynstatError(
            "P307",
            f"analysis.py cannot be imported: {type(e).__name__}: {e}",
            where=str(file),
            mend="import only dynstat.registry at its top",
        ) from e


def _check_imports(file: Path) -> None:
    try:
        tree = ast.parse(read_text(file))
    except SyntaxError as e:
        raise DynstatError(
            "P307", f"analysis.py is not Python: {e.msg}", where=f"{file}:{e.lineno}"
        ) from None
    found = [f"line {line}: {n}" for line, n in imported(tree) if n not in ALLOWED_IMPORTS]
    if found:
        raise DynstatError(
            "P307",
            "analysis.py imports more than the registry",
            where=str(file),
            found=", ".join(found),
            expected=", ".join(ALLOWED_IMPORTS),
            mend="put the method into a module beside it and point to it by path=",
        )
