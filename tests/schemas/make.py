"""Writes NN.db: a data folder's database as the stablehand with migrations 1 to NN left it, with jobs in every state.

    python tests/schemas/make.py NN

Run it for the latest schema before you add a migration. Files of earlier schemas stay as they are.
"""

import sqlite3
import sys
from pathlib import Path

HERE = Path(__file__).parent
MIGRATIONS = sorted((HERE.parent.parent / "migrations").glob("*.sql"))
START = 1_700_000_000_000
ENDPOINT = "stable-diffusion-v1"


def lay_out(content: bytes) -> bytes:
    """The bytes of a row of `contents`, as src/store/content.rs lays them out."""
    overflow, local = 4092, 489
    pages = max(1, -(-len(content) // overflow))
    record = local + pages * overflow
    varint = lambda value: max(1, -(-value.bit_length() // 7))
    header = next(size for size in range(3, 10) if 2 + varint(12 + 2 * (record - size)) == size)
    blob = record - header
    head = len(content).to_bytes(8, "little").ljust(blob - pages * overflow, b"\0")
    return (head + content).ljust(blob, b"\0")


def main(version: int) -> None:
    path = HERE / f"{version:02}.db"
    path.unlink(missing_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("page_size = 4096", "auto_vacuum = incremental", "journal_mode = wal", "foreign_keys = on"):
        db.execute(f"pragma {pragma}")
    for migration in MIGRATIONS[:version]:
        db.executescript(migration.read_text())
    db.execute(f"pragma user_version = {version}")
    db.execute(f"pragma application_id = {0x7374_6864}")

    def content(text: bytes) -> int:
        return db.execute("insert into contents (bytes) values (?)", (lay_out(text),)).lastrowid

    def job(number: int, status: str, **columns) -> int:
        row = {
            "id": f"018bcfe5-6800-7000-8000-{number:012}",
            "endpoint": ENDPOINT,
            "status": status,
            "low_priority": 0,
            "execution_timeout_ms": 600_000,
            "ttl_ms": 86_400_000,
            "retention_ms": 1_800_000,
            "seed": number,
            "created_at": START + number,
            "input": content(b'{"prompt":"job %d"}' % number),
        } | columns
        names = ", ".join(row)
        values = ", ".join("?" * len(row))
        return db.execute(f"insert into jobs ({names}) values ({values})", tuple(row.values())).lastrowid

    def image(owner: int, index: int, png: int, **columns) -> None:
        row = {"job": owner, "idx": index, "seed": 7 + index, "png": png} | columns
        db.execute(f"insert into images ({', '.join(row)}) values ({', '.join('?' * len(row))})", tuple(row.values()))

    queued = job(1, "IN_QUEUE")
    running = job(2, "IN_PROGRESS", attempt=1, started_at=START + 100, gpu="CPU")
    done = job(3, "COMPLETED", attempt=1, started_at=START + 100, finished_at=START + 200, gpu="CPU")
    job(4, "FAILED", attempt=1, started_at=START + 100, finished_at=START + 200, gpu="CPU", error="It failed.")
    job(5, "CANCELLED", finished_at=START + 200)
    image(done, 0, content(b"a picture"))
    if version >= 3:
        db.execute("insert into idempotency_keys values (?, ?, ?)", (b"k" * 32, b"r" * 32, queued))
    if version >= 4:
        url = b"http://receiver.example/hook"
        db.execute("insert into webhooks values (?, ?, 1, 1)", (queued, content(url)))
        db.execute(
            "insert into outbox (job, event, receiver, url, body, due_at) values (?, 'end', 1, ?, ?, ?)",
            (f"018bcfe5-6800-7000-8000-{3:012}", content(url), content(b"{}"), START + 200),
        )
    if version >= 5:
        db.execute("insert into latest_time values (1, ?)", (START + 200,))
    if version >= 6:
        image(done, 1, 0, withheld=1)
    if version >= 7:
        bucket = content(
            b'{"accessId":"a","accessSecret":"s","bucketName":"b","endpointUrl":"https://bucket.example"}'
        )
        db.execute("insert into buckets values (?, ?)", (queued, bucket))
        image(done, 2, content(b"https://bucket.example/b/3.png"), stored_elsewhere=1)
    if version >= 8:
        db.execute("insert into warnings values (?, ?)", (done, content(b'["A warning."]')))
    if version >= 9:
        db.execute("update jobs set finish = '1328x1328-q100.png' where seq = ?", (done,))
    if version >= 10:
        prompts = content(b'{"prompt":"a red dog","negative_prompt":""}')
        db.execute("update images set prompts = ? where job = ? and idx = 0", (prompts, done))
    if version >= 12:
        db.execute("insert into saved_states values (?, ?)", (running, content(b"where it is")))
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()


main(int(sys.argv[1]))
