"""Settings of methods that train by the losses of another: what they answer, and what they refuse in one line."""

from collections.abc import Mapping
from typing import Any

import pytest

from moalign.config import parse_config
from moalign.errors import ConfigError


def config(inner: Mapping[str, Any], by: str = "online", **changes: Any) -> Any:
    objectives = {name: {"type": "length"} for name in "ab"}
    own = {"by": by, "settings": dict(inner), **changes}
    return parse_config({"base": "org/name", "objectives": objectives, "method": "conditioned", "settings": own})


@pytest.mark.parametrize(
    ("inner", "changes", "line"),
    [
        ({"weighting": "hypervolume"}, {}, "settings.settings.weighting: it is of one preference alone"),
        ({"kl_budget": 0.5}, {}, "settings.settings.kl_budget: it is of one preference alone"),
        ({"length_budget": 5.0}, {}, "settings.settings.length_budget: it is of one preference alone"),
        ({"warm_start": True}, {}, "settings.settings.warm_start: only corners are trained"),
        ({"stepz": 3}, {}, "unknown key 'stepz'; did you mean 'steps'?"),
        ({"betta": 3}, {"by": "modpo"}, "unknown key 'betta'; did you mean 'beta'?"),
        ({"kl_budget": 0.5}, {"by": "modpo"}, "unknown key 'kl_budget'"),
        ({"beta": "much"}, {}, "settings.settings.beta: "),
        ({}, {"draws": 0}, "settings.draws: "),
        ({}, {"concentration": 0.0}, "settings.concentration: "),
        ({}, {"by": "dpa"}, "settings.by: "),
    ],
)
def test_what_mixtures_cannot_have_is_refused_in_one_line(
    inner: dict[str, Any], changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(inner, **changes)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_sweep_asks_is_answered_by_the_inner_settings() -> None:
    found = config({"batch_size": 4, "epochs": 2.0, "beta": 0.3}, by="modpo").method_settings
    assert (found.learns_from, found.beta, found.oracle_beta, found.steps_for(16)) == ("pairs", 0.3, 0.3, 8)
    assert found.facts == {"losses": "modpo", "beta": "0.3"}
    found = config({"steps": 7, "max_new_tokens": 5}).method_settings
    assert (found.learns_from, found.steps_for(16), found.max_new_tokens) == ("prompts", 7, 5)
    assert (found.reference, found.start, found.warm_start) == ("base", None, False)
