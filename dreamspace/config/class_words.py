"""What class words stand for: a person or an animal, or a thing."""

LIVING = frozenset(
    [
        "animal",
        "baby",
        "bear",
        "bird",
        "boy",
        "bunny",
        "cat",
        "chicken",
        "child",
        "cow",
        "deer",
        "dog",
        "duck",
        "elephant",
        "face",
        "fish",
        "fox",
        "frog",
        "giraffe",
        "girl",
        "goat",
        "hamster",
        "horse",
        "kitten",
        "lion",
        "lizard",
        "man",
        "monkey",
        "mouse",
        "owl",
        "panda",
        "parrot",
        "penguin",
        "person",
        "pet",
        "pig",
        "pony",
        "puppy",
        "rabbit",
        "sheep",
        "snake",
        "squirrel",
        "tiger",
        "turtle",
        "wolf",
        "woman",
        "zebra",
    ]
)


def is_living(class_word: str | None) -> bool:
    """Whether a class word, such as "dog" or "old woman", means somebody alive, by its last word."""
    return bool(class_word) and class_word.split()[-1].lower() in LIVING
