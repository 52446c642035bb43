import json
import threading
from pathlib import Path

import pytest

from dreamspace.jobs import events as events_module
from dreamspace.jobs.events import EventWriter, next_seq, read_events, read_last_event, read_last_events

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


def test_every_event_has_seq_time_kind_and_all_fields_of_its_kind(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.write("stage", name="loading", message="Loading.")
    writer.write("loss", step=1, loss=0.5, learning_rate=1e-4)
    events, offset = read_events(writer.path)
    assert [event["seq"] for event in events] == [0, 1]
    assert events[1]["prior_loss"] is None
    assert events[1].keys() == {"seq", "time", "kind", *events_module.EVENT_FIELDS["loss"]}
    assert offset == writer.path.stat().st_size


def test_unknown_kind_and_unknown_field_are_our_own_mistakes(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    with pytest.raises(AssertionError, match="kind 'los'"):
        writer.write("los", step=1)
    with pytest.raises(AssertionError, match="no field \\['lr'\\]"):
        writer.write("loss", step=1, lr=1e-4)
    assert read_events(writer.path) == ([], 0)


def test_floats_that_are_not_finite_become_null_at_any_depth(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.write("eval_loss", step=1, loss=float("nan"), by_timestep=[(100, float("inf")), (200, 0.5)])
    event = json.loads(writer.path.read_text())
    assert event["loss"] is None
    assert event["by_timestep"] == [[100, None], [200, 0.5]]


def test_paths_are_written_with_slashes_and_odd_names_survive(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.write("sample", step=1, path=Path("validation") / "step-1" / "0.png", prompt="a \udcff \u2028 dog")
    [event], _ = read_events(writer.path)
    assert event["path"] == "validation/step-1/0.png"
    assert event["prompt"] == "a \udcff \u2028 dog"


def test_tokens_are_redacted_in_keys_and_values(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.write("mixture", datasets={TOKEN: 1.0}, num_instances=1)
    writer.write("failed", traceback=f"in hf_hub_download\n  token='{TOKEN}'")
    text = writer.path.read_text()
    assert TOKEN not in text
    assert "hf_hub_download" in text


def test_only_complete_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":0}\n{"seq":1')
    events, offset = read_events(path)
    assert (events, offset) == ([{"seq": 0}], 10)
    path.write_bytes(b'{"seq":0}\n{"seq":1}\n')
    assert read_events(path, offset) == ([{"seq": 1}], 20)
    assert read_events(tmp_path / "none.jsonl") == ([], 0)


@pytest.mark.parametrize(
    ("tail", "seqs"),
    [
        (b"", [0, 1]),
        (b'{"seq":1,"kind":"do', [0, 1]),
        (b'{"seq":1,"kind":"done"}', [0, 1, 2]),
        (b'{"seq":1,"prompt":"\xc3', [0, 1]),
        (b'{"seq":1,"traceback":"' + b"x" * 300_000, [0, 1]),
    ],
    ids=["whole", "cut off", "lacks its line feed", "cut inside a letter", "cut off and long"],
)
def test_a_half_written_last_line_is_mended(tmp_path: Path, tail: bytes, seqs: list[int]) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":0,"kind":"stage"}\n' + tail)
    EventWriter(tmp_path).write("done", step=1)
    assert [json.loads(line)["seq"] for line in path.read_bytes().splitlines()] == seqs


def test_a_line_of_zeros_after_a_power_cut_hides_no_other_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":0}\n' + b"\0" * 100 + b"\n" + b'{"seq":1}\n')
    assert [event["seq"] for event in read_events(path)[0]] == [0, 1]


def test_threads_write_whole_lines_with_every_seq_once(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)

    def write_many() -> None:
        for step in range(100):
            writer.write("progress", step=step, num_steps=100)

    threads = [threading.Thread(target=write_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["seq"] for event in read_events(writer.path)[0]] == list(range(400))


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = EventWriter(tmp_path)
    writer.write("progress", step=1)
    real_write = events_module.os.write
    monkeypatch.setattr(events_module.os, "write", lambda file, line: real_write(file, line[:7]))
    with pytest.raises(OSError, match="No space left"):
        writer.write("progress", step=2)
    monkeypatch.undo()
    writer.write("progress", step=3)
    assert [(event["seq"], event["step"]) for event in read_events(writer.path)[0]] == [(0, 1), (1, 3)]


def test_a_writer_that_does_not_write_checks_and_makes_no_file(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, writes=False)
    writer.write("done", step=1)
    assert writer.last_kind == "done"
    with pytest.raises(AssertionError):
        writer.write("finished")
    assert not writer.path.exists()


def test_the_tail_holds_at_least_one_event_however_long_its_line(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    for step in range(10):
        writer.write("progress", step=step)
    assert [event["seq"] for event in read_last_events(writer.path, num_bytes=300)] == [8, 9]
    writer.write("failed", traceback="x" * 500_000)
    assert read_last_events(writer.path)[-1]["kind"] == "failed"
    assert next_seq(writer.path) == 11


def test_the_last_event_of_a_kind_is_found_wherever_reading_in_pieces_cuts_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EventWriter(tmp_path)
    writer.write("stage", name="loading", message="Loading.")
    writer.write("mixture", datasets={"kind": "stage"}, num_instances=1)
    writer.write("stage", name="training", message='Not a "kind":"stage" of its own.')
    for step in range(5):
        writer.write("loss", step=step, loss=0.5)
    writer.write("mixture", datasets={"kind": "stage"}, num_instances=2)
    for num_bytes in (*range(1, 200), 100_000):
        monkeypatch.setattr(events_module, "_TAIL_BYTES", num_bytes)
        found = {kind: read_last_event(writer.path, kind) for kind in ("stage", "loss", "mixture", "done")}
        assert {kind: event and event["seq"] for kind, event in found.items()} == {
            "stage": 2,
            "loss": 7,
            "mixture": 8,
            "done": None,
        }


def test_a_half_written_line_is_not_the_last_event_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_last_event(path, "stage") is None
    path.write_bytes(b"")
    assert read_last_event(path, "stage") is None
    path.write_bytes(b'{"seq":0,"kind":"stage"}\n' + b"\0" * 100 + b'\n{"seq":1,"kind":"stage","na')
    assert read_last_event(path, "stage") == {"seq": 0, "kind": "stage"}
