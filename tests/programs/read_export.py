"""What DuckDB and pyarrow find in exported tables.

usage: read_export.py blocks|events FILE...

Prints one JSON object a file: figures that `rmtrace analyze --json` has too. DuckDB reads all forms;
of a Parquet file pyarrow gives the number of rows, the types, and sums of its own.
"""

import json
import sys

import duckdb
import pyarrow.compute as compute
import pyarrow.parquet as parquet

BLOCKS = """
    SELECT count(*) AS allocated,
           count(*) FILTER (ended <> 'kept') AS freed,
           count(*) FILTER (ended = 'kept') AS never_freed,
           sum(bytes_last) FILTER (ended = 'kept') AS never_freed_bytes,
           sum(bytes_first) AS first_bytes,
           sum(resizes) AS resized,
           sum(moves) AS moved,
           count(*) FILTER (thread_ended IS NOT NULL AND thread_ended <> thread_born) AS cross_thread,
           max(life_ns) FILTER (ended <> 'kept') AS longest_ns,
           max(life_events) FILTER (ended <> 'kept') AS longest_events,
           max(life_bytes) FILTER (ended <> 'kept') AS longest_bytes
    FROM '{file}'
"""

SIZES = """
    SELECT class_low AS low, class_high AS high, count(*) AS blocks, sum(bytes_first)::HUGEINT AS bytes
    FROM '{file}' GROUP BY ALL ORDER BY low
"""

PROCESSES = "SELECT process, pid, count(*) AS {what} FROM '{file}' GROUP BY ALL ORDER BY process"

KINDS = """
    SELECT kind, count(*) AS calls, count(*) FILTER (failed) AS failed
    FROM '{file}' WHERE step <> 'realloc_begin' GROUP BY ALL ORDER BY kind
"""

ORDER = """
    SELECT count(*) FROM (
        SELECT time_ns, lag(time_ns) OVER () AS before FROM '{file}'
    ) WHERE time_ns < before
"""


def rows(query, **names):
    found = duckdb.sql(query.format(**names))
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def of_pyarrow(file, column):
    table = parquet.read_table(file)
    return {
        "rows": parquet.read_metadata(file).num_rows,
        "groups": parquet.read_metadata(file).num_row_groups,
        "sum": compute.sum(table[column]).as_py(),
        "types": {field.name: str(field.type) for field in table.schema},
    }


def main():
    table, files = sys.argv[1], sys.argv[2:]
    duckdb.sql("SET preserve_insertion_order = true")
    for file in files:
        if table == "blocks":
            found = rows(BLOCKS, file=file)[0]
            found["sizes"] = rows(SIZES, file=file)
            found["processes"] = rows(PROCESSES, file=file, what="allocated")
        else:
            found = {
                "kinds": rows(KINDS, file=file),
                "backwards": duckdb.sql(ORDER.format(file=file)).fetchall()[0][0],
            }
        if file.endswith(".parquet"):
            found["pyarrow"] = of_pyarrow(file, "bytes_first" if table == "blocks" else "requested_bytes")
        print(json.dumps(found))


main()
