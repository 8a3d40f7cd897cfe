"""Where a study's rows are kept: Parquet files, one for each image, model and method, each whole or not there."""

# ruff: noqa: S608  # names of tables and columns are the constants below

import json
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salience.core.errors import InputError
from salience.core.files import locked, read_json, write_whole

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = 1

KEY = {
    "image": "VARCHAR",
    "target": "INTEGER",
    "label": "VARCHAR",
    "model": "VARCHAR",
    "method": "VARCHAR",
    "metric": "VARCHAR",
    "perturbation": "VARCHAR",
    "variant": "VARCHAR",
    "seed": "BIGINT",
}
"""What names a row. A metric of the map itself has empty perturbation and variant."""

TABLES = {
    "results": KEY | {"value": "DOUBLE", "stderr": "DOUBLE", "status": "VARCHAR", "reason": "VARCHAR", "prediction_changed": "BOOLEAN", "seconds": "DOUBLE"},
    "curves": KEY | {"curve": "VARCHAR", "x": "DOUBLE", "y": "DOUBLE"},
}
"""Every table's columns. ``status`` is ok, undefined (the metric has no value there) or failed; ``reason`` says why."""

OUT_OF_MEMORY = "The memory was full: --resume tries it again; take fewer workers, a smaller chunk, or a machine with more."
"""The reason of a failure that is not the picture's."""

Row = dict[str, Any]


