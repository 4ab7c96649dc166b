"""Merges: pure functions of adapters' deltas, one per file.

- `soup`: the exact weighted sum, by rank concatenation, cut to a rank where one is given
"""

from moalign.merging.soup import soup

__all__ = ["soup"]
