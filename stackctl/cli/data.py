"""`stackctl data`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from stackctl.cli import complete
from stackctl.errors import InvalidInput, JobFailed
from stackrt.pictures import known

if TYPE_CHECKING:
    from stackrt.pictures.known import Known

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
SETS = click.argument("names", metavar="SET…", nargs=-1, required=True, shell_complete=complete.sets)


@click.group(no_args_is_help=True)
def data() -> None:
    """Fetch data sets of pictures, and look after them.

    They are kept in one folder, STACK_DATA, by default below your cache. `stackctl run` shows it to its containers, and
    `--data SET` of the trainers reads it.

    \b
    Examples:
      stackctl data fetch fashion-mnist
      stackctl run cnn --nodes 2 --procs 2 --on compose -- --data fashion-mnist --steps 1000
    """


@data.command("list")
@JSON
def list_(as_json: bool) -> None:
    """Show the sets that have a name, and which are here."""
    from stackctl.data import cache

    rows = cache.rows(known.folder(os.environ))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        size = f"{row.size / 1e6:,.0f} MB" if row.size else ""
        click.echo(f"{row.name:{width}}  {row.state:7}  {size:>6}  {row.title} ({row.licence})")


@data.command()
@SETS
@JSON
def fetch(names: tuple[str, ...], as_json: bool) -> None:
    """Fetch sets, checked, once; what is here with the right hash is kept.

    A set comes from STACK_DATA_MIRROR if that is set (an address, or a folder), else from its own addresses, else out
    of Debian's package where there is one (STACK_APT_MIRROR).
    """
    from stackctl.data import cache
    from stackctl.engines.download import Downloader
    from stackctl.images.settings import from_env

    sets = cache.chosen(names)
    settings = from_env(os.environ)
    folders = {}
    for one in sets:
        downloader = Downloader(settings.ca_bundle, heard=_progress())
        where = known.folder(os.environ).absolute()
        folders[one.name] = str(cache.fetch(one, where, downloader, os.environ, settings.apt_mirror, _tell))
    _print(folders, as_json)


@data.command()
@click.argument("names", metavar="[SET…]", nargs=-1, shell_complete=complete.sets)
@JSON
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Read sets that are here and compare their hashes; without SET, all of them."""
    from stackctl.data import cache

    where = known.folder(os.environ)
    here = {row.name for row in cache.rows(where) if row.state in ("fetched", "partial")}
    sets: list[Known] = cache.chosen(names) if names else [cache.find(name) for name in sorted(here)]
    found = {one.name: cache.wrong(one, where) for one in sets}
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    for name, files in found.items():
        for file in files:
            _tell(f"{name}: {file.path} {file.what}")
        if not files and not as_json:
            click.echo(f"{name}: as it should be")
    if not sets:
        _tell(f"nothing is in {where}")
    if bad := [name for name, files in found.items() if files]:
        raise JobFailed(f"damaged or incomplete: {', '.join(bad)}", hint=f"stackctl data fetch {' '.join(bad)}")


@data.command()
@SETS
@JSON
def path(names: tuple[str, ...], as_json: bool) -> None:
    """Print the folder of sets that are here."""
    from stackctl.data import cache

    rows = {row.name: row for row in cache.rows(known.folder(os.environ))}
    folders = {}
    for one in cache.chosen(names):
        if rows[one.name].state != "fetched":
            raise InvalidInput(f"{one.name} is not here", hint=f"stackctl data fetch {one.name}")
        folders[one.name] = str(Path(rows[one.name].path).absolute())
    _print(folders, as_json)


def _print(folders: dict[str, str], as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(folders), indent=2))
        return
    for folder in folders.values():
        click.echo(folder)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _progress() -> Callable[[str, int, int | None], None] | None:
    """Hears of each piece, and shows a person how far a file is."""
    if not sys.stderr.isatty():
        return None

    def heard(name: str, has: int, size: int | None) -> None:
        done = f"{100 * has // size:3} %" if size else f"{has / 1e6:,.1f} MB"
        click.echo(f"\r  {done}  {name}" + ("\n" if has == size else ""), err=True, nl=False)

    return heard
