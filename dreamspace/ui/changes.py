"""What a visitor changes about a subject. What a run learns from never changes: it is copied first."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dreamspace.data.captions import caption_file, write_caption
from dreamspace.data.photos import ImportReport, import_photos
from dreamspace.jobs.secrecy import refuse_tokens
from dreamspace.jobs.workspace import Workspace
from dreamspace.mini.subjects import SUBJECTS, write_photos
from dreamspace.ui.library import is_learned_from
from dreamspace.ui.subject import Subject


def add_photos(
    workspace: Workspace,
    subject_dir: Path | None,
    paths: list[Path],
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path | None, ImportReport]:
    """Import uploaded photos into a subject, a new one where there is none or a run depends on its photos.

    Args:
        on_progress: see `import_photos`.

    Returns:
        The subject's folder, a new one only if a photo came in; and what became of each file.
    """
    if subject_dir is not None and not is_learned_from(workspace, subject_dir):
        return subject_dir, import_photos(paths, subject_dir / "photos", on_progress=on_progress)
    # In a folder that no list shows, until it is known whether anything comes of it.
    with TemporaryDirectory(dir=workspace.cache) as folder:
        draft = Path(folder) / "subject"
        if subject_dir is not None:
            shutil.copytree(subject_dir, draft)
        num_before = len(Subject(draft).photos)
        report = import_photos(paths, draft / "photos", on_progress=on_progress)
        if len(Subject(draft).photos) == num_before:
            return subject_dir, report
        target = workspace.new_subject_dir(Subject.read(draft).class_word or "subject")
        os.replace(draft, target)
    return target, report


def choose_sample(workspace: Workspace, name: str) -> Path:
    """The folder of a sample subject with its six photos, made when it is chosen first.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in SUBJECTS:
        raise ValueError(f"There is no sample subject '{name}'. Choose one of: {', '.join(SUBJECTS)}.")
    for folder in workspace.list_subjects():
        subject = Subject.read(folder)
        if subject.sample == name and len(subject.photos) == 6:
            return folder
    target = workspace.new_subject_dir(name)
    with TemporaryDirectory(dir=workspace.cache) as folder:
        import_photos(write_photos(name, Path(folder)), target / "photos")
    Subject(target, class_word=SUBJECTS[name].class_word, sample=name).write()
    return target


def editable(workspace: Workspace, subject: Subject) -> Subject:
    """The subject itself, or a copy of it where a run learns from it."""
    if not is_learned_from(workspace, subject.dir):
        return subject
    target = workspace.new_subject_dir(subject.class_word or "subject")
    shutil.copytree(subject.dir, target, dirs_exist_ok=True)
    return replace(subject, dir=target)


def remove_photo(workspace: Workspace, subject: Subject, photo_id: str) -> Subject:
    """Remove a photo with its caption and mask; an unknown one changes nothing."""
    chosen = subject.photo(photo_id)
    if chosen is None:
        return subject
    subject = editable(workspace, subject)
    photo = subject.photos_dir / chosen.name
    for file in (caption_file(photo), subject.raw_masks_dir / chosen.name, subject.masks_dir / chosen.name):
        if file is not None:
            file.unlink(missing_ok=True)
    photo.unlink(missing_ok=True)
    return subject


def caption_photo(workspace: Workspace, subject: Subject, photo_id: str, caption: str) -> Subject:
    """Give a photo a caption of its own, or take it away with an empty one; the others stay as they are.

    Raises:
        ValueError: if it is too long, or holds an access token.
    """
    caption = caption.strip()
    if subject.photo(photo_id) is None or caption == subject.captions().get(photo_id, ""):
        return subject
    refuse_tokens(caption, "The words of the caption")
    subject = editable(workspace, subject)
    photo = subject.photo(photo_id)
    file = caption_file(photo)
    if caption:
        write_caption(photo, caption)
    elif file is not None:
        file.unlink()
    return subject


def rename(workspace: Workspace, subject: Subject, class_word: str, token: str) -> Subject:
    """Call the subject by other words, in the captions that hold the old ones too.

    Raises:
        ValueError: if a word is an access token.
    """
    if (class_word, token) == (subject.class_word, subject.token):
        return subject
    old = subject.prompt
    captions = subject.written_captions() if old else {}
    outdated = {name: text for name, text in captions.items() if old in text}
    renamed = replace(subject, class_word=class_word, token=token)
    if outdated:
        renamed = replace(renamed, dir=editable(workspace, subject).dir)
    renamed.write()
    for photo_id, caption in outdated.items():
        write_caption(renamed.photo(photo_id), caption.replace(old, renamed.prompt))
    return renamed


def choose_for(subject: Subject, **choices: Any) -> Subject:
    """The subject with other choices, such as `use_masks=True`, written down."""
    chosen = replace(subject, **choices)
    if chosen != subject:
        chosen.write()
    return chosen
