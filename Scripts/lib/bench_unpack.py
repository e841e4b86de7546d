"""Scripts/bench unpack: cold and warm unpack, one of many small files, many at once, plain directories, memory, repack of new data."""

import glob
import os
import shutil
import subprocess
import sys
import time

import bench as tools
from bench import (Failed, Floor, Image, Run, at_most, bench_image, case, delete_subvolumes, faster, milliseconds, place, plain_file, quiet,
                   remove_bundle, remove_chains, row, settle, spread, synchronize, take_turns, varve)


def unpack_cold(image):
    """One unpack into a store that has nothing."""
    bundle = place("cold")
    run = varve("unpack", "--image", image.reference, bundle, sync=tools.volume)
    remove_bundle(bundle)
    remove_chains()
    settle()
    return run


def against_the_floor(name, picture, most, most_of_bound, near_runs, bare_runs, bound_runs):
    """The rows of the floor and of the bound: `most` of the floor, unless the bound is more than that, and `most_of_bound`."""
    if not bare_runs or not bound_runs:
        return
    near, floor_time, bound_time = (milliseconds(runs) for runs in (near_runs, bare_runs, bound_runs))
    at_most(name, near, "the floor: tars in memory, no hash", floor_time, most, bound_time, kind="part", runs=spread(near_runs),
            other_runs=spread(bare_runs))
    at_most(name, near, "the bound: all that must be done", bound_time, most_of_bound, kind="part", picture=picture,
            runs=spread(near_runs), other_runs=spread(bound_runs))


@case("unpack")
def cold(rounds):
    """cold unpack"""
    image = bench_image()
    blobs = image.blobs

    def ours():
        return unpack_cold(image)

    def umoci():
        bundle = place("umoci-cold")
        run = Run(tools.options.umoci, "unpack", "--image", image.reference, bundle, sync=tools.volume)
        shutil.rmtree(bundle)
        settle()
        return run

    def storage():
        root = place("containers")
        target = f"containers-storage:[btrfs@{root}+{root}-run]localhost/bench:latest"
        try:
            return Run("skopeo", "--insecure-policy", "copy", "--quiet", "oci:" + image.reference, target, sync=tools.volume)
        finally:
            for path in glob.glob(root + "/btrfs/subvolumes/*"):
                subprocess.run(["btrfs", "-q", "subvolume", "delete", path])
            for path in (root, root + "-run"):
                shutil.rmtree(path, ignore_errors=True)
            settle()

    def tar():
        subvolume = place("tar")
        quiet("btrfs", "subvolume", "create", subvolume)
        script = 'cd "$1"; shift; for layer; do gzip -dc "$layer" | tar -xp || exit 1; done'
        run = Run("bash", "-o", "pipefail", "-c", script, "tar", subvolume, *blobs, sync=tools.volume)
        delete_subvolumes(subvolume)
        settle()
        return run

    with Floor(image) as floor:
        # Not counted: the first to write to a new volume pays for the blocks of its image file.
        ours()
        ours_runs, *others = take_turns(rounds, ours, umoci, storage, tar)
        # These are short, and near each other: by themselves, and more often.
        near_runs, bare_runs, bound_runs = take_turns(rounds * 3, ours, floor.bare, floor.bound)
    picture = "Unpack, nothing there yet: 10 layers, 36,000 files, 1 GB"
    time_of_ours = milliseconds(ours_runs)
    names = ["umoci 0.6 unpack", "skopeo copy to containers-storage", "gzip -dc | tar -xp, one subvolume"]
    for name, factor, runs in zip(names, (5, 3, 2.7), others):
        if runs:
            faster("cold unpack, 10 layers", time_of_ours, name, milliseconds(runs), factor, bound_runs and milliseconds(bound_runs),
                   picture=picture, runs=spread(ours_runs), other_runs=spread(runs))
    against_the_floor("cold unpack, 10 layers", "Unpack, beside its bound", 1.35, 1.12, near_runs, bare_runs, bound_runs)
    peak = max(run.memory for run in ours_runs) / 1024
    row("peak memory, 10 layers", peak, "", None, None, "≤ 72 MiB", peak <= 72, unit="MiB")


