"""Merges: pure functions of adapters' deltas, one per file.

- `soup`: the exact weighted sum, by rank concatenation, cut to a rank where one is given
- `factors`: the average of the factors, as rewarded soups were released; to compare with, for it is another delta
"""

from moalign.merging.factors import factor_average
from moalign.merging.soup import soup

__all__ = ["factor_average", "soup"]
