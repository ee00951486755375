"""The start-up hook: the plain ``lm_eval`` command knows ``routed``, at no cost to any other program."""

import importlib.metadata
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "lm_eval_plugin"
ASK = "import lm_eval.models; from lm_eval.api.registry import model_registry as r; print('routed' in r, 'hf' in r)"


def python(code: str, path: str = "", flags: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, outside the repository, with only `path` on PYTHONPATH."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HARNESS_NO_LM_EVAL_HOOK")}
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        env={**kept, "PYTHONPATH": path, **env},
        cwd=Path(sys.executable).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


def installed() -> bool:
    try:
        importlib.metadata.version("hierrouter-harness")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# Under tox the package is installed: there a missing installation is a failure, not a reason to skip.
needs_installation = pytest.mark.skipif(
    not installed() and "TOX_ENV_NAME" not in os.environ, reason="pip install -e . first: the hook is a .pth file"
)


@needs_installation
def test_installed_hook_registers_routed():
    done = python(ASK)
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert done.stderr == ""


@needs_installation
def test_environment_variable_turns_it_off():
    assert python(ASK, HARNESS_NO_LM_EVAL_HOOK="1").stdout.split() == ["False", "True"]


@needs_installation
def test_start_up_imports_nothing_but_the_hook():
    code = "import sys; print([name in sys.modules for name in ('harness_lm_eval_hook', 'lm_eval', 'harness')])"
    assert python(code).stdout.strip() == "[True, False, False]"


@needs_installation
def test_the_name_points_at_our_class():
    code = f"{ASK}; print(r.get('routed').__module__, r.get('routed').__name__)"
    assert python(code).stdout.split() == ["True", "True", "harness.serving.lm", "RoutedLM"]


def test_import_is_left_as_it_was():
    """The module keeps its own loader, and the finder goes once it has done its work."""
    code = (
        "import harness_lm_eval_hook, sys, importlib.util;"
        "assert importlib.util.find_spec('lm_eval.models') is not None;"  # a look without an import must not use it up
        "assert 'routed' not in getattr(sys.modules.get('lm_eval.api.registry'), 'model_registry', ());"
        "import lm_eval.models as m; from lm_eval.api.registry import model_registry;"
        "assert 'routed' in model_registry;"
        "print(type(m.__loader__).__name__, type(m.__spec__.loader).__name__,"
        " any(type(f).__module__ == 'harness_lm_eval_hook' for f in sys.meta_path))"
    )
    done = python(code, path=str(SOURCE), HARNESS_NO_LM_EVAL_HOOK="0")
    assert done.stdout.split() == ["SourceFileLoader", "SourceFileLoader", "False"], done.stderr


def test_another_layout_of_lm_eval_does_no_harm(tmp_path):
    """An lm-eval without this registry still imports; one line says what is missing."""
    models = tmp_path / "lm_eval" / "models"
    models.mkdir(parents=True)
    (tmp_path / "lm_eval" / "__init__.py").touch()
    (models / "__init__.py").write_text("value = 1\n")
    path = os.pathsep.join([str(tmp_path), str(SOURCE)])
    done = python("import harness_lm_eval_hook, lm_eval.models; print(lm_eval.models.value)", path=path)
    assert (done.returncode, done.stdout.strip()) == (0, "1")
    assert "'routed' was not registered" in done.stderr and done.stderr.count("\n") == 1


def test_no_lm_eval_at_all_is_the_usual_error(tmp_path):
    code = "import harness_lm_eval_hook\ntry:\n import lm_eval.models\nexcept ModuleNotFoundError as e:\n print(e.name)"
    done = python(code, path=str(SOURCE), flags=("-S",))
    assert done.stdout.split() == ["lm_eval"], done.stderr


def test_start_up_takes_less_than_a_millisecond(tmp_path):
    # Compiled, as pip leaves it.
    py_compile.compile(str(shutil.copy(SOURCE / "harness_lm_eval_hook.py", tmp_path)))
    # -S leaves out what `site` loads; `os` is of it, so it is there before the hook in any usual start.
    code = "import os, time; t = time.perf_counter(); import harness_lm_eval_hook; print(time.perf_counter() - t)"
    # The best of several: what is measured is the hook, not how busy the machine is.
    assert min(float(python(code, path=str(tmp_path), flags=("-S",)).stdout) for _ in range(5)) < 1e-3
