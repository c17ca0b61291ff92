"""DBOS as a peer: workflows of no-op steps over SQLite, told what to run by lines on stdin, answering by lines of JSON.

Arguments: the directory of the database. The protocol is that of `runtime-peers ours`; see `child.rs`.

SQLite is in WAL mode, which is best for a database that is written all the time, and with synchronous=FULL, which syncs
at every commit: what is acknowledged survives a power cut, as with the others. Workflows are plain functions, and each
client is a thread that calls one and waits for its result, since that is what DBOS does fastest: asynchronous ones go
through threads as well, one hand-over a statement. Waiting workflows are asynchronous: thousands of threads would be an
unfair thing to ask.
"""

import asyncio
import json
import sys
import threading
import time
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig

DAY_S = 24 * 3600
# What runs at once; more clients than that only wait for the one writer that SQLite allows.
POOL = 20


@sa.event.listens_for(sa.Engine, "connect")
def set_durability(connection, _record):
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


@DBOS.step()
def noop():
    return None


@DBOS.step()
async def noop_async():
    return None


@DBOS.workflow()
def steps(count):
    for _ in range(count):
        noop()


@DBOS.workflow()
def timed_steps(count):
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        noop()
        times.append((time.perf_counter() - begun) * 1e6)
    return times


@DBOS.workflow()
async def waiting(count):
    for _ in range(count):
        await noop_async()
    await DBOS.sleep_async(DAY_S)


def say(**answer):
    print(json.dumps(answer), flush=True)


def run(count, clients, seconds):
    """Runs jobs from so many clients for about so long, each waiting for the end of one before it submits the next."""
    finished = [0] * clients
    begun = time.perf_counter()
    until = begun + seconds

    def client(number):
        while time.perf_counter() < until:
            DBOS.start_workflow(steps, count).get_result()
            finished[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(jobs=sum(finished), seconds=time.perf_counter() - begun)


def lone(count, times):
    micros = []
    for _ in range(times):
        begun = time.perf_counter()
        steps(count)
        micros.append((time.perf_counter() - begun) * 1e6)
    say(micros=micros)


async def make_waiting(count, number, seconds):
    until = time.perf_counter() + seconds
    made = 0
    while made < number and time.perf_counter() < until:
        batch = min(POOL, number - made)
        await asyncio.gather(*(DBOS.start_workflow_async(waiting, count) for _ in range(batch)))
        made += batch
    return made


def steps_done(engine):
    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM operation_outputs")).scalar()


def live(count, number, seconds):
    """Makes jobs that have taken their steps and wait for a day. Over when each has begun to wait."""
    engine = sa.create_engine(DATABASE)
    before = steps_done(engine)
    # The workflows belong to the loop that they were begun on, so it has to go on when all are made.
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    made = asyncio.run_coroutine_threadsafe(make_waiting(count, number, seconds), loop).result()
    # Each step leaves a row, and so does the sleep. This is the only thing here that has to look again and again.
    while steps_done(engine) < before + made * (count + 1):
        time.sleep(0.01)
    say(live=made)


def main():
    DBOS.launch()
    say(ready=True)
    steps(1)
    say(first=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "run":
            run(int(words[0]), int(words[1]), float(words[2]))
        elif command == "lone":
            lone(int(words[0]), int(words[1]))
        elif command == "steps":
            say(micros=timed_steps(int(words[0])))
        elif command == "live":
            live(int(words[0]), int(words[1]), float(words[2]))
        elif command == "durability":
            with sa.create_engine(DATABASE).connect() as connection:
                mode = connection.execute(sa.text("PRAGMA journal_mode")).scalar()
                level = connection.execute(sa.text("PRAGMA synchronous")).scalar()
            say(journal_mode=mode, synchronous=level)
        else:
            break


DATABASE = f"sqlite:///{Path(sys.argv[1]).resolve() / 'dbos.sqlite'}"
CONFIG: DBOSConfig = {
    "name": "bench",
    "system_database_url": DATABASE,
    "application_version": "1",
    "executor_id": "local",
    "log_level": "ERROR",
    "sys_db_pool_size": POOL,
}
DBOS(config=CONFIG)

if __name__ == "__main__":
    main()
    # Workflows that wait for a day would keep the interpreter from its end.
    sys.stdout.flush()
    import os

    os._exit(0)
