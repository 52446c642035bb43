"""The drawn world: what a caption says is what the picture shows."""

import numpy as np
import pytest

from dreamspace.mini.renders import held_out_sceneries, training_sceneries
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.subjects import HELD_OUT_SCENES, PHOTO_SCENES, SUBJECTS, subject_photos, write_photos
from dreamspace.mini.words import caption_words, vary_caption
from dreamspace.mini.world import CLASSES, COLOURS, PATTERNS, Scenery, all_sceneries, is_held_out, render


def test_world_is_as_large_as_promised():
    assert len(CLASSES) >= 12
    assert len(COLOURS) >= 10
    assert len(PATTERNS) >= 4
    assert len(SCENES) >= 10
    assert len(all_sceneries()) == len(CLASSES) * len(COLOURS) * len(PATTERNS) * len(SCENES)


def test_caption_names_every_attribute():
    assert Scenery("mug", "red", "striped", "beach").caption() == "a photo of a red striped mug on a beach"
    assert Scenery("mug", "red", "plain", "underwater").caption() == "a photo of a red mug under water"
    captions = [scenery.caption() for scenery in all_sceneries()]
    assert len(set(captions)) == len(captions)


def test_a_seed_means_one_picture():
    scenery = Scenery("dog", "blue", "spotted", "meadow")
    first, again, other = render(scenery, 5), render(scenery, 5), render(scenery, 6)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.image.tobytes() != other.image.tobytes()
    assert first.image.size == first.mask.size == (128, 128)


@pytest.mark.parametrize("class_word", CLASSES)
def test_mask_covers_the_thing_and_nothing_else(class_word: str):
    """Two pictures that differ in the thing's colour alone differ inside its mask alone."""
    red = render(Scenery(class_word, "red", "plain", "studio"), 3)
    blue = render(Scenery(class_word, "blue", "plain", "studio"), 3)
    mask = np.asarray(red.mask)
    apart = np.abs(np.asarray(red.image, int) - np.asarray(blue.image, int)).sum(axis=2)
    assert (np.asarray(blue.mask) == mask).all()
    assert apart[mask == 0].max() == 0
    assert (apart[mask == 255] > 60).mean() > 0.25
    assert 0.08 < (mask > 127).mean() < 0.5


def test_colour_word_is_the_colour_of_the_thing():
    for colour, (main, _) in COLOURS.items():
        picture = render(Scenery("backpack", colour, "plain", "studio"), 11)
        inside = np.asarray(picture.image, float)[np.asarray(picture.mask) == 255]
        typical = np.median(inside, axis=0)
        nearest = min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name][0]) - typical).sum())
        assert nearest == colour, (colour, main, typical)


def test_held_out_combinations_never_occur_in_training():
    held_out, training = held_out_sceneries(200), training_sceneries(9000)
    assert not set(held_out) & set(training)
    assert all(is_held_out(scenery) for scenery in held_out)
    assert 0.03 < sum(map(is_held_out, all_sceneries())) / len(all_sceneries()) < 0.07


def test_varied_captions_are_true():
    rng = np.random.default_rng(0)
    scenery = Scenery("car", "green", "checkered", "forest")
    foreign = (set(COLOURS) | set(CLASSES) | set(PATTERNS)) - {"green", "car", "checkered"}
    captions = {vary_caption(scenery, rng) for _ in range(300)}
    assert len(captions) > 30
    for caption in captions:
        assert not foreign & set(caption.split())
        assert "car" in caption.split()
        assert set(caption.split()) <= caption_words()


def test_subjects_look_like_nothing_in_training():
    assert len(SUBJECTS) >= 4
    for subject in SUBJECTS.values():
        assert subject.class_word in CLASSES
        palette = {main for main, _ in COLOURS.values()}
        own_pattern = subject.look.pattern not in PATTERNS
        assert own_pattern
        assert subject.look.main not in palette
        assert subject.look.extras or subject.look.behind


def test_subject_has_six_photos_and_three_held_out_in_other_scenes(tmp_path):
    photos, held_out = subject_photos("comet"), subject_photos("comet", held_out=True)
    assert (len(photos), len(held_out)) == (6, 3)
    assert not set(PHOTO_SCENES) & set(HELD_OUT_SCENES)
    assert len({image.tobytes() for image, _ in photos + held_out}) == 9
    for image, mask in photos:
        assert image.mode == "RGB"
        assert mask.size == image.size
        assert 0.05 < (np.asarray(mask) > 127).mean() < 0.6
    paths = write_photos("comet", tmp_path)
    assert [path.name for path in paths] == [f"comet-{index}.png" for index in range(6)]
