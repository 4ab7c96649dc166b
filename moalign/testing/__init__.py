"""Contracts that extensions must keep, to be run in their own test suites.

    from moalign.testing import check_explorer, check_merge, check_objective, check_weighter

    def test_mine():
        check_objective(MyObjective("mine"))
        check_weighter(lambda preference: MyWeighter(preference, pace=0.5))
        check_explorer(lambda m, points, seed: MyExplorer(m, points, seed))
        check_merge(my_merge)                                # my_merge(adapters, weights) -> Adapter
        check_merge(my_ties, breaks=["the deltas add up"])   # and it says so

- `objectives`: one finite number per completion, whatever else is in the batch
- `weighters`: weights on the simplex, and a state that survives JSON
- `explorers`: preferences on the simplex, none asked for twice, the same ones when made anew
- `merges`: the laws of a merge of adapters; `examine_merge` says which of them hold, `check_merge` asserts it
- `parents`: the tiny base model and the PEFT folders that merges are examined on
"""

from moalign.testing.explorers import check_explorer
from moalign.testing.merges import LAWS, Outcome, check_merge, examine_merge
from moalign.testing.objectives import check_objective
from moalign.testing.parents import tiny_model
from moalign.testing.weighters import check_weighter

__all__ = [
    "LAWS",
    "Outcome",
    "check_explorer",
    "check_merge",
    "check_objective",
    "check_weighter",
    "examine_merge",
    "tiny_model",
]
