import threading

from moalign.serving.meter import Meter


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def value(meter: Meter, name: str, **labels: str) -> float | None:
    return meter.registry.get_sample_value(name, labels)


def test_what_was_told_is_what_is_shown() -> None:
    meter = Meter()
    meter.started("soup", prompt_tokens=12, reused_tokens=5)
    meter.first_token(0.2)
    meter.step(running=3, waiting=2, slots=4, tokens=3)
    meter.step(running=1, waiting=0, slots=4, tokens=1)
    meter.finished("soup", "stop", seconds=1.5, tokens=4)
    meter.finished("soup", "cancelled", seconds=0.5, tokens=1)
    meter.responded("/v1/models", 200)
    found = {
        "moalign_running_sequences": 1,
        "moalign_waiting_requests": 0,
        "moalign_slots": 4,
        "moalign_steps_total": 2,
        "moalign_tokens_total": 4,
        "moalign_prompt_tokens_total": 12,
        "moalign_reused_prompt_tokens_total": 5,
        "moalign_first_token_seconds_count": 1,
        "moalign_first_token_seconds_sum": 0.2,
        "moalign_batch_occupancy_sum": 1.0,  # 3/4 and 1/4
    }
    assert {name: value(meter, name) for name in found} == found
    assert value(meter, "moalign_plans_total", policy="soup") == 1
    assert value(meter, "moalign_finished_total", policy="soup", reason="cancelled") == 1
    assert value(meter, "moalign_seconds_sum", policy="soup") == 2.0
    assert value(meter, "moalign_written_tokens_total", policy="soup") == 5
    assert value(meter, "moalign_responses_total", path="/v1/models", status="200") == 1


def test_tokens_per_second_are_those_of_the_last_ten() -> None:
    """30 tokens within 6 s are 5 a second; 10 s after the first of them 10 are left, and in the end none."""
    clock = Clock()
    meter = Meter(clock)
    clock.now += 1
    meter.step(running=1, waiting=0, slots=1, tokens=20)
    clock.now += 5
    meter.step(running=1, waiting=0, slots=1, tokens=10)
    assert value(meter, "moalign_tokens_per_second") == 5.0
    clock.now += 6
    assert value(meter, "moalign_tokens_per_second") == 1.0
    clock.now += 60
    assert value(meter, "moalign_tokens_per_second") == 0.0


def test_two_meters_do_not_share_their_counts() -> None:
    one, other = Meter(), Meter()
    one.responded("/health", 200)
    assert value(other, "moalign_responses_total", path="/health", status="200") is None


def test_threads_may_count_at_once() -> None:
    meter = Meter()

    def work() -> None:
        for _ in range(500):
            meter.step(running=1, waiting=0, slots=2, tokens=1)
            meter.exposition() if _ % 100 == 0 else None

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(meter, "moalign_tokens_total") == 2000


def test_the_exposition_is_prometheus_text_with_the_process_beside() -> None:
    text = Meter().exposition().decode()
    assert "# TYPE moalign_tokens_per_second gauge" in text
    assert "process_resident_memory_bytes" in text
