"""Every lesson, offline: doctests pass, claims hold, exercises have the answer that they state."""

from pathlib import Path

import pytest

from lessons.story import doctest_failures, lessons, load


@pytest.mark.weights
@pytest.mark.parametrize("path", lessons(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_lesson(path: Path) -> None:
    lesson = load(path)
    assert doctest_failures(lesson) == 0
    broken = {name: str(claim) for name, claim in lesson.run().items() if not claim.holds}
    assert not broken
    for exercise in lesson.EXERCISES:
        assert exercise.solve() == exercise.answer, exercise.ask
