"""What class words stand for: a person or an animal, or a thing."""

PEOPLE = frozenset(
    (
        *("person", "man", "woman", "boy", "girl", "child", "baby", "face", "guy", "lady", "actor"),
        *("actress", "singer", "human"),
    )
)

ANIMALS = frozenset(
    (
        *("animal", "bear", "bird", "bunny", "cat", "chicken", "cow", "deer", "dog", "duck"),
        *("elephant", "fish", "fox", "frog", "giraffe", "goat", "hamster", "horse", "kitten"),
        *("lion", "lizard", "monkey", "mouse", "owl", "panda", "parrot", "penguin", "pet", "pig"),
        *("pony", "puppy", "rabbit", "sheep", "snake", "squirrel", "tiger", "turtle", "wolf"),
        "zebra",
    )
)


def is_person(class_word: str) -> bool:
    """Whether a class word means a person, who has a name."""
    return class_word.lower() in PEOPLE


def is_living(class_word: str | None) -> bool:
    """Whether a class word, such as "dog" or "old woman", means somebody alive, by its last word."""
    return bool(class_word) and class_word.split()[-1].lower() in PEOPLE | ANIMALS
