"""Exec round trip in a running box: from the request for `true` to its reported end, and a clock reading as floor."""

from __future__ import annotations

import anyio
from small_box import arguments, box_of, command, series, usable_drivers

from metalmark.system import monotonic_s


async def main() -> None:
    options = arguments(__doc__ or "")
    count = 10 if options.quick else 200
    for driver in await usable_drivers(options.sandbox):
        async with box_of(driver) as box:
            floor, times = [], []
            await command(box, "/bin/true")  # the first one is cold
            for _ in range(count):
                began_s = monotonic_s()
                await box.clock()
                floor.append(monotonic_s() - began_s)
                began_s = monotonic_s()
                await command(box, "/bin/true")
                times.append(monotonic_s() - began_s)
            series(f"{driver.name} clock", floor[:20])
            series(f"{driver.name} exec true", times[:20])


if __name__ == "__main__":
    anyio.run(main)
