"""Progress: what is shown, how often, and where; time is a number that the tests set."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from lingula.terminal.progress import Display, Terminal, duration, over, progress, quietly, shown_on, speed, stop


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shown(clock):
    """What was written, with the display of a file in place."""
    stream = io.StringIO()
    with shown_on(Display(stream, clock)):
        yield lambda: stream.getvalue().splitlines()


def work(clock, bar, steps, seconds):
    for _ in range(steps):
        clock.now += seconds
        bar.advance()


def test_a_line_a_minute_with_step_rate_and_time_left(clock, shown):
    with progress("stage 1", 9400, "step") as bar:
        bar.note = "total 3.21"
        work(clock, bar, 1200, 0.25)
        lines = shown()
        assert len(lines) == 5  # at 10, 70, 130, 190 and 250 of 300 seconds
        assert lines[0] == "stage 1: step 40 of 9,400 (0 %), 4.0 steps/s, 39 min left, total 3.21"
        assert lines[4] == "stage 1: step 1,000 of 9,400 (11 %), 4.0 steps/s, 35 min left, total 3.21"
        work(clock, bar, 8200, 0.25)
    assert len(shown()) == 1 + 39 + 1
    assert shown()[-1] == "stage 1: step 9,400 of 9,400 after 39 min, total 3.21"


def test_the_rate_is_that_of_the_last_ten_minutes_and_not_of_what_was_done_before(clock, shown):
    with progress("stage 1", 10_000, "step", done=4000) as bar:
        work(clock, bar, 40, 0.25)
        assert shown()[-1] == "stage 1: step 4,040 of 10,000 (40 %), 4.0 steps/s, 25 min left"
        work(clock, bar, 1000, 2.0)  # slower since
        assert "0.5 s/step" not in shown()[-1]
        assert "2.0 s/step" in shown()[-1]


def test_short_work_is_silent(clock, shown):
    with progress("a", 30) as bar:
        work(clock, bar, 30, 0.3)
    assert list(over([1, 2, 3], "b")) == [1, 2, 3]
    assert shown() == []


def test_much_short_work_in_a_row_is_not(clock, shown):
    for _ in range(60):  # five minutes
        with progress("encoding", 10, "image") as bar:
            work(clock, bar, 10, 0.5)
    assert len(shown()) == 5
    clock.now += 3600  # and after a rest it is again the work itself that counts
    with progress("encoding", 10, "image") as bar:
        work(clock, bar, 10, 0.5)
    assert len(shown()) == 5


def test_work_inside_work_says_where_it_belongs(clock, shown):
    with progress("retrieval", 4, "measurement") as outer:
        outer.advance()
        for _ in over(range(20), "encoding"):
            clock.now += 4
    assert shown() == [
        "retrieval, measurement 2 of 4: encoding: batch 3 of 20 (15 %), 4.0 s/batch, 68 s left",
        "retrieval, measurement 2 of 4: encoding: batch 18 of 20 (90 %), 4.0 s/batch, 8 s left",
        "retrieval: measurement 1 of 4 after 80 s",
    ]


def test_short_work_inside_long_work_leaves_the_line_to_the_long(clock, shown):
    with progress("training", 200) as bar:
        for _ in range(30):
            work(clock, bar, 1, 0.5)
            for _ in over(range(3), "encoding"):
                clock.now += 0.5
    assert shown()[0] == "training: step 5 of 200 (2 %), 2.0 s/step, 6 min left"


def test_an_error_inside_leaves_nothing_open(clock, shown):
    display = Display(io.StringIO(), clock)
    with shown_on(display):
        kept = over(range(3), "left in a generator")

        def fail():
            with progress("outer", 2):
                next(kept)
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert display.open == []
        kept.close()
        assert display.open == []
        next(iter(outermost := over(range(3), "outermost")))
        stop()
        assert display.open == []
        outermost.close()


def test_what_may_stop_earlier_says_so(clock, shown):
    with progress("training", 100, at_most=True) as bar:
        work(clock, bar, 10, 1.0)
    assert shown()[0] == "training: step 10 of 100 (10 %), 1.0 steps/s, at most 2 min left"


def test_quietly(clock, shown):
    with quietly(), progress("a", 100) as bar:
        work(clock, bar, 100, 10.0)
    assert shown() == []
    with quietly(False), progress("a", 100) as bar:
        work(clock, bar, 1, 10.0)
    assert shown() != []


def test_a_terminal_has_bars_that_appear_after_a_second_and_go_away(clock):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with shown_on(Terminal(console, clock)):
        with progress("writing", 10, "image") as bar:
            work(clock, bar, 9, 0.1)
            assert stream.getvalue() == ""
        with progress("outer", 2, "task"), progress("encoding [a]", 10, "image") as bar:
            work(clock, bar, 9, 2.0)
    text = stream.getvalue()
    assert "encoding [a]" in text
    assert "2.0 s/image, 2 s left" in text
    assert text.index("outer") < text.index("encoding [a]")  # work around it is above it, before it has moved itself
    assert text.endswith("\x1b[2K") or "\x1b[?25h" in text  # the cursor is back


def test_progress_goes_to_stderr_and_results_to_stdout():
    script = (
        "import lingula.terminal.progress as p\n"
        "ticks = iter(range(0, 10000, 11)); p._lines.clock = lambda: next(ticks)\n"
        "for i in p.over(range(3), 'x'): print(i)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n1\n2\n"
    assert done.stderr.startswith("x: batch 1 of 3 (33 %)")


@pytest.mark.parametrize(
    ("rate", "said"),
    [(4.12, "4.1 steps/s"), (0.4, "2.5 s/step"), (1234.5, "1,234 steps/s")],
)
def test_speed(rate, said):
    assert speed(rate, "step") == said
    assert speed(3, "batch") == "3.0 batches/s"


def test_durations_never_say_sixty_minutes_of_an_hour():
    for seconds in range(0, 400_000, 7):
        text = duration(seconds)
        assert " 60 min" not in text
        assert " 24 h" not in text
