from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.runner.fake_apt import FakeApt

from metalmark.model import StableError
from metalmark.runner.kernel_package import KernelPackages, download_kernel, resolve_kernel

pytestmark = pytest.mark.anyio


async def test_debian_has_one_package() -> None:
    apt = FakeApt(depends={"linux-image-cloud-amd64": ("linux-image-6.1.0-56-cloud-amd64",)})
    found = await resolve_kernel(apt, "linux-image-cloud-amd64")
    assert found == KernelPackages(
        release="6.1.0-56-cloud-amd64", image="linux-image-6.1.0-56-cloud-amd64", modules=None
    )


async def test_ubuntu_has_its_modules_apart_and_may_have_more_steps() -> None:
    apt = FakeApt(
        known={"linux-modules-6.8.0-49-generic": "6.8.0-49.49"},
        depends={
            "linux-image-virtual": ("linux-image-generic", "linux-base"),
            "linux-image-generic": ("linux-image-6.8.0-49-generic", "linux-firmware"),
        },
    )
    found = await resolve_kernel(apt, "linux-image-virtual")
    assert found.names == ("linux-image-6.8.0-49-generic", "linux-modules-6.8.0-49-generic")


async def test_an_unsigned_image_has_the_same_release() -> None:
    apt = FakeApt(depends={"m": ("linux-image-unsigned-6.8.0-49-generic",)})
    assert (await resolve_kernel(apt, "m")).release == "6.8.0-49-generic"


@pytest.mark.parametrize(
    "depends", [{}, {"m": ("libc6",)}, {"m": ("linux-image-n",), "linux-image-n": ("linux-image-n",)}]
)
async def test_what_leads_nowhere_is_told(depends: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(StableError, match="leads to no kernel") as caught:
        await resolve_kernel(FakeApt(depends=depends), "m")
    assert "apt-get update" in caught.value.hint


async def test_image_and_modules_are_downloaded(tmp_path: Path) -> None:
    apt = FakeApt(known={"linux-modules-6.8.0-1-x": "1"}, depends={"m": ("linux-image-6.8.0-1-x",)})
    image, modules = await download_kernel(apt, "m", tmp_path)
    assert image.name.startswith("linux-image-6.8.0-1-x")
    assert [path.name.split("_")[0] for path in modules] == ["linux-modules-6.8.0-1-x"]
