"""Photos in: every kind of file becomes upright RGB without metadata, or a sentence that says why not."""

import errno
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageDraw

from dreamspace.data import photos
from dreamspace.data.photos import (
    MAX_PHOTOS,
    PhotoError,
    Refused,
    import_photos,
    list_photos,
    photo_id,
    photo_size,
    read_photo,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Red above, blue below, green at the left edge: every turn and flip of it looks different."""
    image = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height // 2, width, height), fill=BLUE)
    draw.rectangle((0, 0, width // 4, height), fill=GREEN)
    return image


def coloured(number: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (number, 255 - number, number // 2))


def assert_close(image: Image.Image, expected: Image.Image, tolerance: int = 4) -> None:
    assert image.mode == "RGB"
    assert image.size == expected.size
    for position in [
        (2, 2),
        (image.width - 3, 2),
        (2, image.height - 3),
        (image.width - 3, image.height - 3),
    ]:
        difference = max(
            abs(a - b) for a, b in zip(image.getpixel(position), expected.getpixel(position), strict=True)
        )
        assert difference <= tolerance, (position, image.getpixel(position), expected.getpixel(position))


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    message = str(caught.value)
    assert message.startswith(f"{path.name}: ")
    assert str(path.parent) not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic"])
def test_every_format_is_read_with_its_colours(tmp_path: Path, suffix: str) -> None:
    pillow_heif.register_heif_opener()
    path = tmp_path / f"photo{suffix}"
    options = {"subsampling": 0} if suffix == ".jpg" else {}
    picture().save(path, quality=100, **options)
    image, notes = read_photo(path)
    assert_close(image, picture(), tolerance=12)
    assert notes == []


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(
    ("orientation", "back"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_turn_is_applied_once(
    tmp_path: Path, suffix: str, orientation: int, back: Image.Transpose
) -> None:
    path = tmp_path / f"photo{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().transpose(back).save(path, exif=exif, **({"quality": 100} if suffix != ".png" else {}))
    assert_close(read_photo(path)[0], picture(), tolerance=12)
    assert photo_size(path) == picture().size


def test_heic_turn_is_applied_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "p.heic", exif=exif.tobytes(), quality=100)
    assert_close(read_photo(tmp_path / "p.heic")[0], picture(), tolerance=12)
    assert photo_size(tmp_path / "p.heic") == picture().size


def test_nothing_of_the_metadata_survives(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[2] = (52.0, 30.0, 0.0)  # GPS latitude
    exif.get_ifd(0x8825)[29] = "2024:01:01"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = tmp_path / "gps.jpg"
    picture().save(source, exif=exif, icc_profile=profile, comment=b"SecretComment", dpi=(72, 72))
    assert dict(Image.open(source).getexif().get_ifd(0x8825)), "the fixture carries GPS data"

    image, _ = read_photo(source)
    assert image.info == {}
    assert dict(image.getexif()) == {}
    report = import_photos([source], tmp_path / "out")
    written = Image.open(report.accepted[0].path)
    written.load()
    assert written.info == {}
    assert b"Secret" not in report.accepted[0].path.read_bytes()


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 4, 8))
    for mode in ("RGBA", "LA"):
        path = tmp_path / f"{mode}.png"
        clear.convert(mode).save(path)
        image, _ = read_photo(path)
        assert image.getpixel((7, 4)) == WHITE, mode
        assert image.getpixel((1, 4)) == clear.convert(mode).convert("RGB").getpixel((1, 4)), mode
    half = tmp_path / "half.webp"
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(half, lossless=True)
    assert read_photo(half)[0].getpixel((4, 4)) == (127, 127, 127)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency_is_laid_over_white(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*BLUE, *RED])
    image.paste(1, (4, 0, 8, 8))
    image.save(tmp_path / "palette.png", transparency=transparency)
    result, _ = read_photo(tmp_path / "palette.png")
    assert result.getpixel((0, 0)) == BLUE
    assert result.getpixel((7, 0)) == WHITE


def test_palette_black_and_white_and_grey_become_rgb(tmp_path: Path) -> None:
    picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(tmp_path / "p.png")
    assert_close(read_photo(tmp_path / "p.png")[0], picture(), tolerance=12)
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.tif")
    assert read_photo(tmp_path / "bits.tif")[0].getpixel((3, 3)) == WHITE
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.jpg", quality=100)
    assert read_photo(tmp_path / "grey.jpg")[0].getpixel((3, 3)) == (77, 77, 77)


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    picture().convert("CMYK").save(tmp_path / "press.jpg", quality=100, subsampling=0)
    assert_close(read_photo(tmp_path / "press.jpg")[0], picture(), tolerance=12)


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".png", "I;16"), (".tif", "I;16"), (".tif", "I;16B"), (".tif", "I")]
)
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str, mode: str) -> None:
    values = [0, 257, 0x4040, 0x8080, 0xFFFF]
    if mode == "I":
        image = Image.new("I", (5, 1))
        image.putdata(values)
    else:
        image = Image.frombytes(mode, (5, 1), struct.pack((">" if mode == "I;16B" else "<") + "5H", *values))
    image.save(tmp_path / f"deep{suffix}")
    result, _ = read_photo(tmp_path / f"deep{suffix}")
    assert [result.getpixel((x, 0)) for x in range(5)] == [(v, v, v) for v in (0, 1, 64, 128, 255)]


def test_float_grey_is_scaled(tmp_path: Path) -> None:
    image = Image.new("F", (2, 1))
    image.putdata([0.5, 1.0])
    image.save(tmp_path / "float.tif")
    assert read_photo(tmp_path / "float.tif")[0].getpixel((0, 0)) == (128, 128, 128)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, content) for kind, content in chunks)


def test_16_bit_rgb_png_keeps_its_high_bytes(tmp_path: Path) -> None:
    row = b"\x00" + struct.pack(">6H", 0xFFFF, 0x8080, 0x0101, 0x0000, 0x4040, 0xC0C0)
    (tmp_path / "deep.png").write_bytes(png(2, 1, 16, 2, row))
    image, _ = read_photo(tmp_path / "deep.png")
    assert image.getpixel((0, 0)) == (255, 128, 1)
    assert image.getpixel((1, 0)) == (0, 64, 192)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_first_frame_of_an_animation_is_taken_with_a_warning(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving{suffix}"
    others = [Image.new("RGB", (8, 8), BLUE), Image.new("RGB", (8, 8), GREEN)]
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.new("RGB", (8, 8), RED).save(path, save_all=True, append_images=others, **lossless)
    image, notes = read_photo(path)
    assert image.getpixel((4, 4)) == RED
    assert notes == [f"moving{suffix} holds 3 frames; only the first is used."]


def test_phone_jpeg_with_a_second_picture_is_no_animation(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    picture().save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=100)
    assert Image.open(path).format == "MPO"
    image, notes = read_photo(path)
    assert_close(image, picture(), tolerance=12)
    assert notes == []


def test_embedded_colour_profile_is_applied(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile whose red and blue primaries are swapped, under another name than sRGB.
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    Image.new("RGB", (8, 8), RED).save(tmp_path / "swapped.png", icc_profile=swapped)
    Image.new("RGB", (8, 8), RED).save(tmp_path / "srgb.png", icc_profile=srgb)
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png", icc_profile=swapped)
    Image.new("RGB", (8, 8), RED).save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert_close(read_photo(tmp_path / "swapped.png")[0], Image.new("RGB", (8, 8), BLUE))
    assert read_photo(tmp_path / "srgb.png")[0].getpixel((4, 4)) == RED
    assert read_photo(tmp_path / "grey.png")[0].getpixel((4, 4)) == (90, 90, 90)
    image, notes = read_photo(tmp_path / "broken.png")
    assert image.getpixel((4, 4)) == RED
    assert len(notes) == 1
    assert "colour profile" in notes[0]


def test_broken_exif_costs_a_warning_not_the_photo(tmp_path: Path) -> None:
    picture().save(tmp_path / "odd.jpg", quality=100, subsampling=0, exif=b"Exif\x00\x00garbage garbage")
    image, notes = read_photo(tmp_path / "odd.jpg")
    assert_close(image, picture(), tolerance=12)
    assert all("EXIF" in note for note in notes)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_cut_off_file_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    whole = io.BytesIO()
    noise.save(
        whole, format={".jpg": "JPEG", ".tif": "TIFF", ".heic": "HEIF"}.get(suffix, suffix[1:].upper())
    )
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * kept)])
    assert_refused(path, "damaged")


def test_files_that_are_no_photos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("this is a text, not an image")
    assert_refused(tmp_path / "text.png", "not a JPEG, PNG, WebP, AVIF, TIFF, HEIC, GIF or BMP image")
    Image.new("RGB", (8, 8)).save(tmp_path / "icon.tga")
    (tmp_path / "icon.tga").rename(tmp_path / "icon.png")
    assert_refused(tmp_path / "icon.png", "not a JPEG, PNG, WebP, AVIF, TIFF, HEIC, GIF or BMP image")
    (tmp_path / "empty.jpg").touch()
    assert_refused(tmp_path / "empty.jpg", "empty")
    (tmp_path / "folder.jpg").mkdir()
    assert_refused(tmp_path / "folder.jpg", "not a file")
    assert_refused(tmp_path / "missing.jpg", "no such file")


@pytest.mark.parametrize(
    ("edge", "size"), [(6500, "6500 x 6500 px"), (13000, "13000 x 13000 px"), (60000, "megapixels")]
)
def test_huge_image_is_refused_by_its_header_without_warnings(tmp_path: Path, edge: int, size: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(edge, edge, 1, 0, b""))  # no pixels: decoding it would fail otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_refused(path, size, "40 megapixels")


def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (b"\x00" + bytes(13000 // 8)) * 13000
    path = tmp_path / "bomb.png"
    path.write_bytes(png(13000, 13000, 1, 0, rows))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("the bomb was decoded"))
    assert_refused(path, "13000 x 13000 px")


def test_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(50_000_001)
    assert_refused(path, "50.0 MB", "limit is 50 MB")


def test_photo_id_is_the_content_with_its_shape() -> None:
    assert photo_id(picture()) == photo_id(picture())
    assert len(photo_id(picture())) == 16
    assert int(photo_id(picture()), 16) >= 0
    assert photo_id(Image.new("RGB", (4, 2))) != photo_id(Image.new("RGB", (2, 4)))
    assert photo_id(coloured(1)) != photo_id(coloured(2))


def test_list_photos_is_sorted_and_leaves_out_what_is_no_photo(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", ".hidden.jpg", "notes.txt", "c.HEIC"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_photos(tmp_path)] == ["a.jpeg", "b.PNG", "c.HEIC"]


def test_list_photos_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file.png").touch()
    (tmp_path / "empty").mkdir()
    for name, words in [("missing", "no folder"), ("file.png", "not a folder"), ("empty", "holds no photo")]:
        with pytest.raises(ValueError, match=words):
            list_photos(tmp_path / name)


def test_list_photos_of_a_folder_without_rights(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        if os.access(closed, os.R_OK):
            pytest.skip("this user may read every folder (root)")
        with pytest.raises(ValueError, match="may not be read"):
            list_photos(closed)
    finally:
        closed.chmod(0o700)


def test_list_photos_turns_a_refusal_of_the_system_into_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ValueError, match=r"may not be read\. Change its permissions"):
        list_photos(tmp_path)


def test_import_keeps_the_good_ones_and_names_each_bad_one(tmp_path: Path) -> None:
    coloured(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("text")
    coloured(3).save(tmp_path / "c.webp", lossless=True)
    seen = []
    report = import_photos(
        [tmp_path / name for name in ("a.png", "b.png", "c.webp", "d.png")],
        tmp_path / "out",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert [photo.path.name for photo in report.accepted] == [
        f"{photo_id(coloured(1))}.png",
        f"{photo_id(coloured(3))}.png",
    ]
    assert [refused.name for refused in report.refused] == ["b.png", "d.png"]
    assert all(refused.reason and refused.name not in refused.reason for refused in report.refused)
    assert seen == [(done, 4) for done in range(5)]
    for photo in report.accepted:
        written = Image.open(photo.path)
        assert written.size == (photo.width_px, photo.height_px) == (8, 8)
        assert photo_id(written) == photo.id
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        photo.path.name for photo in report.accepted
    ), "no temporary file stays"


def test_same_photo_twice_is_one_photo_and_said(tmp_path: Path) -> None:
    coloured(1).save(tmp_path / "a.png")
    coloured(1).save(tmp_path / "b.webp", lossless=True)
    first = import_photos([tmp_path / "a.png", tmp_path / "b.webp"], tmp_path / "out")
    assert len(first.accepted) == 1
    assert first.refused == []
    assert first.warnings == ["b.webp is the same photo as a.png; it counts once."]
    before = first.accepted[0].path.stat().st_mtime_ns
    again = import_photos([tmp_path / "a.png"], tmp_path / "out")
    assert again.accepted == first.accepted
    assert again.warnings == ["a.png is the same photo as a photo that is here already; it counts once."]
    assert first.accepted[0].path.stat().st_mtime_ns == before


def test_limit_counts_the_photos_that_are_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "MAX_PHOTOS", 3)
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        coloured(number).save(paths[-1])
    assert len(import_photos(paths[:2], tmp_path / "out").accepted) == 2
    report = import_photos(paths, tmp_path / "out")
    assert [photo.id for photo in report.accepted] == [photo_id(coloured(number)) for number in range(3)]
    assert report.refused == [
        Refused("3.png", "the limit of 3 photos is reached. Leave others out to make room.")
    ]
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_default_limit_holds(tmp_path: Path) -> None:
    paths = []
    for number in range(MAX_PHOTOS + 2):
        paths.append(tmp_path / f"{number:03}.png")
        coloured(number).save(paths[-1])
    report = import_photos(paths, tmp_path / "out")
    assert len(report.accepted) == MAX_PHOTOS == 200
    assert [refused.name for refused in report.refused] == ["200.png", "201.png"]


def test_full_disk_is_a_sentence_and_costs_only_what_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        coloured(number).save(tmp_path / f"{number}.png")
    save = Image.Image.save

    def save_first_only(image: Image.Image, path: Path, **options: object) -> None:
        if photo_id(image) != photo_id(coloured(0)):
            Path(path).write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", save_first_only)
    report = import_photos([tmp_path / "0.png", tmp_path / "1.png"], tmp_path / "out")
    assert [photo.id for photo in report.accepted] == [photo_id(coloured(0))]
    assert report.refused == [Refused("1.png", "the disk is full. Free some space and add this photo again.")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{photo_id(coloured(0))}.png"]


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    coloured(1).save(tmp_path / "a.png")
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="cannot be written to"):
        import_photos([tmp_path / "a.png"], tmp_path / "out")


def test_suffixes_are_lower_case_with_their_dot() -> None:
    more = {".jfif", ".avif", ".gif", ".bmp"}
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif"} | more == set(
        photos.SUFFIXES
    )
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in photos.OTHER_SUFFIXES)


@pytest.mark.parametrize("suffix", [".gif", ".bmp", ".avif", ".jfif"])
def test_kinds_that_programs_and_the_web_give_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.new("RGB", (32, 24), (200, 40, 60)).save(path, format="JPEG" if suffix == ".jfif" else None)
    image, notes = read_photo(path)
    assert (image.mode, image.size, notes) == ("RGB", (32, 24), [])
    assert np.abs(np.asarray(image, int) - (200, 40, 60)).max() <= 6
    assert list_photos(tmp_path) == [path]


def test_moving_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    image, (note,) = read_photo(tmp_path / "moving.gif")
    assert image.getpixel((4, 4)) == (255, 0, 0)
    assert note == "moving.gif holds 2 frames; only the first is used."


def test_pictures_that_are_not_read_are_named_by_the_reason(tmp_path: Path) -> None:
    for name in ("a.png", "a.txt", "x.svg", "b.DNG", ".c.svg", "masks/a.png", "inner/a.png", "texts/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert photos.unread_pictures(tmp_path, [tmp_path / "masks"]) == [
        f"Not read, because of their kind: b.DNG, x.svg in {tmp_path}. Save them as JPEG or PNG.",
        f"Photos in folders inside {tmp_path} are not read: inner/. Move them up.",
    ]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"holds no photo\. Not read, .* inner/, masks/\. Move them up\.$"):
        list_photos(tmp_path)
