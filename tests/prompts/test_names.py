"""Names and looks, how pictures are compared, and what is advised."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamspace.prompts.advice import Found, advice, in_order
from dreamspace.prompts.likeness import among_themselves, difference, likeness, look_of
from dreamspace.prompts.names import Name, bundled_names, names_to_rank, read_names


def unit(rows: list[list[float]]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def test_people_get_names_and_all_else_looks() -> None:
    people = bundled_names("Woman")
    assert len(people) >= 60
    assert "Marie Curie" in people
    assert people == sorted(people)
    dogs = bundled_names("puppy")
    assert {"beagle", "brown", "spotted", "brown spotted", "plush"} < set(dogs)
    assert "beagle" not in bundled_names("zeppelin")
    assert "red striped" in bundled_names("zeppelin")
    prompts = [name.prompt for name in names_to_rank(["", "Marie Curie"], "woman", "Anna Example")]
    assert prompts == ["a photo of Anna Example", "a photo of a woman", "a photo of Marie Curie"]
    assert names_to_rank(["beagle"], "dog", None)[0].prompt == "a photo of a beagle dog"


def test_list_of_names_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("  Ada   Lovelace\n\nJosé\nAda Lovelace\n", encoding="utf-8")
    assert read_names(path) == ["Ada Lovelace", "José"]
    path.write_text("x" * 101)
    with pytest.raises(ValueError, match="101 characters, and a name has at most 100"):
        read_names(path)
    path.write_text("\n".join(map(str, range(2001))))
    with pytest.raises(ValueError, match=r"There are 2001 names in .*, and the limit is 2000"):
        read_names(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        read_names(path)


def test_difference_is_welchs_t() -> None:
    first, second = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.5, 1.0, 1.5])
    found = difference(first, second)
    assert found.mean == pytest.approx(1.25)
    assert found.t == pytest.approx(1.25 / (1 / 3 + (5 / 12) / 4) ** 0.5)
    assert found.is_clear == (found.t > 2)
    assert difference(first, first).t == 0


def test_look_is_what_a_words_pictures_have_beyond_the_class() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = [torch.nn.functional.normalize(torch.randn(6, 16, generator=generator), dim=1) for _ in range(2)]
    apart = torch.zeros(16)
    apart[0] = 3
    alike = torch.nn.functional.normalize(0.1 * torch.randn(6, 16, generator=generator) + apart, dim=1)
    assert not look_of(wide[0], wide[0]).is_clear
    assert not look_of(wide[1], wide[0]).is_clear
    assert look_of(alike, wide[0]).agreement.is_clear
    class_pictures = torch.nn.functional.normalize(torch.randn(6, 16, generator=generator) - apart, dim=1)
    assert look_of(wide[0], class_pictures).drift.is_clear


def test_likeness_is_the_mean_cosine_with_the_photos() -> None:
    photos = unit([[1.0, 0.0], [0.0, 1.0]])
    assert likeness(unit([[1.0, 0.0], [1.0, 1.0]]), photos).tolist() == pytest.approx([0.5, 0.5**0.5])
    assert among_themselves(photos) == 0
    assert among_themselves(photos[:1]) is None


def found(text: str, clip: float, alike: list[float] | None = None, *, is_own: bool = False) -> Found:
    return Found(
        Name(text, f"a photo of {text}", is_own), clip, None if alike is None else torch.tensor(alike)
    )


CLASS = found("", 0.2, [0.30, 0.32, 0.34, 0.31])
NEAR = found("Ada", 0.3, [0.60, 0.62, 0.61, 0.63])


@pytest.mark.parametrize(
    ("others", "chosen", "words"),
    [
        ([found("Ada", 0.3), found("Eve", 0.1)], "Ada", "Nearest to the photos by CLIP: Ada"),
        ([found("Eve", 0.1)], None, "No name is nearer to the photos than 'woman' alone"),
        ([NEAR, found("Me", 0.1, [0.70, 0.72, 0.71, 0.7], is_own=True)], "Me", "under its own name already"),
        ([NEAR, found("Me", 0.4, [0.61, 0.6, 0.62, 0.6], is_own=True)], "Me", "under its own name already"),
        ([NEAR, found("Me", 0.4, [0.3, 0.31, 0.33, 0.3], is_own=True)], "Ada", "Under Me the model"),
        ([NEAR, found("Me", 0.4, [0.5, 0.5, 0.51, 0.5], is_own=True)], "Ada", "Under Me the model"),
        ([found("Ada", 0.3, [0.3, 0.33, 0.31, 0.32])], None, "No name that was drawn comes nearer"),
        ([found("Me", 0.3, [0.3, 0.33, 0.31, 0.32], is_own=True)], None, "Under Me the model draws somebody"),
    ],
)  # fmt: skip
def test_advice(others: list[Found], chosen: str | None, words: str) -> None:
    of_class = CLASS if others[0].likeness is not None else found("", 0.2)
    name, why = advice(in_order([*others, of_class]), "woman")
    assert name == chosen
    assert words in why


def test_drawn_names_stand_before_others_and_each_says_why() -> None:
    ordered = in_order([found("Eve", 0.9), found("Zoe", 0.95), CLASS, NEAR])
    assert [entry.name.text for entry in ordered] == ["Ada", "", "Zoe", "Eve"]
    reasons = [entry.reason(CLASS) for entry in ordered]
    assert reasons[0].startswith("its pictures resemble the photos more than the class's do")
    assert reasons[1:3] == ["the class word alone", "nearer than the class alone"]
