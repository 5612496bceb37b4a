"""`hypernet`: the hypernetworks that prompts name by `<hypernet:NAME:STRENGTH>`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import VocableError
from tui.cli.named_files import add_file_commands
from tui.cli.output import print_json, print_table, print_text, say
from tui.cli.session import AsJson, ask, build_request, connect, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.paths import Workspace
    from daemon.protocol.hypernetworks import CreateHypernetwork, HypernetworkView

app = typer.Typer(help="Hypernetworks: list them, make, rename, delete and take one back.", no_args_is_help=True)

add_file_commands(app, "hypernetwork", "hypernet", lambda client: client.hypernetwork_files)


@app.command("list")
def list_hypernetworks(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the hypernetworks folder, with the reason where a file cannot be used."""
    networks = ask(ctx, lambda client: client.hypernetworks())
    if as_json:
        print_json(networks)
        return
    if not networks:
        say(f"There are no hypernetworks yet in {session_of(ctx).workspace.hypernetworks}.")
        return
    headers = ("NAME", "LAYERS", "ACTIVATION", "WIDTHS", "STEP", "MODEL", "VERDICT")
    print_table(headers, [_row(network) for network in networks])


@app.command("new")
def new_hypernetwork(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name, which is also the file's.", show_default=False)
    ],
    sizes: Annotated[
        str, typer.Option(help="Layer structure: widths of the layers as multiples of a module's own.")
    ] = "1,2,1",
    activation: Annotated[
        str, typer.Option(help="Activation between the layers: linear (none), relu, leakyrelu, swish, mish, ...")
    ] = "linear",
    init: Annotated[
        str, typer.Option(help="Normal, KaimingUniform, KaimingNormal, XavierUniform or XavierNormal.")
    ] = "Normal",
    layer_norm: Annotated[bool, typer.Option("--layer-norm", help="Normalise the output of each layer.")] = False,
    dropout: Annotated[
        str | None, typer.Option(help="Share of each layer dropped while training, one number for each of --sizes.")
    ] = None,
    widths: Annotated[
        str | None, typer.Option(help="Channel counts that get modules, e.g. 320,640,768,1280; all when absent.")
    ] = None,
    model: Annotated[str, typer.Option(help="Base model: a name in models/, a path, or a hash.")] = "starter",
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace one of this name; the old file goes to trash/.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an untrained hypernetwork: a file in the hypernetworks folder that prompts can name at once."""
    from daemon.protocol.hypernetworks import CreateHypernetwork

    request = build_request(
        CreateHypernetwork,
        name=name,
        model=model,
        sizes=read_numbers("sizes", sizes),
        widths=read_numbers("widths", widths),
        activation=activation,
        init=init,
        layer_norm=layer_norm,
        dropout=read_numbers("dropout", dropout),
        seed=seed,
        overwrite=overwrite,
    )
    path = run_waiting(lambda: _create(session_of(ctx).workspace, request), interrupted=lambda: "Cancelled.")
    if as_json:
        print_json({"name": name, "hypernetwork": path})
    else:
        print_text(path)


def read_numbers(option: str, text: str | None) -> list[float] | None:
    """Numbers with commas between them; None for an option that was not given.

    Raises:
        VocableError: `usage.numbers`.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        title = f"--{option}: '{text}' is no list of numbers."
        raise VocableError("usage.numbers", title, f"Write numbers with commas, e.g. --{option} 1,2,1.") from None


def show_numbers(numbers: list[float] | list[int]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


async def _create(workspace: Workspace, request: CreateHypernetwork) -> str:
    from tui.cli.jobs import finish_job
    from tui.cli.progress import open_progress

    async with connect(workspace) as client:
        with open_progress() as progress:
            job = await client.create_hypernetwork(request)
            result = await finish_job(client, job, progress, f"making {request.name}")
    return str(result["hypernetwork"])


def _row(network: HypernetworkView) -> tuple[str, ...]:
    usable = "; ".join(filter(None, ("usable", network.warning)))
    step = "" if network.step is None else str(network.step)
    return (
        network.name,
        show_numbers(network.sizes),
        network.activation,
        show_numbers(network.widths),
        step,
        network.model,
        usable if network.usable else f"not usable: {network.reason}",
    )
