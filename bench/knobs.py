#!/usr/bin/env python3
"""What single knobs of `sluice tune` gain on this host: relay alone, the knob off and on in turns, medians.

    sudo python3 bench/knobs.py [--rounds 3] [--seconds 2] [--only NAME]

Needs target/release/sluice and sluice-bench. What a knob had before is put back after its rounds, also after an
interruption. A gain within the spread of the rounds is none.
"""
import argparse
import glob
import json
import pathlib
import statistics
import subprocess
import tempfile

BENCH = "target/release/sluice-bench"

STREAM = 'size = 4096\nsessions = 20\n'
CONNECTS = 'size = 4096\nsessions = 100\nmessages_per_connection = 1\n'
ONE = 'task = "accept"\nsize = 4096\nsessions = 1\n'


def device_of(directory):
    """The whole block device beneath a directory."""
    source = subprocess.run(["findmnt", "-no", "SOURCE", "-T", directory], capture_output=True, text=True)
    name = pathlib.Path(source.stdout.strip()).name
    parent = subprocess.run(["lsblk", "-no", "PKNAME", f"/dev/{name}"], capture_output=True, text=True)
    return parent.stdout.strip().splitlines()[0] if parent.stdout.strip() else name


def knobs(directory):
    """Name, work, and the files with what they hold off and on."""
    scheduler = f"/sys/block/{device_of(directory)}/queue/scheduler"
    core, ipv4 = "/proc/sys/net/core", "/proc/sys/net/ipv4"
    steering = [(f"{core}/rps_sock_flow_entries", "0", "8192"),
                ("/sys/class/net/lo/queues/rx-0/rps_flow_cnt", "0", "8192")]
    return [
        ("disk-scheduler, stream", STREAM, [(scheduler, "mq-deadline", "none")]),
        ("disk-scheduler, one session", ONE, [(scheduler, "mq-deadline", "none")]),
        ("packet-steering", STREAM, steering),
        ("packet-queue", STREAM, [(f"{core}/netdev_max_backlog", "1000", "2000")]),
        ("somaxconn", CONNECTS, [(f"{core}/somaxconn", "128", "4096")]),
        ("local-ports", CONNECTS, [(f"{ipv4}/ip_local_port_range", "32768 60999", "10240 65535")]),
    ]


def held(path):
    """What a file holds; of a choice, what is chosen."""
    text = pathlib.Path(path).read_text().strip()
    return text.split("[")[1].split("]")[0] if "[" in text else text


def put(path, value):
    pathlib.Path(path).write_text(value)


def measured(work, options):
    """One measurement of the relay."""
    with tempfile.TemporaryDirectory() as there:
        scenario = pathlib.Path(there, "knob.toml")
        scenario.write_text(f'[[scenario]]\nname = "knob"\n{work}servers = ["relay"]\n')
        command = [BENCH, "compare", "--scenarios", str(scenario), "--rounds", "1", "--dir", options.dir,
                   "--seconds", str(options.seconds), "--save", there]
        subprocess.run(command, check=True, capture_output=True)
        saved = json.loads(pathlib.Path(glob.glob(f"{there}/*.json")[0]).read_text())
        return saved["results"][0]["rows"][0]["figures"]


def shown(figures, key, digits):
    values = [key(one) for one in figures]
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="", help="knobs whose name contains this")
    parser.add_argument("--dir", default="/var/tmp", help="the file system that is measured")
    options = parser.parse_args()
    print("| knob | | messages/s | CPU ms | transaction p50 ms | p99 ms |\n|---|---|--:|--:|--:|--:|")
    for name, work, files in knobs(options.dir):
        if options.only not in name:
            continue
        before = [(path, held(path)) for path, _, _ in files]
        rows = {"off": [], "on": []}
        try:
            for _ in range(options.rounds):
                for state, figures in rows.items():
                    for path, off, on in files:
                        put(path, on if state == "on" else off)
                    figures.append(measured(work, options))
        finally:
            for path, value in before:
                put(path, value)
        for state, figures in rows.items():
            print(f"| {name} | {state} "
                  f"| {shown(figures, lambda one: one['messages_per_second'], 0)} "
                  f"| {shown(figures, lambda one: one['server_cpu_ms'], 3)} "
                  f"| {shown(figures, lambda one: one['transaction']['p50_ms'], 3)} "
                  f"| {shown(figures, lambda one: one['transaction']['p99_ms'], 2)} |", flush=True)


if __name__ == "__main__":
    main()
