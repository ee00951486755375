"""An item's tree as text: what each model answered, what that scored and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import shorten

from harness.evaluation.summary import ARROW
from pools.errors import UserError
from pools.mdp.tree import Tree

_WIDTH = 60
_INDENT = "  "


def tree_text(tree: Tree, item: int, hops: int = 1, after: Sequence[str] = ()) -> str:
    """One item's tree: its query, then a line per response, indented by its hop, with its score and what the hop cost.

    item: its number in `tree.items`. hops: how many levels are shown. after: the pipeline that they follow, by the
    names of its models; its last response is given whole. Raises UserError for what is not there.
    """
    if not 0 <= item < len(tree.items):
        raise UserError(f"item {item}: expected a number from 0, and below {len(tree.items)}")
    if unknown := [model for model in after if model not in tree.models]:
        raise UserError(f"model {unknown[0]} is not in the tree; it has {', '.join(tree.models)}")
    if len(after) >= tree.max_hops:
        raise UserError(f"nothing follows a pipeline of {len(after)} models: the tree has {tree.max_hops} hops")
    node = tree.node(tree.models.index(model) for model in after)
    asked = tree.items[item]
    head = [f"{asked.task} {asked.doc_id} ({asked.split})", asked.query]
    if after:
        head += [ARROW.join(after) + _outcome(tree, item, node), tree.generation(item, node).response]
    return "\n".join([*head, "", *_lines(tree, item, node, hops, max(map(len, tree.models)))])


def _lines(tree: Tree, item: int, node: int, hops: int, width: int, indent: str = "") -> Iterator[str]:
    if not hops or node >= tree.decision_nodes:
        return
    for action, model in enumerate(tree.models):
        child = int(tree.child(node, action))
        if tree.known[item, child]:
            said = shorten(tree.generation(item, child).response, _WIDTH, placeholder=" …")
            yield f"{indent}{model:{width}}{_outcome(tree, item, child)}  {said}"
            yield from _lines(tree, item, child, hops - 1, width, indent + _INDENT)


def _outcome(tree: Tree, item: int, node: int) -> str:
    return f"  score {tree.score[item, node]:.2f}  cost {tree.billed[item, node]:<8.3g}"
