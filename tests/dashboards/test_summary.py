from moalign.dashboards.summary import summary_sentence


def test_a_trade_in_words(make_set) -> None:
    """Three of four points are on the front; the dominated one, though extreme in nothing, does not count."""
    points = make_set((0.0, 3.0), (1.0, 2.5), (0.5, 1.0), (2.0, 0.0))
    assert summary_sentence(points, {"hypervolume_ratio": 0.957}) == (
        "Three of four adapters lie on the front: from one end to the other helpful rises from 0.00 to 2.00, and brief "
        "falls from 3.00 to 0.00; together they reach 96 % of the hypervolume of the exact front at equal KL."
    )
    assert "exact front" not in summary_sentence(points, {"hypervolume_ratio": None})


def test_many_objectives_are_spanned(three, five) -> None:
    assert summary_sentence(three.front, {}).startswith("13 of 15 adapters lie on the front: it spans helpful ")
    assert " and format " in summary_sentence(five.front, {})


def test_one_that_beats_all(make_set) -> None:
    assert summary_sentence(make_set((1.0, 1.0), (2.0, 3.0)), {}) == (
        "One of two adapters is at least as good as all others in everything: helpful 2.00 and brief 3.00."
    )


def test_no_trade_to_tell(make_set) -> None:
    assert summary_sentence(make_set(), {}) == "No adapter has been measured yet."
    assert summary_sentence(make_set((1.0, 2.0)), {}) == (
        "One adapter has been measured, at helpful 1.00 and brief 2.00; a front needs at least two."
    )
    assert summary_sentence(make_set((1.0, 2.0), (1.0, 2.0)), {}) == (
        "Two adapters were measured, and all have the same values: helpful 1.00 and brief 2.00."
    )
