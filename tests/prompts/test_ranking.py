"""The order of candidates, and the reason of each."""

import pytest

from dreamspace.prompts.candidates import Spelling
from dreamspace.prompts.evidence import Evidence
from dreamspace.prompts.likeness import Difference, Look
from dreamspace.prompts.ranking import Candidate, by_evidence, by_pictures
from dreamspace.prompts.results import tokens_advice, tokens_table


def candidate(
    word: str, *, apart: float, known: bool = False, similarity: float = 0.5, look: tuple | None = None
) -> Candidate:
    evidence = Evidence(7, 1.0, apart, apart, ("red",), known)
    spelled = Spelling(word, {"tokenizer": [f"{word}</w>"]}, is_one=True, is_short=True, is_listed=False)
    seen = None if look is None else Look(Difference(look[0], look[1]), Difference(0.0, 0.0))
    return Candidate(spelled, {"text_encoder": evidence}, {"text_encoder": similarity}, seen)


def words(found: list[Candidate]) -> list[str]:
    return [entry.word for entry in found]


def test_untaught_tokens_that_lie_close_and_change_little_come_first() -> None:
    far, near, taught = (
        candidate("a", apart=0.9),
        candidate("b", apart=0.1),
        candidate("c", apart=0, known=True),
    )
    assert words(by_evidence([far, taught, near])) == ["b", "a", "c"]
    loud, quiet = candidate("d", apart=0.5, similarity=-0.5), candidate("d", apart=0.5, similarity=0.9)
    assert by_evidence([loud, quiet])[0] is quiet
    assert by_evidence([]) == []


def test_drawn_tokens_come_first_the_most_like_the_class_before_others() -> None:
    found = [
        candidate("a", apart=0.1),
        candidate("b", apart=0.1, look=(0.5, 6.0)),
        candidate("c", apart=0.1, look=(0.2, 1.0)),
        candidate("d", apart=0.1, look=(0.1, 0.5)),
    ]
    assert words(by_pictures(found)) == ["d", "c", "b", "a"]
    assert [entry.has_meaning for entry in by_pictures(found)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (candidate("a", apart=0.1, known=True), "taught to the encoder, near red"),
        (candidate("a", apart=0.1, look=(0.4, 5.5)), "the model draws something else than the class"),
        (candidate("a", apart=0.1, look=(0.0, 0.1)), "drawn as the class is; id 7, lies among untrained"),
    ],
)  # fmt: skip
def test_reason_names_the_strongest_evidence(entry: Candidate, words: str) -> None:
    assert entry.reason().startswith(words)


def test_table_ends_with_what_to_take() -> None:
    def row(word: str, drift: float | None, *, has_meaning: bool) -> dict:
        look = None if drift is None else {"drift": {"mean": drift}, "agreement": {"mean": 0.0}}
        values = {"is_one_piece": True, "is_checked": False, "reason": "why"}
        return {"word": word, "look": look, "has_meaning": has_meaning} | values

    report = {"class_word": "dog", "tokens": [row("sks", None, has_meaning=False)]}
    assert "text encoders say alone" in tokens_advice(report)
    report["tokens"] = [row("sks", 0.5, has_meaning=True), row("zwx", 0.1, has_meaning=False)]
    assert tokens_advice(report) == "Drawn like the plain class: zwx. Take one of these."
    assert tokens_table(report).splitlines()[1:3] == [
        "sks    yes      0.50   0.00   why",
        "zwx    no       0.10   0.00   why",
    ]
    report["tokens"].pop()
    assert "give dog a look of its own" in tokens_advice(report)
