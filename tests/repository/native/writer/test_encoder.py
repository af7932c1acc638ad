"""What the index is told of content that comes again."""

import zlib
from pathlib import Path

from services.repository.native.format import RepositoryFormat
from services.repository.native.records import ObjectKind, object_path
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.object_files import ObjectFiles
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.encoder import Encoder
from services.repository.native.writer.index import ContentIndex


def test_content_is_new_until_the_index_has_it(tmp_path: Path) -> None:
    DirectoryStorage(tmp_path / "repository").prepare()
    index = ContentIndex(tmp_path / "index.sqlite")
    with ObjectFiles(tmp_path / "repository") as files:
        encoder = Encoder(compressor=Compressor(RepositoryFormat()), index=index, files=files, check=True)
        (first,) = encoder.encode([(b"content", ObjectKind.FILE)])
        (again,) = encoder.encode([(b"content", ObjectKind.FILE)])  # of a layer whose revision may never come
        index.add([(first.key, ObjectKind.FILE, first.digest)])
        (published,) = encoder.encode([(b"content", ObjectKind.FILE)])
    index.close()
    assert [first.known, again.known, published.known] == [False, False, True]
    assert first.digest == again.digest == published.digest


def test_pieces_of_one_batch_are_told_apart_by_content_and_kind(tmp_path: Path) -> None:
    DirectoryStorage(tmp_path / "repository").prepare()
    index = ContentIndex(tmp_path / "index.sqlite")
    with ObjectFiles(tmp_path / "repository") as files:
        encoder = Encoder(compressor=Compressor(RepositoryFormat()), index=index, files=files, check=True)
        (known,) = encoder.encode([(b"known", ObjectKind.FILE)])
        index.add([(known.key, ObjectKind.FILE, known.digest)])
        kinds = ObjectKind.FILE, ObjectKind.CHUNK
        pieces = [(content, kind) for content in (b"new", b"known", b"new") for kind in kinds]
        encoded = encoder.encode(pieces)
    index.close()
    assert [one.known for one in encoded] == [False, False, True, False, False, False]
    assert encoded[0] == encoded[4]
    for (content, kind), one in zip(pieces, encoded, strict=True):
        path = tmp_path / "repository" / object_path(one.digest, kind)
        assert zlib.decompress(path.read_bytes()) == content
