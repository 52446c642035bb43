"""A subject of the workspace: its photos, their captions and masks, and what was chosen for it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from dreamspace.config import instance_prompt
from dreamspace.data.captions import caption_file
from dreamspace.files import read_json, write_json
from dreamspace.jobs.secrecy import refuse_tokens

SUBJECT_FILE = "subject.json"


@dataclass(frozen=True)
class Subject:
    """Photos of one subject, and what was chosen for it.

    Attributes:
        sample: the name of the sample subject that the photos come from, else None.
        use_masks: whether it is trained with its masks.
        grow, feather: how the masks are shaped, as a share of the photo's shorter edge.
        invert: whether what the masks show is left out rather than learned.
    """

    dir: Path
    class_word: str = ""
    token: str = "sks"
    sample: str | None = None
    use_masks: bool = False
    grow: float = 0.0
    feather: float = 0.0
    invert: bool = False

    @classmethod
    def read(cls, subject_dir: Path) -> "Subject":
        """The subject of a folder; one without `subject.json` has no words yet."""
        path = subject_dir / SUBJECT_FILE
        return cls(subject_dir, **read_json(path)) if path.exists() else cls(subject_dir)

    def write(self) -> None:
        """Write `subject.json`; ValueError if a word is an access token, pasted into the wrong field."""
        refuse_tokens(f"{self.class_word}\n{self.token}", "The words for the subject")
        values = asdict(self)
        del values["dir"]
        write_json(self.dir / SUBJECT_FILE, values)

    @property
    def photos_dir(self) -> Path:
        """The folder of the imported photos."""
        return self.dir / "photos"

    @property
    def raw_masks_dir(self) -> Path:
        """The folder of the masks as they were found and painted, before they are shaped."""
        return self.dir / "masks_raw"

    @property
    def masks_dir(self) -> Path:
        """The folder of the shaped masks, which a run reads."""
        return self.dir / "masks"

    @property
    def photos(self) -> list[Path]:
        """The photos, oldest first."""
        return sorted(
            self.photos_dir.glob("[!.]*.png"), key=lambda path: (path.stat().st_mtime_ns, path.name)
        )

    def photo(self, photo_id: str) -> Path | None:
        """The photo of an id that a browser sent; None for an unknown one."""
        return next((path for path in self.photos if path.stem == photo_id), None)

    @property
    def prompt(self) -> str:
        """What every photo is called that has no caption of its own; "" before there is a class word."""
        return instance_prompt(self.token, self.class_word) if self.class_word else ""

    def captions(self) -> dict[str, str]:
        """The photos' own captions, by the photos' ids."""
        return {name: text for name, text in self.written_captions().items() if text != self.prompt}

    def written_captions(self) -> dict[str, str]:
        """What the photos' caption files say, by the photos' ids."""
        files = {photo.stem: caption_file(photo) for photo in self.photos}
        texts = {name: file.read_text("utf-8", "replace").strip() for name, file in files.items() if file}
        return {name: text for name, text in texts.items() if text}

    def raw_mask(self, photo: Path) -> Path | None:
        """The raw mask of a photo; None where there is none yet."""
        path = self.raw_masks_dir / f"{photo.stem}.png"
        return path if path.exists() else None

    def unmasked(self) -> list[int]:
        """The numbers, from 1, of the photos that have no mask yet."""
        return [number for number, photo in enumerate(self.photos, 1) if self.raw_mask(photo) is None]
