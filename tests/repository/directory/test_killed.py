"""A publisher that is killed at any change of any file leaves the old batch or the new one, with all of its images."""

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

from services.common.image_name import ImageName
from services.repository.outputs import FlatOutput, ImageOutputs
from tests.support.directory_killed import change_until, opened_directory
from tests.support.images import change, documents, image_of_layers
from tests.support.killed import kill_at, run_until, states_of_kills
from tests.support.publisher import make_layer

_ONE, _TWO, _NEW = "quay.io/ns/one:v1", "quay.io/ns/two:v1", "localhost:5000/new:v1"
_FLAT = "quay.io/flat:v1"


def _seen(root: Path) -> dict[str, str | bool | None]:
    """Read what readers see of all images, in every directory that they have."""
    seen: dict[str, str | bool | None] = {}
    for name in (_ONE, _TWO, _NEW, f".multiarch/arm64/{_ONE}", f".multiarch/ppc64le/{_ONE}"):
        file = root / ".metadata" / name / "config.json"
        seen[name] = file.read_text().split('"')[3] if file.exists() else None
    seen[_FLAT] = (root / _FLAT / "etc/hosts").exists() and "flat"
    return seen


def test_a_kill_at_any_step_leaves_the_old_or_the_new_batch(tmp_path: Path, processes: ForkServerContext) -> None:
    old, new = make_layer(tmp_path, "old"), make_layer(tmp_path, "new")
    before = tmp_path / "before"
    flat = image_of_layers(_FLAT, ("amd64", ()), outputs=ImageOutputs(flat=FlatOutput()))

    async def prepare() -> None:
        with ThreadPoolExecutor(2) as threads:
            async with opened_directory(before, threads) as repository:
                await repository.recover(())
                await change(repository, layers=[old], put=[documents(_ONE, "0"), documents(_TWO, "0")])
                await change(repository, put=[documents(_ONE, "1", "arm64"), documents(_TWO, "1")])

    asyncio.run(prepare())
    put = [documents(_ONE, "2", "ppc64le"), documents(_NEW, "2"), flat]
    batch = ([new], put, ([_TWO], [old.digest]))
    shutil.copytree(before, tmp_path / "whole", symlinks=True)
    status, steps = run_until(processes, change_until, tmp_path / "whole", *batch, None)
    assert status == 0
    assert steps is not None
    states = [_seen(before), _seen(tmp_path / "whole")]
    assert states[1] == {
        _ONE: "2",
        _TWO: None,
        _NEW: "2",
        f".multiarch/arm64/{_ONE}": None,
        f".multiarch/ppc64le/{_ONE}": "2",
        _FLAT: "flat",
    }

    async def recovered(root: Path, state: int) -> None:
        with ThreadPoolExecutor(2) as threads:
            async with opened_directory(root, threads) as repository:
                await repository.recover(())
                assert _seen(root) == states[state]
                assert [path for path in root.rglob("*") if path.is_symlink() and not path.exists()] == []
                assert (await repository.lookup(old.digest) is None) == (state == 1)
                assert (await repository.lookup(new.digest) is None) == (state == 0)
                if state == 0:
                    await change(repository, layers=batch[0], put=put, remove=[_TWO], remove_layers=[old.digest])
                await change(repository)  # deletes what that has replaced
                assert await repository.list_images() == [ImageName(_NEW), *map(ImageName, sorted([_FLAT, _ONE]))]
        assert not list((root / ".batches").glob(f"*/{old.digest}"))

    def killed(step: int) -> int:
        root = tmp_path / str(step)
        shutil.copytree(before, root, symlinks=True)
        kill_at(processes, step, change_until, root, *batch)
        state = states.index(_seen(root))
        assert (root / new.digest).exists() == (state == 1)
        asyncio.run(recovered(root, state))
        assert _seen(root) == states[1]
        shutil.rmtree(root)
        return state

    assert states_of_kills(killed, range(1, steps + 1), after=1) == {0, 1}
