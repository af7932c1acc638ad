"""The generated code is that of the sources beside it."""

from pathlib import Path

from harness.protocols import SOURCES, generate

_PROTO = Path(__file__).parents[3] / "services" / "snapshotter" / "proto"


def test_the_code_is_that_of_the_sources(tmp_path: Path) -> None:
    generate(tmp_path)
    generated = {path.name: path.read_text() for path in (tmp_path / "services/snapshotter/proto").iterdir()}
    assert len(generated) == 3 * len(SOURCES)
    kept = {path.name: path.read_text() for path in _PROTO.iterdir() if path.is_file()}
    assert {name: text for name, text in kept.items() if "_pb2" in name or "_grpc" in name} == generated
