"""Microsoft SEAL + Intel HEXL on the reference network: fetches and compiles both, and runs seal_ref.cpp.

  python seal_peer.py build DIR                                      standard library only; about two minutes, most of it compiling
  OMP_NUM_THREADS=1 taskset -c 0 python seal_peer.py run DIR REF.npz [fused]      numpy; the word is explained in seal_ref.cpp

SEAL 4.0.0 and HEXL 1.2.3 are those in the crates.io package seal_fhe 0.8.1, whose authors added to SEAL's encryption, which is not timed. Needs cmake, a C++ compiler and google's cpu_features (Debian: cmake g++ libcpu-features-dev). HEXL is compiled for the
processor at hand, so DIR does not move to another one. What DIR already holds is not made again.
"""
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
CRATE = "https://static.crates.io/crates/seal_fhe/seal_fhe-0.8.1.crate"
SHA256 = "dc3c40172acf7bb633a063025f2f8c8613350534615156994cb44ef5f2a8f254"


def fetch(folder):
    """Unpacks the crate into `folder`, once."""
    if os.path.isdir(folder):
        return
    try:
        with urllib.request.urlopen(CRATE, timeout=60) as answer:
            crate = answer.read()
    except OSError as problem:
        sys.exit(f"{CRATE}: {problem}")
    if hashlib.sha256(crate).hexdigest() != SHA256:
        sys.exit(f"{CRATE}: not the expected file")
    with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as half:
        with tarfile.open(fileobj=io.BytesIO(crate)) as archive:
            archive.extractall(half, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        os.rename(os.path.join(half, "seal_fhe-0.8.1"), folder)


def cmake(log, *words):
    done = subprocess.run(["cmake", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with open(log, "a") as out:
        out.write(done.stdout)
    if done.returncode != 0:
        telling = ("is not installed", "error:", "CMake Error: ")
        reasons = [line.strip() for line in done.stdout.splitlines() if any(word in line for word in telling)]
        sys.exit(f"{(reasons or ['cmake failed'])[0]} (see {log})")


def build(folder):
    if not shutil.which("cmake"):
        sys.exit("cmake is not installed")
    if not any(map(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")))):
        sys.exit("no C++ compiler is installed")
    folder = os.path.abspath(folder)
    os.makedirs(folder, exist_ok=True)
    crate, made, log = (os.path.join(folder, name) for name in ("seal_fhe", "build", "log"))
    fetch(crate)
    cmake(log, "-S", os.path.join(HERE, "seal"), "-B", made, "-DSOURCES=" + os.path.join(crate, "SEAL"))
    cmake(log, "--build", made, "--target", "seal_ref")


def run(folder, network, *words):
    import numpy as np
    import refnet
    net = dict(np.load(network))
    logits = refnet.forward(net, net["images"])[0]
    with tempfile.NamedTemporaryFile(suffix=".bin") as raw:
        for values in (net["images"], *(net[name] for name in ("cw", "cb", "w1", "b1", "w2", "b2")), logits):
            raw.write(np.ascontiguousarray(values, "float64").tobytes())
        raw.flush()
        return subprocess.run([os.path.join(folder, "build", "seal_ref"), raw.name, *words]).returncode


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "build":
        build(sys.argv[2])
    elif len(sys.argv) > 3 and sys.argv[1] == "run":
        sys.exit(run(*sys.argv[2:]))
    else:
        sys.exit(__doc__)
