"""Makes the model ``routed`` known to the plain ``lm_eval`` command.

lm-eval (0.4.13) has no entry-point group for models: its registry holds what ``lm_eval.models`` puts there, and a
third-party model is known only after somebody imported it. ``lm_eval --model routed`` imports nothing of ours, so this
package installs a one-line ``.pth`` file that imports this module when Python starts. All it does then is to put a
finder at the head of ``sys.meta_path``. When ``lm_eval.models`` is imported, the finder lets the import run as it
would have, then adds ``routed`` to the registry as a lazy "module:Class" name, and takes itself away.

Rules for this file: no imports but ``sys`` and ``os`` (Python has loaded both by then), never an exception. It is
copied into site-packages, in editable installs too, so a change needs a new ``pip install``.
``HARNESS_NO_LM_EVAL_HOOK=1`` in the environment turns it off.
"""

import os
import sys

TRIGGER = "lm_eval.models"
NAME = "routed"
TARGET = "harness.serving.lm:RoutedLM"


def register():
    """Add ``routed`` to lm-eval's registry, unless it is there; a failure is one line on stderr."""
    try:
        from lm_eval.api.registry import model_registry

        if NAME not in model_registry:
            model_registry.register(NAME, target=TARGET)
    except Exception as error:
        print(f"hierrouter-harness: lm-eval model {NAME!r} was not registered: {error!r}", file=sys.stderr)


class _Loader:
    """The module's own loader, except that :func:`register` runs once the module has been executed."""

    def __init__(self, loader, finder):
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        # The module keeps no trace of us: tools that look at its loader see the real one.
        module.__spec__.loader = module.__loader__ = self._loader
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._loader.exec_module(module)
        register()


class _Finder:
    """Answers for ``lm_eval.models`` only, with what the other finders answer, its loader wrapped."""

    def find_spec(self, name, path=None, target=None):
        if name != TRIGGER:
            return None
        for finder in list(sys.meta_path):
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _Loader(spec.loader, self)
                return spec
        return None


def install():
    """Put the finder in force, or register at once where ``lm_eval.models`` is already imported."""
    if os.environ.get("HARNESS_NO_LM_EVAL_HOOK", "") not in ("", "0"):
        return
    if TRIGGER in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _Finder())


install()