class Store:
    """A study's folder.

    ``manifest.json`` says what was run; ``results/ID.parquet`` holds the rows of a unit (an image, a model and
    a method), ``curves/ID.parquet`` the curves behind them, ``maps/ID.npz`` its maps. A unit's results are
    written last and say in their metadata what belongs to them, so where they and that are the unit is complete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What `write_manifest` wrote; None in an empty folder.

        Raises:
            InputError: If it is damaged or from a later version.
        """
        return read_json(self.folder / "manifest.json", FORMAT, "run the study in a new folder")

    def described(self) -> dict[str, Any]:
        """The manifest of a study that must be there.

        Raises:
            InputError: If there is none.
        """
        if (manifest := self.manifest) is None:
            raise InputError(f"{self.folder} holds no study: give a folder that 'salience study run' wrote.")
        return manifest

    @property
    def holds_rows(self) -> bool:
        """Whether there is any part, of whatever study."""
        return any(self._parts(table) for table in TABLES)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest."""
        write_whole(self.folder / "manifest.json", json.dumps({"format": FORMAT} | manifest, indent=1, allow_nan=False).encode())

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else may be running a study in this folder meanwhile."""
        return locked(self.folder, "running a study")

    def write(self, unit: str, rows: Sequence[Row], curves: Sequence[Row], maps: bytes | None = None) -> None:
        """Keep the rows of a unit, whole or not at all.

        Raises:
            InputError: If they cannot be written.
        """
        if maps is not None:
            write_whole(self.folder / "maps" / f"{unit}.npz", maps)
        with _database() as connection:
            if curves:
                self._write_table(connection, "curves", unit, curves)
            else:
                (self.folder / "curves" / f"{unit}.parquet").unlink(missing_ok=True)  # of an attempt that lacked memory
            self._write_table(connection, "results", unit, rows, {"curves": len(curves), "maps": int(maps is not None)})

    def _write_table(self, connection: "DuckDBPyConnection", table: str, unit: str, rows: Sequence[Row], belongs: dict[str, int] | None = None) -> None:
        import duckdb

        columns = TABLES[table]
        file = self.folder / table / f"{unit}.parquet"
        part = file.with_name(f".{file.name}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            values = ", ".join(f"unnest(?::{kind}[]) AS {name}" for name, kind in columns.items())
            connection.execute(f"CREATE TABLE {table} AS SELECT {values}", [[row.get(name) for row in rows] for name in columns])
            connection.execute(f"COPY {table} TO {_quoted(part)} (FORMAT parquet{f', KV_METADATA {belongs}' if belongs else ''})")
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(file)
        except (OSError, duckdb.IOException) as error:
            number = re.search(r'"errno":"(\d+)"', str(error))  # DuckDB's, in JSON
            why = os.strerror(int(number[1])) if number else getattr(error, "strerror", None) or str(error).rpartition(": ")[2]  # older versions end with it
            raise InputError(f"Cannot write {file}: {why}. Free some space or mend the folder, then continue with --resume.") from error
        finally:
            part.unlink(missing_ok=True)

    def drop(self, unit: str) -> None:
        """Take the rows of a unit away, its results first."""
        for table, ending in (*((name, "parquet") for name in TABLES), ("maps", "npz")):
            (self.folder / table / f"{unit}.{ending}").unlink(missing_ok=True)

    def complete(self, *, mend: bool = True) -> set[str]:
        """The units whose rows are here, with all curves and maps, all of it whole. Those that lacked memory are not counted.

        Args:
            mend: Set damaged files aside, under another name.
        """
        found: set[str] = set()
        damaged: set[str] = set()
        with _database() as connection:
            for table in ("curves", "results"):
                for file in self._parts(table):
                    if not _is_whole(connection, file, table):
                        damaged.add(file.stem)
                        if mend:
                            file.replace(file.with_suffix(".damaged"))
                            (self.folder / "results" / file.name).unlink(missing_ok=True)
                    elif table == "results" and file.stem not in damaged and self._is_complete(connection, file):
                        found.add(file.stem)
        return found

    def _is_complete(self, connection: "DuckDBPyConnection", results: Path) -> bool:
        """Whether a unit did not lack memory, and the curves and maps that belong to its results are here, whole."""
        if connection.execute(f"SELECT true FROM read_parquet({_quoted(results)}) WHERE reason = ? LIMIT 1", [OUT_OF_MEMORY]).fetchall():
            return False
        belongs = {name: int(count) for name, count in connection.execute(f"SELECT decode(key), decode(value) FROM parquet_kv_metadata({_quoted(results)})").fetchall() if name in ("curves", "maps")}
        curves = self.folder / "curves" / results.name
        rows = connection.execute(f"SELECT count(*) FROM read_parquet({_quoted(curves)})").fetchall()[0][0] if curves.exists() else 0
        return belongs["curves"] == rows and (not belongs["maps"] or _holds_maps(self.folder / "maps" / f"{results.stem}.npz"))

    def _parts(self, table: str) -> list[Path]:
        """The files of a table."""
        return sorted((self.folder / table).glob("*.parquet"))

    def rows(self, table: str = "results") -> list[Row]:
        """All rows of a table, in the order of their keys."""
        columns, values = self.query(f"SELECT * FROM {table} ORDER BY {', '.join(KEY)}" + (", curve, x" if table == "curves" else ""))
        return [dict(zip(columns, row, strict=True)) for row in values]

    def query(self, sql: str) -> tuple[list[str], list[tuple]]:
        """The answer to an SQL query over the tables ``results`` and ``curves``: column names and rows.

        The tables are read into memory first and the query has no access to anything else, so nothing it says can change a file.

        Raises:
            InputError: If there is no study here, a part of it is damaged, or the query is wrong or not one SELECT.
        """
        import duckdb

        self.described()
        with _database() as connection:
            try:
                kinds = [statement.type for statement in connection.extract_statements(sql)]
            except duckdb.Error as error:
                raise _failed(error) from error
            if not kinds:
                raise InputError("The query is empty: give a SELECT, for example 'select method, avg(value) from results group by method'.")
            if kinds != [duckdb.StatementType.SELECT]:
                raise InputError("Only SELECT is allowed in a query: give one SELECT, for example 'select method, avg(value) from results group by method'.")
            for table, columns in TABLES.items():
                connection.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
                files = self._parts(table)
                try:
                    if files:
                        connection.execute(f"INSERT INTO {table} SELECT * FROM read_parquet([{', '.join(map(_quoted, files))}])")
                except duckdb.Error as error:
                    damaged = next((file for file in files if not _is_whole(connection, file, table)), self.folder / table)
                    raise InputError(f"{damaged} is damaged: continue the study with --resume, which sets it aside and computes it again.") from error
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            try:
                answer = connection.execute(sql)
                return [column[0] for column in answer.description or ()], answer.fetchall()
            except duckdb.Error as error:
                raise _failed(error) from error


def _failed(error: Exception) -> InputError:
    """What DuckDB says of a query."""
    tables = " and ".join(f"{table} ({', '.join(columns)})" for table, columns in TABLES.items())
    return InputError(f"The query failed: {str(error).splitlines()[0].rstrip('.!')}. The tables are {tables}.")


@contextmanager
def _database() -> "Iterator[DuckDBPyConnection]":
    """A database in memory. Ctrl-C while it works is a KeyboardInterrupt, as everywhere; DuckDB makes another error of it."""
    import duckdb

    try:
        with duckdb.connect() as connection:
            yield connection
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


def _holds_maps(file: Path) -> bool:
    """Whether a file of maps is here and can be read to its end."""
    try:
        with zipfile.ZipFile(file) as maps:
            return maps.testzip() is None
    except Exception:  # zipfile and zlib raise many kinds for damaged files
        return False


def _is_whole(connection: "DuckDBPyConnection", file: Path, table: str) -> bool:
    """Whether a part can be read to its end and has its table's columns."""
    import duckdb

    try:
        names = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM read_parquet({_quoted(file)})").fetchall()]
        connection.execute(f"SELECT max(hash(columns(*))) FROM read_parquet({_quoted(file)})").fetchall()  # reads every value
    except duckdb.Error:
        return False
    return names == list(TABLES[table])


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
