"""Plans made by hand: what an engine is given, without a run."""

from collections.abc import Mapping, Sequence

from moalign.serving.plan import Plan


def plan(*rows: Mapping[str, float], shares: Sequence[float] = (1.0,), divergence: str = "reverse_kl") -> Plan:
    """A plan with these mixtures as its lanes."""
    return Plan(
        policy="decode" if len(rows) > 1 else "interpolate",
        preference=None,
        direction=None,
        rows=tuple(dict(row) for row in rows),
        shares=tuple(shares),
        divergence=divergence,
        predicted={},
        source="unknown",
    )