@case("unpack")
def small_files(rounds):
    """1,000,000 small files"""
    count = tools.scale(1_000_000)
    image = Image("files", "--files", str(count))
    with Floor(image) as floor:
        # Not counted: the first to write to a new volume pays for the blocks of its image file.
        floor.bare()
        runs = take_turns(rounds, lambda: unpack_cold(image), floor.bare, floor.bound)
    against_the_floor(f"cold unpack, {count:,} files of 128 bytes", None, 1.1, 1.1, *runs)
    shutil.rmtree(image.layout)
    settle()


@case("unpack")
def many_at_once(rounds):
    """many at once"""
    count = 8
    images = [Image(f"variant-{number}", "--bench", "--scale", "0.02" if tools.options.quick else "0.2", "--variant", str(number + 1))
              for number in range(count)]
    bundles = [place(f"many-{number}") for number in range(count)]

    def unpack(*numbers):
        processes = [subprocess.Popen([tools.options.varve, "unpack", "--image", images[number].reference, bundles[number]],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for number in numbers]
        errors = [process.communicate()[1].decode(errors="replace").strip() for process in processes]
        if any(process.returncode for process in processes):
            raise Failed(f"varve unpack failed: {' / '.join(filter(None, errors))[:500]}")

    def timed(work):
        def run():
            start = time.perf_counter()
            work()
            synchronize()
            seconds = time.perf_counter() - start
            for bundle in bundles:
                remove_bundle(bundle)
            remove_chains()
            settle()
            return seconds
        return run

    def together():
        unpack(*range(count))

    def in_turn():
        for number in range(count):
            unpack(number)

    # Not counted, as above.
    timed(in_turn)()
    ours, theirs = take_turns(rounds, timed(together), timed(in_turn))
    at_most(f"{count} cold unpacks of {count} images, in {count} processes", milliseconds(ours), "one after the other", milliseconds(theirs), 1.1,
            kind="reference", runs=spread(ours), other_runs=spread(theirs))
    for image in images:
        shutil.rmtree(image.layout)
    settle()


@case("unpack")
def warm(rounds):
    """warm unpack"""
    times = {}
    hundred = Image("layers-100", "--layers", "100")
    for name, image in (("35,000 files", bench_image()), ("1 layer", Image("layers-1", "--layers", "1")),
                        ("100 layers", hundred)):
        remove_bundle(place("first"))
        varve("unpack", "--image", image.reference, place("first"))
        remove_bundle(place("first"))
        chain = os.path.join(os.environ["VARVE_STORE"], "chains", image.chains[-1])
        settle()

        def ours():
            run = varve("unpack", "--image", image.reference, place("warm"))
            remove_bundle(place("warm"))
            synchronize()
            return run

        def snapshot():
            run = Run("btrfs", "subvolume", "snapshot", chain, place("snapshot"))
            delete_subvolumes(place("snapshot"))
            synchronize()
            return run

        ours_runs, theirs = take_turns(rounds * 20, ours, snapshot)
        times[name] = milliseconds(ours_runs)
        at_most(f"warm unpack, {name}", times[name], "btrfs subvolume snapshot", milliseconds(theirs), 2,
                kind="part", picture="Unpack, layers there already" if name == "35,000 files" else None, runs=spread(ours_runs), other_runs=spread(theirs))
    remove_chains()


@case("unpack")
def memory_of_a_large_file(rounds):
    """memory of a large file"""
    size = "400M" if tools.options.quick else "4G"
    image = Image("file", "--file", size)
    run = varve("unpack", "--image", image.reference, place("large"), sync=tools.volume)
    remove_bundle(place("large"))
    remove_chains()
    shutil.rmtree(image.layout)
    settle()
    row(f"peak memory, a file of {size} in a layer", run.memory / 1024, "", None, None, "≤ 72 MiB",
        run.memory <= 72 * 1024, unit="MiB")


@case("unpack")
def repack_new_data(rounds):
    """repack of new data"""
    base, data = Image("layers-3", "--layers", "3"), bench_image()
    layout = place("repack-layout")
    shutil.copytree(base.layout, layout)
    bundle = place("repack")
    varve("unpack", "--image", layout + ":latest", bundle)
    target = os.path.join(bundle, "rootfs", "new")
    os.mkdir(target)
    for layer in data.layers:
        subprocess.run(f"gzip -dc '{data.layout}/blobs/sha256/{layer}' | tar -x --exclude='.wh.*' -C '{target}'", shell=True, check=True)
    synchronize()
    # One thread of zlib at the level that Varve deflates with, on the same bytes, which are in memory.
    archive = place("new.tar")
    subprocess.run(["tar", "-cf", archive, "-C", bundle + "/rootfs", "new"], check=True)
    size = os.path.getsize(archive)

    def chains():
        return set(varve("store", "ls", "-q", output=True).output.decode().split())

    # The chain that the bundle came from stays: the next round's delta counts from it.
    kept = chains()

    def ours():
        # The layer is new to the layout each time.
        shutil.rmtree(layout)
        shutil.copytree(base.layout, layout)
        run = varve("repack", "--image", f"{layout}:new", bundle)
        for name in chains() - kept:
            varve("store", "rm", name)
        settle()
        return run

    def deflate():
        return Run(sys.executable, os.path.join(tools.LIBRARY, "deflate.py"), archive)

    ours_runs, theirs = take_turns(rounds, ours, deflate)
    faster(f"repack of {size >> 20} MiB of new data", milliseconds(ours_runs), "zlib -6, one thread",
           milliseconds(theirs), 1.7, kind="part", picture=f"Repack of {size >> 20} MiB of new data, as gzip", runs=spread(ours_runs), other_runs=spread(theirs))
    remove_bundle(bundle)
    os.unlink(archive)
    shutil.rmtree(layout)
    settle()


@case("unpack")
def directories(rounds):
    """plain directories on ext4"""
    disk = tools.volume + "-ext4"
    layout = os.path.join(disk, "layout")
    shutil.copytree(bench_image().layout, layout)
    bundles = {"varve": os.path.join(disk, "varve"), "umoci": os.path.join(disk, "umoci")}
    programs = {"varve": (tools.options.varve, "unpack", "--driver", "directory"), "umoci": (tools.options.umoci, "unpack")}

    def remove(name):
        if os.path.lexists(bundles[name]):
            shutil.rmtree(bundles[name])
            synchronize(disk)

    def unpack(name):
        def run():
            remove(name)
            return Run(*programs[name], "--image", layout + ":latest", bundles[name], sync=disk)
        return run

    # Not counted: the first to write to a new file system pays for the blocks of its image file.
    unpack("varve")()
    ours, theirs = take_turns(rounds, unpack("varve"), unpack("umoci"))
    if theirs:
        faster("cold unpack, a plain directory on ext4", milliseconds(ours), "umoci 0.6 unpack", milliseconds(theirs), 5,
               picture="Unpack without btrfs, to a plain directory on ext4", runs=spread(ours), other_runs=spread(theirs))
        for bundle in bundles.values():
            with open(plain_file(bundle + "/rootfs"), "ab") as file:
                file.write(b"changed\n")
        synchronize(disk)
        tags = iter(range(1000))
        ours, theirs = take_turns(
            rounds,
            lambda: varve("repack", "--image", f"{layout}:varve{next(tags)}", bundles["varve"]),
            lambda: Run(tools.options.umoci, "repack", "--image", f"{layout}:umoci{next(tags)}", bundles["umoci"]))
    if theirs:
        faster("repack of one file, a plain directory on ext4", milliseconds(ours), "umoci 0.6 repack", milliseconds(theirs), 40,
               picture="Repack of that: one of 36,000 files changed", runs=spread(ours), other_runs=spread(theirs))
    for name in bundles:
        remove(name)
    shutil.rmtree(layout)
    synchronize(disk)
