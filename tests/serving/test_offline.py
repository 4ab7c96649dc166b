"""Plans of several lanes without a server."""

import pytest
from plans import plan

from moalign.bank import AdapterBank
from moalign.errors import BaseModelError
from moalign.models import BaseModel
from moalign.serving.offline import decode
from moalign.serving.sampling import Sampling

TWO = plan({"a": 1.0}, {"b": 1.0}, shares=(0.5, 0.5))


def test_texts_do_not_depend_on_those_beside_them(served_base, bank, prompts) -> None:
    samplings = [Sampling(7, seed=seed) for seed in range(3)]
    together = decode(served_base, bank, TWO, prompts[3:6], samplings)
    assert together == [
        decode(served_base, bank, TWO, [prompt], [each])[0]
        for prompt, each in zip(prompts[3:6], samplings, strict=True)
    ]


def test_a_text_longer_than_the_window_is_refused_at_once(make_model, tokenizer, random_adapter) -> None:
    """Not when it gets there, and not by ending it early without a word."""
    model = make_model("mistral", sliding_window=12, max_position_embeddings=64, vocab_size=len(tokenizer))
    base = BaseModel("tiny", model, tokenizer, "digest")
    with AdapterBank(model, {name: random_adapter(model, seed) for seed, name in enumerate("ab")}) as bank:
        assert len(decode(base, bank, TWO, [[5] * 8], [Sampling(4)])[0]) <= 4
        with pytest.raises(BaseModelError, match="8 tokens and 5 new ones exceed the 12"):
            decode(base, bank, TWO, [[5] * 8], [Sampling(5)])
