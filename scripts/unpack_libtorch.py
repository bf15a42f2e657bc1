"""Unpacks from wheels what a build against libtorch needs. Called by scripts/setup; needs Python's standard library only.

usage: unpack_libtorch.py cpu|cuda DIRECTORY WHEEL...

cpu:  DIRECTORY/{include,lib,licenses}: libtorch without its CUDA half, and beside it the two small CUDA libraries that
      libtorch_cpu.so names. libtorch_cuda*.so must not lie there, or it would be linked.
cuda: DIRECTORY/{torch,nvidia,licenses} as in site-packages, because the libraries find each other by relative paths.

Each wheel is deleted once it is unpacked, so that wheels and what was in them never lie side by side.
"""

import os
import shutil
import sys
import time
import zipfile

# Python's own half of the wheel, and programs.
NOT_NEEDED = ("libtorch_python.so", "libshm.so", "libtorch_global_deps.so")
# With libtorch_cpu.so as libtorch.so these have no user in the CPU set.
CUDA_ONLY = ("libtorch.so", "libtorch_cuda", "libtorch_nvshmem", "libc10_cuda", "libcaffe2_nvrtc")
CPU_SET_NEEDS = ("libcudart.so.", "libcupti.so.")


def target(name, kind):
    """Where a member of a wheel goes below DIRECTORY, or None where it is not needed."""
    parts = name.split("/")
    base = parts[-1]
    if name.startswith(("/", "..")) or ".." in parts:
        raise SystemExit(f"error: unexpected path in a wheel: {name}")
    if parts[0].endswith(".dist-info"):
        return f"licenses/{parts[0]}/{base}" if "license" in name.lower() or "notice" in name.lower() else None
    if parts[0] == "torch" and parts[1] in ("include", "lib"):
        if parts[1] == "lib" and (len(parts) > 3 or base.startswith(NOT_NEEDED)):
            return None
        if kind == "cuda":
            return name
        return None if parts[1] == "lib" and base.startswith(CUDA_ONLY) else "/".join(parts[1:])
    if parts[0] == "nvidia":
        if kind == "cuda":
            return None if base.endswith((".a", ".py")) else name
        return f"lib/{base}" if base.startswith(CPU_SET_NEEDS) else None
    return None


def unpack(wheel, directory, kind):
    """Unpacks one wheel; returns how many bytes it wrote."""
    written = 0
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            to = None if member.is_dir() else target(member.filename, kind)
            if to is None:
                continue
            path = os.path.join(directory, to)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # Reading to the end also checks the member's checksum.
            with archive.open(member) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            written += member.file_size
    return written


def main():
    kind, directory, wheels = sys.argv[1], sys.argv[2], sys.argv[3:]
    for wheel in sorted(wheels, key=os.path.getsize):
        start = time.monotonic()
        name = "-".join(os.path.basename(wheel).split("-")[:2])
        try:
            written = unpack(wheel, directory, kind)
        except zipfile.BadZipFile as error:
            os.remove(wheel)
            raise SystemExit(f"error: {os.path.basename(wheel)} is damaged ({error}) and was removed; run scripts/setup again")
        except OSError as error:
            raise SystemExit(f"error: cannot unpack {os.path.basename(wheel)}: {error}")
        os.remove(wheel)
        if written:
            print(f"   {name}: {written / 1e6:.0f} MB in {time.monotonic() - start:.0f} s", flush=True)
    root = os.path.join(directory, "torch") if kind == "cuda" else directory
    if kind == "cpu":
        os.symlink("libtorch_cpu.so", os.path.join(root, "lib", "libtorch.so"))
    # torch-sys compares this file with the version it was made for.
    with open(os.path.join(root, "build-version"), "w") as file:
        file.write("2.13.0\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted; run scripts/setup again")
