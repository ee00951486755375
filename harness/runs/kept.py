"""What routers have learnt in a run that is not finished: kept, so that one that is stopped goes on from there."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pools
import routers
from harness.runs.manifest import package_versions
from pools.mdp.tree import Tree
from pools.types import content_hash
from routers import RouterRequest
from routers.checkpoint import Problem
from routers.encoders.base import ENCODERS
from routers.registry import ROUTERS, Taught, load_taught, options_asked, teach

UNFINISHED = ".trained"
"""In the folder of a run that is not finished; a finished run has none."""


@dataclass(frozen=True)
class Kept:
    """A folder of trained routers. learnt_from: hash of the items and answers, and of the code, that they are of.

    A class is not kept: it has no name that another process would know it by.
    """

    folder: Path
    learnt_from: str

    def path(self, router: str, request: RouterRequest, options: Mapping[str, Any]) -> Path:
        """Where a router is kept: another file for whatever decides what it learns."""
        problem = Problem.of(request).model_dump(mode="json")
        asked = options_asked(router, options)
        decides = (router, asked, problem, request.frontier, str(request.weights))
        # Of files of the user's own.
        kinds = [ROUTERS.entry(router)[1], *([ENCODERS.find(asked["encoder"])[1]] if "encoder" in asked else [])]
        code = b"".join(Path(inspect.getfile(kind)).read_bytes() for kind in kinds)
        of = content_hash(*decides, self.learnt_from, hashlib.sha256(code).hexdigest())
        return self.folder / f"{file_name(router)}-{request.seed}-{of[:16]}.safetensors"

    def has(self, router: str | type, request: RouterRequest, options: Mapping[str, Any]) -> bool:
        """Whether a router is there."""
        return isinstance(router, str) and self.path(router, request, options).is_file()


def kept_in(folder: Path, request: RouterRequest) -> Kept:
    """The folder of what is learnt from the items of a request."""
    known = [_content(tree) for tree in (request.train, request.validation) if tree is not None]
    ours = [path for package in (pools, routers) for path in sorted(Path(package.__path__[0]).rglob("*.py"))]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in ours)).hexdigest()
    return Kept(folder, content_hash(known, code, package_versions()))


def teach_once(router: str | type, request: RouterRequest, options: Mapping[str, Any], kept: Kept | None) -> Taught:
    """Teach a router and keep it, or load what a run before this one taught it.

    A training that was stopped goes on from its own state, if it leaves one.
    """
    if kept is None or not isinstance(router, str):
        return teach(router, request, options)
    path = kept.path(router, request, options)
    if path.is_file():
        return load_taught(router, path, request)
    kept.folder.mkdir(parents=True, exist_ok=True)
    state = path.with_suffix(".state")
    along = replace(request.training, state=state, resume=state.is_file())
    taught = teach(router, replace(request, training=along), options)
    taught.save(path)
    state.unlink(missing_ok=True)
    return taught


def any_kept(folder: Path, routers: Sequence[str]) -> bool:
    """Whether a folder of trained routers has one of these, or the state of its training."""
    names = "|".join(re.escape(file_name(router)) for router in routers)
    return any(re.match(rf"({names})-\d+-[0-9a-f]{{16}}\.", path.name) for path in folder.glob("*"))


def file_name(router: str) -> str:
    """A router's name as a part of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", router)


def _content(tree: Tree) -> str:
    """Hash of all that can be learnt from a tree."""
    items = [(item.task, item.doc_id, item.query, item.split, item.kind, item.wording) for item in tree.items]
    texts = hashlib.sha256(repr([(c.query, c.responses) for c in tree.contexts]).encode()).hexdigest()
    of_nodes = [tree.known, tree.score, tree.cost, tree.context_id]
    if tree.latency:
        of_nodes.append(tree.seconds(*np.indices(tree.known.shape, sparse=True)))
    arrays = [hashlib.sha256(array.tobytes()).hexdigest() for array in of_nodes]
    return content_hash(tree.models, tree.max_hops, tree.answers, items, texts, arrays)
