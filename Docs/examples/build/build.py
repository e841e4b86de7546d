#!/usr/bin/env python3
"""Builds images of a file of stages, over the command varve alone.

    build.py FILE LAYOUT [STAGE...]

FILE is TOML, a table for each stage (see example.toml). LAYOUT is an OCI image layout; the image of a stage gets the stage's name as its
tag there, unless the stage is build-only. Every step is one layer, cached in LAYOUT under the tag step-KEY; KEY is a digest of the step
below, the step itself and what it copies. The store, where the bundles of run steps are, is $VARVE_STORE or /var/lib/varve.

A run that was interrupted goes on behind its last step. Builders that share LAYOUT make each step once.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib

VARVE = os.environ.get("VARVE", "varve")
STORE = os.environ.get("VARVE_STORE", "/var/lib/varve")
STEPS = {"run", "copy", "config"}


class Failure(Exception):
    """What ends a build, in one sentence."""


def varve(*words, quiet=False):
    """Runs one command; what it prints is the result."""
    done = subprocess.run([VARVE, *words], stdout=subprocess.PIPE if quiet else None, check=False)
    if done.returncode:
        raise Failure(f"varve {words[0]} ended with {done.returncode}")
    return done.stdout.decode() if quiet else ""


def digest(*parts):
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content(path):
    """A digest of a file, or of a directory and all below: names, modes, owners and contents."""
    seen = []
    for directory, folders, files in [(os.path.dirname(path), [], [os.path.basename(path)]), *os.walk(path)]:
        folders.sort()
        for name in sorted(files + folders):
            place = os.path.join(directory, name)
            status = os.lstat(place)
            what = [os.path.relpath(place, path), status.st_mode, status.st_uid, status.st_gid]
            if os.path.islink(place):
                what.append(os.readlink(place))
            elif os.path.isfile(place):
                with open(place, "rb") as file:
                    what.append(hashlib.file_digest(file, "sha256").hexdigest())
            seen.append(what)
    return digest(seen)


class Builder:
    def __init__(self, file, layout):
        with open(file, "rb") as opened:
            self.stages = tomllib.load(opened)
        self.folder = os.path.dirname(os.path.abspath(file))
        self.layout, self.keys, self.bases = layout, {}, {}
        with open(layout + ".lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(os.path.join(layout, "oci-layout")):
                varve("init", "--layout", layout)
        self.look()

    def look(self):
        """The tags of the layout, and what each stands for."""
        tags = json.loads(varve("ls", "--layout", self.layout, "--format", "json", quiet=True))
        self.tags = {tag["name"]: tag["digest"] for tag in tags}

    def image(self, tag):
        return f"{self.layout}:{tag}"

    def build(self, name, path=()):
        """Builds a stage with all that it needs, and returns the tag of its last step."""
        if name in self.keys:
            return self.keys[name]
        if name not in self.stages:
            raise Failure(f"there is no stage {name}")
        if name in path:
            raise Failure("stages need each other: " + " ".join([*path, name]))
        stage = self.stages[name]
        if wrong := set(stage) - STEPS - {"from", "build_only"}:
            raise Failure(f"stage {name}: {sorted(wrong)[0]} is not known")
        tag = self.base(stage.get("from", ""), (*path, name))
        for number, (kind, step) in enumerate(self.steps(stage), 1):
            tag = self.step(f"{name} {number}: {kind}", tag, kind, step, (*path, name))
        if not stage.get("build_only") and self.tags.get(name) != self.tags.get(tag):
            varve("tag", "--image", self.image(tag), name)
            self.tags[name] = self.tags[tag]
        self.keys[name] = tag
        return tag

    def steps(self, stage):
        for kind, steps in stage.items():
            if kind in STEPS:
                for step in steps if isinstance(steps, list) else [steps]:
                    yield kind, step

    def base(self, source, path):
        if source.startswith("stage:"):
            return self.build(source.removeprefix("stage:"), path)
        if not source:
            return self.make(digest("empty"), "an empty image", lambda tag: varve("new", "--image", self.image(tag)))
        if source not in self.bases:
            # What a name means elsewhere is asked once a run; what is here already is not fetched.
            name = "base-" + digest(source)[:32]
            varve("pull", source, self.image(name), quiet=True)
            self.look()
            key = digest("base", self.tags[name])
            self.bases[source] = self.make(key, source, lambda tag: varve("tag", "--image", self.image(name), tag))
        return self.bases[source]

    # --- steps

    def step(self, what, below, kind, step, path):
        """One step on top of another; returns its tag."""
        if kind == "copy":
            source, target = step
            if source.startswith("stage:"):
                other, inner = source.removeprefix("stage:").split(":", 1)
                tag = self.build(other, path)
                return self.make(digest(below, kind, tag, inner, target), what,
                                 lambda made: self.copy_from(tag, inner, below, made, target))
            place = os.path.join(self.folder, source)
            return self.make(digest(below, kind, content(place), target), what,
                             lambda made: varve("insert", "--image", self.image(below), "--tag", made, place, target))
        act = self.run if kind == "run" else self.configure
        return self.make(digest(below, kind, step), what, lambda made: act(below, made, step))

    def make(self, key, what, act):
        """Makes a step unless it is there, with nobody else at it."""
        tag = "step-" + key[:32]
        if tag in self.tags:
            return tag
        locks = self.layout + ".locks"
        os.makedirs(locks, exist_ok=True)
        with open(os.path.join(locks, tag), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.look()
            if tag not in self.tags:
                print(what, flush=True)
                act(tag)
                self.look()
        return tag

    def bundle(self, tag):
        """A bundle of an image. Whoever makes a step has its lock, so one of this layout was left by a run that was killed."""
        place = os.path.join(STORE, "bundles", f"build-{digest(os.path.realpath(self.layout))[:12]}-{tag}")
        if os.path.lexists(place):
            varve("bundle", "rm", place)
        return place

    def run(self, below, made, command):
        bundle = self.bundle(made)
        try:
            varve("unpack", "--image", self.image(below), bundle)
            varve("run", bundle, "--", "/bin/sh", "-ec", command)
            varve("repack", "--image", self.image(made), "--history.created_by", command, bundle)
        finally:
            if os.path.lexists(bundle):
                varve("bundle", "rm", bundle)

    def copy_from(self, tag, inner, below, made, target):
        bundle = self.bundle(made)
        try:
            varve("unpack", "--image", self.image(tag), bundle)
            varve("insert", "--image", self.image(below), "--tag", made,
                  os.path.join(bundle, "rootfs", inner.lstrip("/")), target)
        finally:
            if os.path.lexists(bundle):
                varve("bundle", "rm", bundle)

    def configure(self, below, made, options):
        words = []
        for key, values in options.items():
            for value in values if isinstance(values, list) else [values]:
                words.append(f"--config.{key}={value}")
        varve("config", "--image", self.image(below), "--tag", made, *words)


def main():
    try:
        builder = Builder(sys.argv[1], sys.argv[2])
        for name in sys.argv[3:] or builder.stages:
            builder.build(name)
    except IndexError:
        sys.exit(__doc__)
    except (Failure, OSError, ValueError) as failure:
        sys.exit(f"build.py: {failure}")


if __name__ == "__main__":
    main()
