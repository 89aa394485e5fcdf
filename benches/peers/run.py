#!/usr/bin/env python3
"""The reference network here and in what a user would pick instead, side by side in one call, as ratios.

  benches/peers/run.py [--fraction 1] [--python python3.10] [--rounds 3] [--only nightshift SEAL+HEXL]

Makes a virtual environment (openfhe and tenseal; openfhe's wheel imports only under CPython 3.10), compiles SEAL and HEXL (two minutes), draws the
network's weights and images, and runs, on one thread each and one after the other in rounds:
 * the worker on a full batch of the model of this shape that comes with the program, file to file;
 * OpenFHE and TenSEAL as a competent user writes them in Python (lazy rescale), server side, from ciphertexts in memory;
 * SEAL with HEXL as an expert drives them from C++ (seal_ref.cpp), server side, from serialised inputs in memory, whose loading is counted;
   `fused` with a relinearisation of its own from HEXL's functions.
Peers compute 4096 images a batch and all outputs, about a minute a round; with `--fraction 8` OpenFHE and TenSEAL compute an eighth of them,
extrapolated, which flatters them: an eighth fits into the cache. Prints the medians of all rounds in milliseconds an image, and how many times
ours. A peer that this Python cannot import, or that cannot be fetched and compiled here, is named and left out.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.join(ROOT, "target", "release")
WHEELS = ("OpenFHE", "TenSEAL")
SEALS = ("SEAL+HEXL", "SEAL+HEXL fused")
NAMES = ("nightshift", *WHEELS, *SEALS)
SERVER = re.compile(r"SERVER total .*?([0-9.]+) ms wall/image")


def run(*words, **more):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def ours(work):
    """Milliseconds an image of the whole process, the second of two runs."""
    model = os.path.join(ROOT, "models", "mnist-cryptonets.nsm")
    client = os.path.join(BIN, "nightshift")
    job = os.path.join(work, "demo", "job")
    if not os.path.isdir(job):
        run(client, "demo", "--model", model, "--images", "8192", "--workdir", os.path.join(work, "demo"), "--quiet")
    for _ in range(2):
        receipt = os.path.join(job, "receipt.json")
        if os.path.exists(receipt):
            os.remove(receipt)
        start = time.perf_counter()
        run(os.path.join(BIN, "nightshift-worker"), "run", os.path.join(job, "job.toml"), "--threads", "1", "--quiet")
        secs = time.perf_counter() - start
    return 1e3 * secs / 8192


def peer(python, script, *words):
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    found = SERVER.findall(run(python, os.path.join(HERE, script), *words, cwd=HERE, env=environment))
    if not found:
        sys.exit(f"{script}: no server total in its output")
    return float(found[-1])


def found_python():
    """A python3.10 that runs (a version manager's may only say that it is not chosen), or this one."""
    python = shutil.which("python3.10")
    works = python and subprocess.run([python, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    return python if works else sys.executable


def importable(python, module):
    """Whether a peer is there; says why not."""
    done = subprocess.run([python, "-c", f"import {module}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(f"{module} left out, this Python cannot import it: {(done.stdout.strip().splitlines() or ['no reason given'])[-1]}")
    return done.returncode == 0


def built(python, folder):
    """Whether SEAL + HEXL is there, built if need be; says why not."""
    done = subprocess.run([python, os.path.join(HERE, "seal_peer.py"), "build", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(f"SEAL+HEXL left out: {(done.stdout.strip().splitlines() or ['no reason given'])[-1]}")
    return done.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=int, default=1, help="peers compute one part in so many")
    parser.add_argument("--python", default=found_python(), help="default: python3.10 if there is one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help="some of: " + " ".join(NAMES))
    parser.add_argument("--venv", help="environment to use or make (default: a temporary one)")
    parser.add_argument("--build", help="folder to build SEAL and HEXL in, or already built (default: beside --venv, or a temporary one)")
    parser.add_argument("--json", help="write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightshift-peers-") as work:
        venv = os.path.abspath(args.venv or os.path.join(work, "venv"))
        build = os.path.abspath(args.build or (venv + "-seal" if args.venv else os.path.join(work, "seal")))
        python = os.path.join(venv, "bin", "python")
        if not os.path.exists(python):
            run(args.python, "-m", "venv", venv)
            run(python, "-m", "pip", "install", "--quiet", "numpy", *(name.lower() for name in WHEELS if name in args.only))
        network = os.path.join(work, "ref.npz")
        run(python, os.path.join(HERE, "refnet.py"), "random", network)
        part = max(1, args.fraction)
        neurons = str(max(1, 100 // part))
        runs = {
            "nightshift": lambda: ours(work),
            "OpenFHE": lambda: peer(python, "openfhe_ref.py", "ref", network, "lazy8", str(max(1, 845 // part)), neurons),
            "TenSEAL": lambda: peer(python, "tenseal_ref.py", "sealapi", network, str(max(1, 169 // part)), neurons),
            "SEAL+HEXL": lambda: peer(python, "seal_peer.py", "run", build, network),
            "SEAL+HEXL fused": lambda: peer(python, "seal_peer.py", "run", build, network, "fused"),
        }
        runs = {name: measure for name, measure in runs.items() if name in args.only}
        for name in WHEELS:
            if name in runs and not importable(python, name.lower()):
                del runs[name]
        if any(name in runs for name in SEALS) and not built(python, build):
            runs = {name: measure for name, measure in runs.items() if name not in SEALS}
        figures = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, measure in runs.items():
                figures[name].append(measure())
        typical = {name: statistics.median(values) for name, values in figures.items()}
        ratios = {name: value / typical["nightshift"] for name, value in typical.items() if "nightshift" in typical}
        for name, value in typical.items():
            print(f"{name:<17}{value:10.4f} ms an image" + (f"{ratios[name]:10.1f} times ours" if ratios else ""))
        if args.json:
            with open(args.json, "w") as out:
                json.dump({"ms_per_image": figures, "ratios": ratios}, out, indent=1)


if __name__ == "__main__":
    main()
