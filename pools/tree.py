"""The finite tree of every item's MDP, as dense arrays over all items.

An item's tree has `N = (M^(L+1) - 1) / (M - 1)` nodes for `M` models and `L` hops. Node 0 is the query; the child of
node `n` under action `a` is `n * M + 1 + a`, so a node's number *is* the pipeline that leads to it and every step of
every episode is one array gather. Nodes `0 .. (M^L - 1) / (M - 1) - 1` are the ones where a decision is made.

A recording fills the arrays from the start; with live models `require` generates what is missing, in one batch per
model. No other code knows the difference.
"""
