"""Facts about an image in an OCI layout, found without Varve.

    layout_info.py layers LAYOUT TAG             the digests of its layers, the hexadecimal part, from the lowest up
    layout_info.py diffids LAYOUT TAG            the DiffIDs of its layers, likewise
    layout_info.py chains LAYOUT TAG             the names of its chains: sha256-HEX of each ChainID (OCI image-spec)
    layout_info.py size LAYOUT TAG               the sum of the sizes of its layer blobs, in bytes
    layout_info.py prefixes LAYOUT TAG           adds the tags TAG-prefix-1, -2, … with only so many of the layers
"""

import hashlib
import json
import os
import sys

layout = tag = None


def read(name):
    with open(os.path.join(layout, name), "rb") as file:
        return json.load(file)


def blob(descriptor):
    return read("blobs/" + descriptor["digest"].replace(":", "/"))


def put(document):
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(layout, "blobs", "sha256", digest), "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def tagged():
    for descriptor in read("index.json")["manifests"] or []:
        if descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            return descriptor
    sys.exit(f"layout_info.py: \"{layout}\" has no tag \"{tag}\"")


def manifest():
    descriptor = tagged()
    machine = os.uname().machine
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    document = blob(descriptor)
    while "manifests" in document:
        fitting = [d for d in document["manifests"] if d.get("platform", {}).get("architecture", machine) == machine]
        if not fitting:
            sys.exit(f"layout_info.py: \"{layout}:{tag}\" is not for {machine}")
        document = blob(fitting[0])
    return document


def chains(diff_ids):
    chain = None
    for diff_id in diff_ids:
        if chain is None:
            chain = diff_id
        else:
            chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
        yield chain.replace(":", "-")


def prefixes():
    document = manifest()
    config = blob(document["config"])
    index = read("index.json")
    count = len(document["layers"])
    for length in range(1, count):
        shorter = dict(config, rootfs={"type": "layers", "diff_ids": config["rootfs"]["diff_ids"][:length]})
        shorter.pop("history", None)
        description = dict(document, layers=document["layers"][:length])
        description["config"] = {**document["config"], **put(shorter)}
        index["manifests"].append({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", **put(description),
            "annotations": {"org.opencontainers.image.ref.name": f"{tag}-prefix-{length}"},
        })
    with open(os.path.join(layout, "index.json"), "w") as file:
        json.dump(index, file)


command, layout, tag = sys.argv[1:4]
if command == "layers":
    for layer in manifest()["layers"]:
        print(layer["digest"].partition(":")[2])
elif command == "diffids":
    for diff_id in blob(manifest()["config"])["rootfs"]["diff_ids"]:
        print(diff_id.partition(":")[2])
elif command == "size":
    print(sum(layer["size"] for layer in manifest()["layers"]))
elif command == "chains":
    for name in chains(blob(manifest()["config"])["rootfs"]["diff_ids"]):
        print(name)
elif command == "prefixes":
    prefixes()
else:
    sys.exit(f"layout_info.py: no command is called {command}")
