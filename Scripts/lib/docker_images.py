"""Images for Docker, and Dockerfiles that change them in many ways.

    docker_images.py base LAYOUT ARCHIVE BUSYBOX    an image with a shell (BUSYBOX, a static one) and some files to change; ARCHIVE
                                                    holds it as example.org/base:latest
    docker_images.py pause LAYOUT ARCHIVE BUSYBOX   an image that does nothing, for ever; ARCHIVE holds it as example.org/pause:latest
    docker_images.py contexts FOLDER COUNT SEED     COUNT folders with a Dockerfile and what it copies: the written ones first, then
                                                    random ones. A file `arguments` has the words that `docker build` gets for it
"""

import io
import os
import random
import subprocess
import sys
import tarfile

import containerd_image
import oci_image

BASE = "example.org/base:latest"


def make_base(layout, archive, busybox):
    programs = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    with open(busybox, "rb") as file:
        content = file.read()
    bottom = [("bin", None, 0o755), ("bin/busybox", content, 0o755)]
    for name in ("etc", "proc", "sys", "dev", "usr", "usr/bin", "var", "var/lib"):
        bottom.append((name, None, 0o755))
    bottom += [("tmp", None, 0o1777), ("root", None, 0o700)]
    bottom += [("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", 0o644),
               ("etc/group", b"root:x:0:\nuser:x:1000:\n", 0o644)]
    containerd_image.add_program(bottom, "setfattr")
    links = [("bin/" + name, name) for name in programs if name not in ("busybox", "dpkg", "dpkg-deb", "rpm")]
    data = [("data", None, 0o755)]
    for folder in range(10):
        data.append((f"data/{folder}", None, 0o755))
        data += [(f"data/{folder}/{name}", f"{folder} {name}\n".encode() * 50, 0o644) for name in range(20)]
    data += [("data/tool", b"#!/bin/sh\n", 0o755), ("data/large", bytes(range(256)) * 4096, 0o644)]
    oci_image.create_layout(layout)
    layers = []
    with oci_image.LayerWriter(layout) as writer:
        for name, content, mode in bottom:
            kind = oci_image.DIRECTORY if content is None else oci_image.REGULAR
            writer.entry(name.encode(), kind, mode=mode, size=len(content or b""), data=[content] if content else ())
        for name, _ in links:
            writer.entry(name.encode(), oci_image.SYMLINK, mode=0o777, target=b"busybox")
    layers.append((writer.digest, writer.blob_size, writer.diff_id, "base"))
    layers.append(containerd_image.layer(layout, data, "data"))
    execution = {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"]}
    oci_image.finish_layout(layout, "latest", layers, oci_image.native_architecture(), execution, 0)
    containerd_image.write_archive(layout, archive, BASE)


def make_pause(layout, archive, busybox):
    oci_image.create_layout(layout)
    with open(busybox, "rb") as file:
        layers = [containerd_image.layer(layout, [("busybox", file.read(), 0o755)], "pause")]
    execution = {"Entrypoint": ["/busybox", "sleep", "1000000"]}
    oci_image.finish_layout(layout, "latest", layers, oci_image.native_architecture(), execution, 0)
    containerd_image.write_archive(layout, archive, "example.org/pause:latest")


# --- Dockerfiles ----------------------------------------------------------------------------------------------------
# Each is a name, the lines behind `FROM base AS first`, and what else lies in its context.

FILES = {
    "file": b"a file\n",
    "folder/one": b"one\n",
    "folder/two": b"two\n",
    "folder/below/three": b"three\n",
    "tool.sh": b"#!/bin/sh\necho tool\n",
    ".dockerignore": b"ignored*\n",
    "ignored-file": b"must not be in an image\n",
}

WRITTEN = [
    ("nothing", ["RUN true", "RUN true"]),
    ("new-file", ["RUN echo new >/new", "RUN echo more >>/new"]),
    ("delete", ["RUN rm /data/tool /data/0/1", "RUN rm -r /data/3"]),
    ("delete-and-make", ["RUN rm -r /data/1 && mkdir /data/1 && echo new >/data/1/new"]),
    ("make-then-delete", ["RUN mkdir /x && echo 1 >/x/1", "RUN rm -r /x", "RUN mkdir /x && echo 2 >/x/2"]),
    ("file-becomes-folder", ["RUN rm /data/tool && mkdir /data/tool && echo in >/data/tool/in"]),
    ("folder-becomes-file", ["RUN rm -r /data/2 && echo file >/data/2"]),
    ("folder-becomes-link", ["RUN mv /data/4 /data/moved && ln -s moved /data/4"]),
    ("link-becomes-folder", ["RUN ln -s 5 /data/link", "RUN rm /data/link && mkdir /data/link && touch /data/link/file"]),
    ("dangling-links", ["RUN ln -s /nowhere /data/a && ln -s ../../../../etc/passwd /data/b && ln -s . /data/c"]),
    ("hard-links", ["RUN ln /data/large /data/again && ln /data/0/1 /data/9/1-again", "RUN rm /data/large",
                    "RUN echo more >>/data/again"]),
    ("hard-links-of-new", ["RUN echo a >/a && ln /a /b && ln /a /data/c", "RUN rm /b", "RUN rm /a"]),
    ("rename-folder", ["RUN mv /data/0 /data/zero", "RUN mv /data/zero /data/0"]),
    ("swap", ["RUN mv /data/1/1 /data/x && mv /data/1/2 /data/1/1 && mv /data/x /data/1/2"]),
    ("modes", ["RUN chmod 4755 /data/tool && chmod 2775 /data/1 && chmod 1777 /data/2 && chmod 000 /data/3/3"]),
    ("owners", ["RUN chown 1000:1000 /data/tool && chown -R 12345:54321 /data/5 && chown -h 7:7 /bin/sh"]),
    ("times", ["RUN touch -d '2001-02-03 04:05:06' /data/tool /data/6/1", "RUN touch -h -d '1999-01-01 00:00:00' /bin/ls"]),
    ("capability", ["RUN setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 /data/tool"]),
    ("same-again", ["RUN cp -p /data/tool /t && rm /data/tool && mv /t /data/tool", "RUN cp /data/large /data/l && mv /data/l /data/large"]),
    ("rewritten", ["RUN echo x >/data/0/0", "RUN : >/data/0/1 && truncate -s 100 /data/0/2"]),
    ("sparse", ["RUN dd if=/dev/zero of=/sparse bs=1 count=1 seek=20000000 && echo end >>/sparse"]),
    ("special", ["RUN mkfifo /fifo && mknod /null c 1 3 && mknod /loop b 7 0"]),
    ("many", ["RUN mkdir /many && cd /many && for i in $(seq 3000); do echo $i >$i; done",
              "RUN cd /many && rm $(seq 1 3 3000)"]),
    ("names", ["RUN mkdir '/a b' && echo 1 >'/a b/c d' && echo 2 >\"/$(printf 'new\\nline')\" && echo 3 >/é && echo 4 >/'quo\"te'",
               "RUN touch /data/.wh && touch '/data/ ' && touch /data/-x && touch '/data/\\\\b'"]),
    ("long", ["RUN touch /data/$(printf '%0255d' 0)", "RUN p=/data; for i in $(seq 12); do p=$p/$(printf '%0200d' $i); mkdir $p; done; echo x >$p/x"]),
    ("copy", ["COPY file /file", "COPY folder /folder", "COPY --chown=1000:1000 --chmod=4711 tool.sh /bin/tool", "COPY . /all/"]),
    ("copy-over", ["RUN mkdir -p /folder/below && echo old >/folder/one && echo stays >/folder/stays", "COPY folder /folder"]),
    ("copy-link", ["COPY --link file /data/file", "COPY --link folder /data/folder", "RUN rm /data/folder/one"]),
    ("add", ["ADD archive.tar /added", "ADD file /added/"]),
    ("stages", ["RUN mkdir /out && echo built >/out/program && cp /data/large /out/", "FROM base", "COPY --from=first /out /out",
                "RUN cat /out/program"]),
    ("merge", ["RUN mkdir /one && echo 1 >/one/1", "FROM base AS second", "RUN mkdir /two && echo 2 >/two/2", "FROM base",
               "COPY --link --from=first /one /merged", "COPY --link --from=second /two /merged", "RUN ls /merged"]),
    ("cache-mount", ["RUN --mount=type=cache,target=/cache echo cached >/cache/file", "RUN --mount=type=cache,target=/cache cat /cache/file >/got"]),
    ("mounts", ["RUN --mount=type=bind,target=/context cp /context/file /copied", "RUN --mount=type=tmpfs,target=/quick echo 1 >/quick/1",
                "RUN --mount=type=bind,from=base,source=/data,target=/d,rw rm /d/tool && ls /d >/listed"]),
    ("settings", ["ENV A=b C='d e'", "LABEL l=m", "WORKDIR /made/by/workdir", "USER user", "EXPOSE 80", "VOLUME /volume", "STOPSIGNAL SIGINT",
                  'ENTRYPOINT ["/bin/sh"]', 'CMD ["-c", "true"]', "HEALTHCHECK CMD true"]),
    ("as-user", ["RUN mkdir /home && chown user /home", "USER user", "RUN echo mine >/home/mine", "USER root", "RUN rm /home/mine"]),
    ("heredoc", ["RUN <<END", "set -e", "mkdir /here", "echo doc >/here/doc", "END", "COPY <<END /copied/doc", "text", "END"]),
    ("only-below", ["RUN echo unused >/unused", "FROM base AS wanted", "RUN echo used >/used", "FROM base", "RUN echo last >/last"]),
    ("shell", ['SHELL ["/bin/sh", "-ec"]', "RUN tar -C /data -cf /all.tar 0 1 && mkdir /x && tar -C /x -xf /all.tar && rm /all.tar"]),
    ("append", ["RUN cat /data/large >>/data/large2", "RUN cat /data/large2 /data/large2 >>/data/large"]),
]
ARGUMENTS = {"only-below": ["--target", "wanted"]}


class RandomSteps:
    """Shell commands that change what is there, known by a model of the tree."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.files = [f"/data/{folder}/{name}" for folder in range(10) for name in range(20)]
        self.folders = ["/data"] + [f"/data/{folder}" for folder in range(10)]
        self.count = 0

    def new(self):
        self.count += 1
        return f"{self.random.choice(self.folders)}/n{self.count}"

    def drop(self, folder):
        self.files = [path for path in self.files if not path.startswith(folder + "/")]
        self.folders = [path for path in self.folders if path != folder and not path.startswith(folder + "/")]

    def command(self):
        kind = self.random.randrange(13)
        if kind in (0, 1):
            path = self.new()
            self.files.append(path)
            return f"head -c {self.random.choice((0, 1, 100, 5000, 300000))} /data/large >{path}"
        if kind == 2:
            path = self.new()
            self.folders.append(path)
            return f"mkdir {path}"
        if kind in (3, 4) and self.files:
            path = self.files.pop(self.random.randrange(len(self.files)))
            return f"rm {path}"
        if kind == 5 and len(self.folders) > 4:
            folder = self.random.choice(self.folders[1:])
            self.drop(folder)
            return f"rm -r {folder}"
        if kind == 6 and len(self.folders) > 4:
            folder = self.random.choice(self.folders[1:])
            self.drop(folder)
            self.folders.append(folder)
            self.files.append(folder + "/again")
            return f"rm -r {folder}; mkdir {folder}; echo again >{folder}/again"
        if not self.files:
            return "true"
        path = self.random.choice(self.files)
        if kind == 7:
            return f"echo {self.random.randrange(1000)} >>{path}"
        if kind == 8:
            return f"chmod {self.random.choice(('600', '755', '4755', '000'))} {path}"
        if kind == 9:
            return f"chown {self.random.randrange(3000)}:{self.random.randrange(3000)} {path}"
        if kind == 10:
            # Of a file that is linked in a lower layer, overlayfs changes one name only.
            self.files.remove(path)
            return f"ln {path} {self.new()}"
        if kind == 11:
            other = self.new()
            self.files.remove(path)
            self.files.append(other)
            return f"mv {path} {other}"
        other = self.new()
        return f"ln -s {path} {other}"

    def lines(self):
        for _ in range(self.random.randrange(1, 6)):
            if self.random.randrange(5) == 0:
                yield f"COPY {self.random.choice(('file', 'folder'))} {self.new()}"
            else:
                yield "RUN " + "; ".join(self.command() for _ in range(self.random.randrange(1, 9)))


def write_context(folder, name, lines):
    os.makedirs(folder)
    # A frontend image would be fetched for `# syntax=`: what is built in must do.
    with open(os.path.join(folder, "Dockerfile"), "w") as file:
        file.write("\n".join([f"FROM {BASE} AS base", "FROM base AS first", *lines]) + "\n")
    for path, content in FILES.items():
        path = os.path.join(folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    os.chmod(os.path.join(folder, "tool.sh"), 0o755)
    with tarfile.open(os.path.join(folder, "archive.tar"), "w") as archive:
        for member, content in (("in/one", b"1\n"), ("in/two", b"2\n")):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with open(os.path.join(folder, "arguments"), "w") as file:
        file.write("\n".join(ARGUMENTS.get(name, [])))


def write_contexts(folder, count, seed):
    for number in range(count):
        if number < len(WRITTEN):
            name, lines = WRITTEN[number]
        else:
            name, lines = f"random-{seed + number}", list(RandomSteps(seed + number).lines())
        write_context(os.path.join(folder, f"{number:03}-{name}"), name, lines)


def main():
    if sys.argv[1] == "base":
        make_base(*sys.argv[2:])
    elif sys.argv[1] == "pause":
        make_pause(*sys.argv[2:])
    else:
        write_contexts(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))


main()
