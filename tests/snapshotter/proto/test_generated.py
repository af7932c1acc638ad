"""The generated code is that of the sources beside it."""

from pathlib import Path

from harness.protocols import SOURCES, generate

_ROOT = Path(__file__).parents[3]


def test_the_code_is_that_of_the_sources(tmp_path: Path) -> None:
    generate(tmp_path)
    generated = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(generated) == 3 * len(SOURCES)
    kept = {
        path for source in SOURCES for path in source.parent.iterdir() if "_pb2" in path.name or "_grpc" in path.name
    }
    assert {path.relative_to(_ROOT): path.read_text() for path in kept} == generated
