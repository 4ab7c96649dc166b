"""Which laws our merges and PEFT's keep: the table in MERGING.md, computed again."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from peft_merges import PEFT_MERGES, merged_by_peft, peft_merge

from moalign.adapters import Adapter, read_adapter
from moalign.errors import AdapterError
from moalign.merging import MERGES, soup
from moalign.testing import LAWS, Outcome, examine_merge, tiny_model
from moalign.testing.parents import NOT_LINEAR, SHAPES, Bench, answers, drawn, load_with_peft, probes

PAGE = Path(__file__).parents[2] / "MERGING.md"

# Why a law is broken, by the letter that stands in the table.
WHY = {
    "a": "right up to rounding: other factors, or the scale multiplied into them",
    "b": "cut to a smaller rank than the sum has",
    "c": "factors are merged, not deltas: products B_i A_j of different adapters come in, and how they are written "
    "changes the result",
    "d": "entries are trimmed or dropped, by intent",
    "e": "a mean of those that agree, by intent: weights count in proportion",
    "f": "the weighted sum is divided by how many adapters agree, not by their weights: k equal copies come out k "
    "times too small",
    "g": "another order, or another rank, draws other entries",
    "h": "an arc, not a sum, by intent: the length is kept",
    "i": "beyond the adapters, by intent",
    "j": "dense inside, so the result has up to full rank; `rank=` cuts it",
    "k": "the result keeps use_rslora and is multiplied by sqrt(rank) where the first adapter is rsLoRA",
    "l": "DoRA, PiSSA, lora_bias, bias and modules_to_save are taken without a word",
    "x": "refused with an error",
}


@dataclass(frozen=True)
class Row:
    """A merge, how far its delta is from the sum at (1/2, 1/2) in per cent, and each law it breaks with the reason."""

    merge: Callable[..., Adapter]
    off: int
    breaks: Mapping[str, str]
    count: int = 3
    takes_folders: bool = False


def breaks(**letters: str) -> dict[str, str]:
    """breaks(a="bit sum"): the laws by a word of their name, under the letter of the reason."""
    found = {}
    for letter, words in letters.items():
        for word in words.split():
            (law,) = (law for law in LAWS if word in re.split(r"\W", law))
            found[law] = letter
    return found


OURS = {
    "soup": Row(MERGES["soup"], 0, {}),
    "soup, rank 4": Row(partial(MERGES["soup"], rank=4), 41, breaks(a="bit", b="add negative")),
    "slerp": Row(MERGES["slerp"], 44, breaks(h="add", x="negative"), count=2),
    "bone, beta 0.7": Row(partial(MERGES["bone"], beta=0.7), 0, breaks(i="that bit add negative")),
    "extrapolate, strength 1.5": Row(
        partial(MERGES["extrapolate"], strength=1.5), 50, breaks(i="self that bit add negative")
    ),
    "ties, density 1": Row(partial(MERGES["ties"], density=1.0), 91, breaks(e="add negative", j="sum")),
    "ties, density 0.5": Row(
        partial(MERGES["ties"], density=0.5), 102, breaks(d="self that bit", e="add negative", j="sum")
    ),
    "dare, density 0.5": Row(
        partial(MERGES["dare"], density=0.5), 102, breaks(d="self that bit add negative", g="order", j="sum")
    ),
    "factors": Row(MERGES["factors"], 74, breaks(c="add negative factors", x="ranks alphas layers")),
}
_PEFTS = {
    "cat": (0, breaks(a="bit", k="rsLoRA", l="linear")),
    "svd": (41, breaks(a="bit", b="add negative ranks", k="rsLoRA", l="linear")),
    "svd, svd_rank = sum": (0, breaks(a="bit", k="rsLoRA", l="linear")),
    "linear": (104, breaks(a="bit", c="self add negative alphas factors layers", x="ranks", k="rsLoRA", l="linear")),
    "magnitude_prune": (
        106,
        breaks(c="self add negative alphas factors layers", d="that bit", x="ranks", k="rsLoRA", l="linear"),
    ),
    "magnitude_prune_svd": (44, breaks(b="ranks", d="self that bit add negative", k="rsLoRA", l="linear")),
    "ties": (
        108,
        breaks(c="self that add negative alphas factors layers", d="bit", x="ranks", k="rsLoRA", l="linear"),
    ),
    "ties_svd": (54, breaks(b="ranks", d="bit", f="self that add negative", k="rsLoRA", l="linear")),
    "dare_linear": (
        239,
        breaks(c="self add negative alphas factors layers", d="that bit", g="order", x="ranks", k="rsLoRA", l="linear"),
    ),
    "dare_linear_svd": (90, breaks(d="self that bit add negative", g="order ranks", k="rsLoRA", l="linear")),
    "dare_ties": (
        223,
        breaks(c="self add negative alphas factors layers", d="that bit", g="order", x="ranks", k="rsLoRA", l="linear"),
    ),
    "dare_ties_svd": (89, breaks(d="bit", f="self that add negative", g="order ranks", k="rsLoRA", l="linear")),
}
PEFTS = {
    f"PEFT {name}": Row(peft_merge(name), off, broken, takes_folders=True) for name, (off, broken) in _PEFTS.items()
}
ROWS = OURS | PEFTS


def off_the_sum(row: Row, folder: Path) -> int:
    """||D - (D_1 + D_2) / 2|| / ||(D_1 + D_2) / 2|| in per cent, dense and in float64."""
    parents = [drawn(1), drawn(2)]
    found = answers(Bench(row.merge, folder, 2, row.takes_folders).merge(parents, [0.5, 0.5]))
    expected = 0.5 * answers(parents[0]) + 0.5 * answers(parents[1])
    return round(100 * ((found - expected).norm() / expected.norm()).item())


def rendered() -> str:
    """The table of MERGING.md, and the reasons below it."""
    lines = ["| merge | " + " | ".join(LAWS) + " | off the sum by |", "|---" * (len(LAWS) + 2) + "|"]
    for name, row in ROWS.items():
        cells = [row.breaks.get(law, "yes") for law in LAWS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {row.off} % |")
    return "\n".join([*lines, "", *(f"- **{letter}**: {reason}" for letter, reason in WHY.items())])


@pytest.mark.parametrize("name", ROWS)
def test_each_merge_breaks_the_laws_that_the_table_says(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    outcomes = examine_merge(row.merge, count=row.count, takes_folders=row.takes_folders)
    assert {law for law, outcome in outcomes.items() if not outcome.passed} == set(row.breaks)
    assert {law for law, outcome in outcomes.items() if raised(outcome)} == letters(row, "x")
    assert off_the_sum(row, tmp_path) == row.off


def raised(outcome: Outcome) -> bool:
    return re.match(r"\w+Error: ", outcome.reason) is not None


def letters(row: Row, letter: str) -> set[str]:
    return {law for law, reason in row.breaks.items() if reason == letter}


def test_the_table_holds_every_merge_and_every_reason() -> None:
    assert {name.partition(",")[0] for name in OURS} == set(MERGES)
    assert set(_PEFTS) == set(PEFT_MERGES)
    assert {reason for row in ROWS.values() for reason in row.breaks.values()} == set(WHY)


def test_the_page_has_this_very_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert rendered() in text, f"MERGING.md has another table; expected\n\n{rendered()}"
    assert f"PEFT {peft.__version__}" in text
    words = " ".join(text.split())
    assert f"At (1/2, 1/2) it is {ROWS['PEFT linear'].off} % of" in words
    assert f"released with, is {ROWS['factors'].off} % away" in words
    assert f"lose much (below, {ROWS['soup, rank 4'].off} %)" in words


@pytest.mark.parametrize("kind", NOT_LINEAR)
def test_what_peft_takes_is_wrong_in_its_own_forward_pass(kind: str, tmp_path: Path) -> None:
    """Not a matter of how we read the result: `cat` of what is not linear, against the mean of PEFT's two policies.

    The page names the errors. For comparison, two plain adapters: right up to rounding.
    """
    bench = Bench(soup, tmp_path, 2, takes_folders=True)
    layers = ["q"] if kind == "modules_to_save" else list(SHAPES)
    plain = Adapter({name: drawn(2).layers[name] for name in layers}, tuple(layers))
    parents = [bench.write(plain), bench.foreign(kind)]
    off = forward_error(parents if kind == "bias" else parents[::-1])
    assert f"{kind} {off} %" in " ".join(PAGE.read_text(encoding="utf-8").split())
    assert forward_error([bench.write(drawn(1)), bench.write(plain)]) == 0


@pytest.mark.parametrize("kind", ["bias", "modules_to_save"])
def test_where_peft_does_raise(kind: str, tmp_path: Path) -> None:
    """Biases in the first adapter, and a whole module that the other adapter adapts."""
    bench = Bench(soup, tmp_path, 2, takes_folders=True)
    with pytest.raises(ValueError, match=r"adapter with bias|ModulesToSaveWrapper"):
        merged_by_peft("cat", [bench.foreign(kind), bench.write(drawn(2))], [0.5, 0.5])


@pytest.mark.parametrize("kind", NOT_LINEAR)
def test_what_peft_takes_is_refused_when_it_is_read(kind: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        read_adapter(Bench(soup, tmp_path, 2, takes_folders=True).foreign(kind))


def forward_error(folders: Sequence[Path]) -> int:
    """How far PEFT's forward pass of the merge is from the mean of its forward passes of the parents, in per cent."""
    with torch.no_grad():
        base = tiny_model()(probes())
        found = merged_by_peft("cat", folders, [0.5, 0.5])(probes()) - base
        expected = torch.stack([load_with_peft(folder)(probes()) - base for folder in folders]).mean(0)
    return round(100 * ((found - expected).norm() / expected.norm()).item())
