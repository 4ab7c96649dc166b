from moalign.dashboards.records import Sample
from moalign.dashboards.texts import Score, Text, Voice, texts_info


def test_samples_are_arranged_by_prompt_and_voice(make_set) -> None:
    """Scores of helpful span 1 to 3, so 2 lies half way; brief is flat and lies in the middle.

    a0 asks most for brief, a1 most for helpful: at first helpful is read as A, brief as B. Unknown scores are None.
    """
    samples = [
        Sample("a0", "Hi", "Hello.", {"helpful": 1.0, "brief": 5.0}),
        Sample("a1", "Hi", "Good day to you.", {"helpful": 3.0}),
        Sample("base", "Hi", "Hm.", {"helpful": 2.0, "brief": 5.0}),
        Sample("stranger", "Bye", "Bye.", {}),
    ]
    info = texts_info(make_set((0.0, 2.0), (2.0, 0.0)), samples)
    assert info.prompts == ("Hi", "Bye")
    assert info.voices == (
        Voice("base", "base model"),
        Voice("a0", "helpful 0.33 · brief 0.67"),
        Voice("a1", "helpful 0.67 · brief 0.33"),
        Voice("stranger", "stranger"),
    )
    assert info.texts[0] == Text(0, 1, "Hello.", (Score("1.00", 1.0, 0.0), Score("5.00", 5.0, 0.5)))
    assert info.texts[1].scores == (Score("3.00", 3.0, 1.0), None)
    assert info.texts[2].scores[0] == Score("2.00", 2.0, 0.5)
    assert info.first == (2, 1)


def test_equal_preferences_keep_apart(make_set) -> None:
    """Two adapters trained for the same weights are told apart by their names."""
    points = make_set((1.0, 1.0), (2.0, 2.0))
    points.points[1] = type(points.points[1])(**{**vars(points.points[0]), "adapter": "other"})
    samples = [Sample(adapter, "Hi", "Hello.", {}) for adapter in ("a0", "other")]
    labels = [voice.label for voice in texts_info(points, samples).voices]
    assert labels == ["helpful 0.33 · brief 0.67 (a0)", "helpful 0.33 · brief 0.67 (other)"]


def test_one_voice_is_read_beside_itself(make_set) -> None:
    info = texts_info(make_set((1.0, 1.0)), [Sample("a0", "Hi", "", {"helpful": 1.0, "brief": 1.0})])
    assert info.first == (0, 0)


def test_nothing_sampled(make_set) -> None:
    info = texts_info(make_set((1.0, 1.0)), [])
    assert info.note == "No texts were sampled for this report."
    assert info.as_dict()["texts"] == ()
