"""Join the folders of a study's shards."""

import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from salience.core.errors import InputError
from salience.studies.manifest import check_same
from salience.studies.store import Store
from salience.studies.summary import incomplete


def merge(folders: Sequence[str | Path], out: str | Path) -> Store:
    """Join the folders of the shards of one study. The manifest keeps each part's threads and versions, on which last digits depend.

    The folders are only read. Parts that are damaged or not there are left out, which a warning says.

    Raises:
        InputError: If they are not of one study, a shard is missing, or there are rows already in the folder for the result.
    """
    stores = [Store(folder) for folder in folders]
    manifests = [store.described() for store in stores]
    for store, manifest in zip(stores, manifests, strict=True):
        check_same(manifests[0] | {"shard": None}, manifest | {"shard": None}, store.folder)
    _check_shards([tuple(manifest["shard"]) for manifest in manifests])
    whole = Store(out)
    with whole.locked():
        if whole.manifest is not None or whole.holds_rows:
            raise InputError(f"{out} holds a study already: choose another folder with --out.")
        there: set[str] = set()
        for store in stores:
            ours = store.complete(mend=False) - there  # of what two have the first counts, with all its files
            there |= ours
            for unit in ours:
                for file in store.folder.glob(f"*/{unit}.*"):
                    target = whole.folder / file.parent.name / file.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        images = {name: each for manifest in manifests for name, each in manifest["images"].items()}
        parts = [part for manifest in manifests for part in manifest.get("parts") or [{key: manifest[key] for key in ("shard", "threads", "versions")}]]
        threads = sorted({part["threads"] for part in parts})
        categories = sorted({tuple(each) for manifest in manifests for each in manifest["categories"]})
        whole.write_manifest(manifests[0] | {"shard": [1, 1], "threads": threads[0] if len(threads) == 1 else None, "images": images, "categories": categories, "parts": parts})
    missing = incomplete(whole)
    if missing:
        warnings.warn(f"{missing} Continue the shards with --resume, and merge again into another folder.", UserWarning, stacklevel=2)
    if len(threads) > 1:
        warnings.warn(
            f"The parts were computed with different numbers of threads ({', '.join(map(str, threads))}): their rows may differ in the last digits. The manifest says which.", UserWarning, stacklevel=2
        )
    return whole


def _check_shards(shards: Sequence[tuple[int, int]]) -> None:
    """Refuse shards that do not make up the whole."""
    count = math.lcm(*(each for _, each in shards))
    covered = {place for number, each in shards for place in range(number, count + 1, each)}
    missing = [f"{place}/{count}" for place in range(1, count + 1) if place not in covered]
    if missing:
        names = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise InputError(f"The shard{'s' if len(missing) > 1 else ''} {names} {'are' if len(missing) > 1 else 'is'} missing: run what is missing with --shard, and give all folders to merge.")
