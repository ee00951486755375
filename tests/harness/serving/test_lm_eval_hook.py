"""The start-up hook: the plain ``lm_eval`` command knows ``routed``, at no cost to any other program."""

import importlib.util
import os
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


# Under tox the package is installed: there a missing installation is a failure, not a reason to skip.
needs_installation = pytest.mark.skipif(
    importlib.util.find_spec("harness_lm_eval_hook") is None and "TOX_ENV_NAME" not in os.environ,
    reason="pip install -e . first: the hook is a .pth file",
)


@needs_installation
def test_the_installed_hook_registers_our_class_and_imports_nothing_else():
    names = "('harness_lm_eval_hook', 'lm_eval', 'harness')"
    code = f"import sys; print([name in sys.modules for name in {names}]); {ASK}; print(r.get('routed').__module__)"
    done = python(code)
    assert done.stdout.split("\n") == ["[True, False, False]", "True True", "harness.serving.lm", ""], done.stderr
    assert done.stderr == ""


@needs_installation
def test_environment_variable_turns_it_off():
    assert python(ASK, HARNESS_NO_LM_EVAL_HOOK="1").stdout.split() == ["False", "True"]


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
