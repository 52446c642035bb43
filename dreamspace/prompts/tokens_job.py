"""The `tokens` job: words that mean nothing to a model yet, with evidence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dreamspace.config import class_prompt, instance_prompt
from dreamspace.evaluation.clip import clip_of
from dreamspace.files import write_json
from dreamspace.jobs.control import consume_control
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.prompts.candidates import Spelling, candidates, deciding, spelling
from dreamspace.prompts.drawing import base_model, draw_each, opened
from dreamspace.prompts.evidence import embedding_evidence, self_similarity
from dreamspace.prompts.likeness import look_of
from dreamspace.prompts.pieces import PromptTokenizer, tokenizers_of
from dreamspace.prompts.ranking import Candidate, by_evidence, by_pictures
from dreamspace.prompts.results import TOKENS_NAME, TOKENS_SHEET_NAME
from dreamspace.prompts.sheet import write_sheet

NUM_PROBED = 8
_SHORTLIST = 5
"""Times the count that is asked for: so many are put through the encoders."""


def tokens(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Rank rare tokens by evidence into `tokens.json`; with `probe`, also by the base model's pictures.

    Args:
        arguments: `model`, `count`, `check` (list of words to judge besides), `class_word`, `probe` (bool),
            `clip` (what compares pictures; null takes the model's own or the usual one).

    Raises:
        ValueError: if there is no such model, or none of its tokens would do.
    """
    class_word, count = arguments["class_word"], arguments["count"]
    model = base_model(arguments["model"], job_dir)
    clip = clip_of(model.folder, arguments["clip"], model.device) if arguments["probe"] else None
    tokenizers = tokenizers_of(str(model.folder))
    events.write("stage", name="reading", message="Reading the vocabulary.")
    found = candidates(tokenizers)
    checked = [spelling(word, tokenizers) for word in dict.fromkeys(arguments["check"])]
    events.write("stage", name="encoding", message=f"Asking the text encoders of {len(found)} candidates.")
    ranked, named = _by_encoders(model, tokenizers, found, checked, class_word, count)
    report = _Report(job_dir, arguments["model"], class_word, len(found))
    report.write(ranked, named, {})
    if clip is not None:
        chosen = [*ranked[:NUM_PROBED], *(entry for entry in named if entry.spelling.is_one)]
        prompts = {entry.word: instance_prompt(entry.word, class_word) for entry in chosen}
        drawn = draw_each(model, [class_prompt(class_word), *prompts.values()], job_dir, events)
        if drawn is None:
            consume_control(job_dir, "stop")
            events.write("stopped", path=TOKENS_NAME)
            return
        embedded = {prompt: clip.embed_pictures(opened(job_dir, paths)) for prompt, paths in drawn.items()}
        usual = embedded[class_prompt(class_word)]
        looks = {word: look_of(embedded[prompt], usual) for word, prompt in prompts.items()}
        ranked = by_pictures([replace(entry, look=looks.get(entry.word)) for entry in ranked])
        named = [replace(entry, look=looks.get(entry.word)) for entry in named]
        pictures = {word: drawn[prompt] for word, prompt in prompts.items()}
        report.write(ranked, named, pictures | {"": drawn[class_prompt(class_word)]})
    events.write("done", path=TOKENS_NAME)


@dataclass(frozen=True)
class _Report:
    """Writes `tokens.json`, and the contact sheet where there are pictures."""

    job_dir: Path
    model: str
    class_word: str
    num_candidates: int

    def write(
        self, ranked: Sequence[Candidate], named: Sequence[Candidate], pictures: dict[str, list[Path]]
    ) -> None:
        """Write both.

        Args:
            pictures: by word; "" has those of the class.
        """
        entries = [*ranked, *named]
        if pictures:
            rows = [(self.class_word, "the class alone", opened(self.job_dir, pictures[""]))]
            rows += [
                (
                    f"{entry.word} {self.class_word}",
                    entry.reason(),
                    opened(self.job_dir, pictures[entry.word]),
                )
                for entry in entries
                if entry.word in pictures
            ]
            write_sheet(rows, self.job_dir / TOKENS_SHEET_NAME)
        write_json(
            self.job_dir / TOKENS_NAME,
            {
                "model": self.model,
                "class_word": self.class_word,
                "num_candidates": self.num_candidates,
                "class_pictures": [str(path) for path in pictures.get("", [])],
                "tokens": [_row(entry, pictures) for entry in entries],
            },
        )


def _by_encoders(
    model: BaseModel,
    tokenizers: Sequence[PromptTokenizer],
    found: Sequence[Spelling],
    checked: Sequence[Spelling],
    class_word: str,
    count: int,
) -> tuple[list[Candidate], list[Candidate]]:
    """The best candidates in their order, and the words that were asked for."""
    text = model.load_text_encoders()
    asked = {tokenizer.encoder_part: tokenizer for tokenizer in deciding(tokenizers)}

    def embedded(spelled: Sequence[Spelling], is_checked: bool) -> list[Candidate]:
        evidence: list[dict[str, Any]] = [{} for _ in spelled]
        single = [index for index, entry in enumerate(spelled) if entry.is_one]
        for part, tokenizer in asked.items():
            weight = text.components[part].get_input_embeddings().weight
            ids = [tokenizer.vocabulary[tokenizer.word_pieces(spelled[index].word)[0]] for index in single]
            for index, entry in zip(single, embedding_evidence(weight, tokenizer, ids), strict=True):
                evidence[index][part] = entry
        pairs = zip(spelled, evidence, strict=True)
        return [Candidate(entry, known, {}, is_checked=is_checked) for entry, known in pairs]

    def encoded(entries: Sequence[Candidate]) -> list[Candidate]:
        words = [entry.word for entry in entries if entry.spelling.is_one]
        columns = {
            part: dict(
                zip(words, self_similarity(text.components[part], tokenizer, words, class_word), strict=True)
            )
            for part, tokenizer in asked.items()
        }
        return [
            replace(
                entry,
                self_similarity={
                    part: column[entry.word] for part, column in columns.items() if entry.word in column
                },
            )
            for entry in entries
        ]

    shortlist = by_evidence(embedded(found, False))[: _SHORTLIST * count]
    return by_evidence(encoded(shortlist))[:count], encoded(embedded(checked, True))


def _row(entry: Candidate, pictures: dict[str, list[Path]]) -> dict[str, Any]:
    """A candidate as `tokens.json` holds it."""
    return {
        "word": entry.word,
        "has_meaning": entry.has_meaning,
        "reason": entry.reason(),
        "is_checked": entry.is_checked,
        "is_one_piece": entry.spelling.is_one,
        "is_listed": entry.spelling.is_listed,
        "pieces": entry.spelling.pieces,
        "encoders": {
            part: asdict(found) | {"self_similarity": entry.self_similarity.get(part)}
            for part, found in entry.evidence.items()
        },
        "look": None if entry.look is None else asdict(entry.look),
        "pictures": [str(path) for path in pictures.get(entry.word, [])],
    }
