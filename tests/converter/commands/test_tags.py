"""Registries as a plan asks them: a real one."""

from pathlib import Path

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.commands.outlook import look_ahead
from services.converter.commands.planned import make_plan
from services.converter.commands.tags import RegistryTags
from services.registry.client import RegistryClient
from tests.support.oci import write_image
from tests.support.registries import RegistryServer, impatient
from tests.support.tars import archive, member
from tests.support.wish_lists import wishes_of


async def test_a_real_registry_tells_tags_digests_and_creation_times(tmp_path: Path) -> None:
    write_image(tmp_path / "image", (archive(member(b"file", b"content")),), tag="1")
    async with RegistryServer.run(tmp_path / "server") as server, RegistryClient(options=impatient()) as client:
        for tag in ("1", "1.1", "2", "latest"):
            await server.push(f"oci:{tmp_path / 'image'}:1", f"ns/tool:{tag}", "--preserve-digests")
        entries = (
            f"{{image: '{server.address}/ns/tool', newest: 2}}, "
            f"{{image: '{server.address}/ns/tool', tags: '1*', max_age: 1d}}, "
            f"'{server.address}/ns/tool:none', '{server.address}/ns/none:*'"
        )
        wishes = wishes_of(f"version: 2\ndefaults: {{repositories: a.b}}\nimages: [{entries}]\n").wishes
        registries = RegistryTags(client)
        made = await make_plan(wishes, (), registries)
        outlooks = await look_ahead(made, registries, {}, whole=True)
        digest = await registries.digest(ImageName(f"{server.address}/ns/tool:1"))
    # The image does not tell when it was made, so it is as old as can be.
    assert [wanted.name.tag for wanted in made.wanted] == ["2", "1.1", "none"]
    assert [each.wish.repository for each in made.open] == ["ns/none"]
    assert isinstance(digest, Digest)
    assert {name.tag: outlook.action.value for (_, name), outlook in outlooks.items()} == {
        "2": "cannot tell",
        "1.1": "cannot tell",
        "none": "gone",
    }
