"""The rounds of Scripts/crash: crash.py VARVE SCRATCH [--rounds N] [--seed S] [--no-points] [--verbose]"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True

from campaign import PowerCutCampaign
from store_world import (Wrong, chain_names, check_layout, is_subvolume, make_layout, must, read_bundle, read_tree,
                         require_equal)


class Crash(PowerCutCampaign):
    name = "crash"

    def __init__(self, options):
        super().__init__(options)
        self.layout = f"{self.world}/layout"
        self.work = f"{self.world}/work"
        self.user = f"{self.world}/user"
        self.sound = {}

    # --- the world

    def make(self):
        self.make_disk(768 << 20)
        must([self.varve, "store", "init", self.store])
        self.a, self.b = make_layout(self.layout)
        for model in (self.a, self.b):
            self.chains.update(model.trees)
        # The user's bundle: of an image, edited, and none of any round's business.
        self.must("unpack", "--image", f"{self.layout}:a", self.user)
        self.edit(f"{self.user}/rootfs", b"of the user")
        must(["sync", "-f", self.user])
        self.user_tree = read_bundle(self.user)
        self.must("unpack", "--image", f"{self.layout}:a", self.work)
        os.sync()

    # --- the commands that are ended

    def operations(self):
        return {
            "unpack": 4, "unpack-b": 3, "repack": 4, "refresh": 2, "gc": 4, "snapshot": 2, "restore": 2, "bundle-rm": 2,
            "init": 1, "init-loopback": 1,
        }

    def prepare(self, operation):
        """What the command needs; returns its arguments."""
        new = f"{self.world}/new"
        if operation in ("unpack", "unpack-b"):
            if self.random.random() < 0.7:
                self.must("store", "gc", "-q")
            return ["unpack", "--image", f"{self.layout}:{'a' if operation == 'unpack' else 'b'}", new]
        if operation in ("repack", "refresh"):
            self.edit(f"{self.work}/rootfs", b"repacked")
            must(["sync", "-f", self.work])
            self.work_tree = read_tree(f"{self.work}/rootfs")
            options = ["--refresh-bundle"] if operation == "refresh" else []
            return ["repack", "--image", f"{self.layout}:r{self.serial % 4}", *options, self.work]
        if operation == "gc":
            self.must("unpack", "--image", f"{self.layout}:b", new)
            self.must("bundle", "rm", new)
            return ["store", "gc", "--sync"]
        if operation == "snapshot":
            return ["snapshot", "create", self.user, f"s{self.serial}"]
        if operation == "restore":
            self.must("snapshot", "create", self.user, "kept")
            return ["snapshot", "restore", "kept", new]
        if operation == "bundle-rm":
            self.must("unpack", "--image", f"{self.layout}:a", new)
            must(["btrfs", "-q", "subvolume", "create", f"{new}/rootfs/nested"])
            must(["btrfs", "-q", "subvolume", "create", f"{new}/rootfs/nested/deeper"])
            return ["bundle", "rm", new]
        if operation == "init":
            return ["store", "init", f"{self.world}/second"]
        return ["store", "init", f"{self.world}/third", "--loopback", "256M"]

    def tidy(self):
        """The start of the next round, by commands that must work whatever the last one left."""
        new = f"{self.world}/new"
        if os.path.exists(new):
            self.must("bundle", "rm", new)
        for name in self.must("snapshot", "ls", "-q").split():
            self.must("snapshot", "rm", name)
        if self.random.random() < 0.1:
            # What repacks left, tagged or not.
            for tag in [t for t in self.tags() if t.startswith("r")]:
                self.must("rm", "--image", f"{self.layout}:{tag}")
            self.must("gc", "--layout", self.layout)
            self.must("bundle", "rm", self.work)
            self.must("unpack", "--image", f"{self.layout}:a", self.work)
            self.must("store", "gc")
            present = set(os.listdir(f"{self.store}/chains"))
            self.chains = {n: t for n, t in self.chains.items()
                           if n in present or n in self.a.trees or n in self.b.trees}

    # --- one round

    def round(self):
        operation = self.random.choices(list(self.operations()), list(self.operations().values()))[0]
        arguments = self.prepare(operation)
        must(["sync", "-f", self.world])
        at_point = self.draw_point()
        power = self.random.random() < 0.5
        environment = dict(self.environment)
        if at_point:
            environment["VARVE_STOP_AT"] = str(self.point[operation])
        self.what = f"{operation}, {'point ' + str(self.point[operation]) if at_point else 'any moment'}, " \
                    f"{'power cut' if power else 'kill -9'}"
        start = time.monotonic()
        process = subprocess.Popen([self.varve, "--log", "error", *arguments], env=environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if at_point:
            status = os.waitpid(process.pid, os.WUNTRACED)[1]
            stopped = os.WIFSTOPPED(status)
            if not stopped:
                process.returncode = os.waitstatus_to_exitcode(status)
        else:
            try:
                process.wait(self.random.uniform(0, self.durations[operation] * 1.1))
                stopped = False
            except subprocess.TimeoutExpired:
                stopped = True
        if power:
            self.clone()
        if stopped:
            process.send_signal(signal.SIGKILL)
            process.wait()
        elif process.returncode:
            raise Wrong(f"it failed by itself with {process.returncode}: {process.stderr.read().decode()}")
        else:
            self.took(operation, time.monotonic() - start)
        process.stderr.close()
        if at_point:
            self.end_point(operation, stopped)
        self.count(stopped, power, at_point)
        third = f"{self.world}/third"
        if power:
            while os.path.ismount(third):
                must(["umount", third])
            self.cut()
        self.check(operation, not stopped and not power)
        self.tidy()

    def tags(self):
        return check_layout(self.layout, self.sound)

    def check(self, operation, is_whole):
        """is_whole: the command came to its end, and nothing was taken back."""
        # Before anything cleans up: what is visible is whole.
        is_new = self.work_tree.__eq__ if operation in ("repack", "refresh") else None
        self.check_chains(is_new)
        require_equal("the bundle of the user", read_bundle(self.user), self.user_tree)
        tags = self.tags()
        if not {"a", "b"} <= set(tags):
            raise Wrong(f"the layout has lost tags: it has {sorted(tags)}")
        if operation in ("repack", "refresh"):
            require_equal("the bundle that was repacked", read_tree(f"{self.work}/rootfs"), self.work_tree)
            tag = f"r{self.serial % 4}"
            if is_whole:
                require_equal("the new image", self.chains[chain_names(tags[tag])[-1]], self.work_tree)
        new = f"{self.world}/new"
        if os.path.exists(new) and operation != "bundle-rm":
            if not is_subvolume(new):
                raise Wrong("a bundle is no subvolume")
            expected = {"unpack": self.a.tree, "unpack-b": self.b.tree}.get(operation)
            require_equal("the new bundle", read_tree(f"{new}/rootfs"), expected or read_tree(f"{self.user}/rootfs"))
            for name in ("config.json", "umoci.json"):
                with open(f"{new}/{name}") as file:
                    json.load(file)
        elif is_whole and operation in ("unpack", "unpack-b", "restore"):
            raise Wrong("the bundle is missing though the command ended well")
        snapshots = os.listdir(f"{self.store}/snapshots")
        for name in snapshots:
            require_equal("a snapshot", read_bundle(f"{self.store}/snapshots/{name}"), self.user_tree)

        # The next command cleans up, and finds nothing wrong.
        if operation.startswith("init"):
            self.check_init(operation)
        self.must("store", "ls", "-q")
        found = self.must("store", "check")
        if found:
            raise Wrong(f"store check: {found}")
        for place in ("work", "locks"):
            if left := os.listdir(f"{self.store}/{place}"):
                raise Wrong(f"{place}/ has {left} left over")
        self.check_chains(is_new)

    def check_init(self, operation):
        second, third = f"{self.world}/second", f"{self.world}/third"
        if operation == "init":
            must([self.varve, "store", "init", second], env=self.environment)
            found = must([self.varve, "--store", second, "store", "check"], env=self.environment)
            if sorted(os.listdir(second)) != ["chains", "locks", "refreshed", "snapshots", "store.json", "work"]:
                raise Wrong(f"the new store holds {os.listdir(second)}")
            shutil.rmtree(second)
        else:
            if os.path.exists(third + ".btrfs"):
                must([self.varve, "store", "mount", third], env=self.environment)
            else:
                must([self.varve, "store", "init", third, "--loopback", "256M"], env=self.environment)
            found = must([self.varve, "--store", third, "store", "check"], env=self.environment)
            must([self.varve, "store", "unmount", third], env=self.environment)
            if left := [n for n in os.listdir(self.world) if n.startswith("third.") and n != "third.btrfs"]:
                raise Wrong(f"{left} left over")
            os.unlink(third + ".btrfs")
            os.rmdir(third)
        if found:
            raise Wrong(f"store check: {found}")

    def clean(self):
        self.unmount_all(f"{self.world}/third")

    def deep(self):
        self.must("store", "check", "--deep", "--layout", self.layout)
        self.counts["deep checks"] += 1


if __name__ == "__main__":
    Crash.main()
