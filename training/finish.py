"""``python -m training finish RUN``: end a stopped run with the steps that it has done."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.errors import DataError, RefusedError
from training.commands import HELP, device_option, log_to_stderr, say_result

if TYPE_CHECKING:
    from tinyunet_deploy.contract import Contract
    from training.recipe import Recipe
    from training.sources import Source

__all__ = ["finish", "finish_run", "read_run"]

log = logging.getLogger("training")


@click.command(context_settings=HELP)
@click.argument(
    "run_folder", metavar="RUN", type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option(
    "--weights",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Weights of the checkpoint: the best that were validated, or the last that were saved.",
)
@click.option(
    "--data",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the run's images, if they were moved; as often as the run had it.",
)
@device_option
@debug_option
def finish(
    run_folder: Path, weights: Literal["best", "last"], folders: tuple[Path, ...], device: str
) -> None:
    """Make the checkpoint of RUN, the folder of a run that was stopped or failed.

    The run is finished then: the steps that it has not done are never done.
    """
    from training.data_folders import DataFolders
    from training.run_folder import read_record
    from training.run_pictures import draw_run

    log_to_stderr()
    checkpoint, sources = finish_run(run_folder, weights, folders, device)
    draw_run(run_folder, sources)
    say_result(
        run_folder, checkpoint, folders or DataFolders.of(read_record(run_folder)["data"]).folders
    )


def finish_run(
    output: Path,
    weights: Literal["best", "last"] = "best",
    folders: tuple[Path, ...] = (),
    device: str = "cpu",
) -> tuple[Path, list[Source]]:
    """Write the checkpoint of a stopped run from its newest saved state.

    The weights of that state are validated first, as at the end of a run. A finished run is left
    as it is.

    Args:
        weights: ``best`` takes the best validated weights, ``last`` those of the state.
        folders: the run's data; empty takes the folders of its record.

    Returns:
        The checkpoint's path, and the images of the run.

    Raises:
        DataError: the folder is not that of a run, its images have changed or cannot be read, or
            a state is damaged.
        RefusedError: the folder is in use, has no saved state, or the checkpoint that it started
            from is gone.
        RuntimeUnavailable: the device does not exist, or the disk cannot be written.
    """
    from tinyunet_deploy.inspection.folder_lock import lock_folder
    from training.batch_norm import plain_network
    from training.distributed import ALONE
    from training.final_checkpoint import complete_run
    from training.loop import end_run, first_state
    from training.machine import Machine, choose_device
    from training.run_folder import CHECKPOINT, is_finished, read_record
    from training.sources import validation_images
    from training.state import restore_state, state_files
    from training.validation import choose_operating_point

    record = read_record(output)
    recipe, contract, sources = read_run(output, record, folders)
    lock = lock_folder(output)
    try:
        checkpoint = output / CHECKPOINT
        if is_finished(checkpoint):
            complete_run(checkpoint)
            log.info("%s is already finished", output)
            return checkpoint, sources
        state = first_state(recipe, output, choose_device(Machine(device), ALONE), amp=False)
        restore_state(output, state)
        if not state.step:
            saved = "a readable" if state_files(output) else "a"
            raise RefusedError(output, f"does not contain {saved} saved state to finish with")
        if weights == "last":
            state.best = None
        examples = validation_images(sources)
        log.info("validating step %d of %d on %d images", state.step, recipe.steps, len(examples))
        plain = plain_network(state.network)
        state.consider(choose_operating_point(plain, contract, examples))
        init, teacher = (_earlier_checkpoint(output, record, key) for key in ("init", "teacher"))
        places = ("data", "init", "teacher", "scores_sha256")
        record = {key: value for key, value in record.items() if key not in places}
        end_run(state, contract, sources, record, output, init, teacher)
        lock.check()
    finally:
        lock.close()
    return checkpoint, sources


def _earlier_checkpoint(
    output: Path, record: dict[str, Any], key: Literal["init", "teacher"]
) -> Path | None:
    """Return the checkpoint that a run started from, or its teacher; None if it had none.

    Their images count as trained on, too.
    """
    from tinyunet_deploy.artifacts.sidecar import read_artifact

    if record.get(f"{key}_sha256") is None:
        return None
    checkpoint = Path(str(record.get(key)))
    if read_artifact(checkpoint).sidecar.sha256 != record[f"{key}_sha256"]:
        role = "started from" if key == "init" else "learned from"
        raise DataError(checkpoint, f"is not the checkpoint that {output} {role}")
    return checkpoint


def read_run(
    output: Path, record: dict[str, Any], folders: tuple[Path, ...] = ()
) -> tuple[Recipe, Contract, list[Source]]:
    """Return the recipe, the size of the model and the images of a run, by its record.

    Args:
        output: folder of the run.
        folders: the run's data; empty takes the folders of its record.

    Raises:
        DataError: the record is of another version, or the images have changed or cannot be read.
    """
    import dataclasses

    from tinyunet_deploy.contract import Contract
    from training.data_folders import DataFolders
    from training.recipe import recipe_of
    from training.sources import sources_digest

    try:
        recipe = recipe_of(record["recipe"])
        height, width = record["size"]
        contract = Contract(int(height), int(width))
        data = None if record["data"] is None else DataFolders.of(record["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            output / "run.json", f"is not the record of a run of this version: {error}"
        ) from error
    if data is None and not folders:
        raise DataError(output, "does not say where its images are", "give --data")
    data = DataFolders(folders) if data is None else data
    data = dataclasses.replace(data, folders=folders or data.folders)
    for folder in data.folders:
        if not folder.is_dir():
            raise DataError(folder, "does not exist any more", "give --data")
    log.info("reading the images of %s", ", ".join(map(str, data.folders)))
    sources = data.read(recipe)
    if sources_digest(sources) != record.get("data_sha256"):
        raise DataError(
            output, "was trained on other images than these", "give its own with --data"
        )
    return recipe, contract, sources
