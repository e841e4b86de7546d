import VarveSystem

extension VarveError.Remedy {
    /// What helps, for somebody at a shell: with the flags of the command, and paths as one word of a shell's command line.
    var shellWords: String {
        switch self {
        case .nameStoreOfBundle: "name the right store with --store, or unpack the image again"
        case .choosePlatform: "choose one with --platform"
        case .chooseSourceAutomatically: "use --source auto"
        case .listChains: "varve store ls lists them"
        case .listSnapshots: "varve snapshot ls lists them"
        case .listContainerds: "varve containerd ls lists them"
        case .listTags(let layout): "varve ls --layout \(layout.shellWord) lists them"

        case .runAsRootOrRootless:
            "run as root, or with --rootless on files of your own and a host that allows user name spaces"
        case .useStoreOfOwn: "run as its owner, or name another with --store"
        case .allowSubvolumeRemoval:
            "have it mounted with user_subvol_rm_allowed (mount -o remount,user_subvol_rm_allowed), or run as root"
        case .clearFlag(let flag, let path):
            "take it away as root: chattr -\(flag) \(path.shellWord)"
        case .closeToOthers(let path, let orSticky):
            "take that away with chmod go-w \(path.shellWord)"
                + (orSticky ? ", or give it the sticky bit with chmod +t \(path.shellWord)" : "")
        case .changeOwner: "give it to root or to yourself with chown"

        case .freeMetadata(let point):
            "free space for metadata is used up\(Self.on(point)): delete snapshots, or run: btrfs balance start -dusage=10 \(point?.shellWord ?? "PATH")"
        case .raiseQuotaGroup(let point):
            "a quota group is full\(Self.on(point)): raise its limit (btrfs qgroup show -re \(point?.shellWord ?? "PATH") lists them, btrfs qgroup limit raises one), or delete what it counts"
        case .raiseLimit(.openFiles): "raise the limit of open files (ulimit -n)"
        case .raiseLimit(.processes):
            "raise the limit of processes (ulimit -u, or TasksMax= of the unit)"
        case .raiseLimit(.imageSize): "if you trust it, allow more with --max-size"
        case .raiseLimit(.imageEntries): "if you trust it, allow more with --max-entries"
        case .enlargeLoopback: "give a larger --loopback SIZE"

        case .endUsers(let path):
            "end what has files open there (lsof +f -- \(path.shellWord)) and try again"
        case .endDaemon(let id):
            "end the daemon that serves \"\(id)\" first, such as with: systemctl stop varve-containerd.socket varve-containerd.service"
        case .unmount(let path, let recursively):
            "unmount it first: umount \(recursively ? "-R " : "")\(path.shellWord)"
        case .turnOffSwap(let file): "turn it off first: swapoff \(file?.shellWord ?? "--all")"
        case .makeSubvolumeWritable(let path):
            "make the subvolume writable: btrfs property set \(path.shellWord) ro false"
        case .makeWritable(let bundle):
            "make it writable (btrfs property set \(bundle.shellWord) ro false, or a mount that can be written to), or repack it without a refresh"
        case .loadModule("btrfs"): "load it (modprobe btrfs) or use another kernel"
        case .loadModule("loop"): "load them (modprobe loop)"
        case .loadModule(let name): "load it (modprobe \(name))"
        case .install(let package): "install \(package) (apt-get install \(package))"
        case .checkFileSystem(let command): "see dmesg and run \(command)"

        case .createStore(let path): "make one with: varve store init \(path.shellWord) [--loopback SIZE]"
        case .createLoopbackStore(let path, otherwise: false):
            "make one with: varve store init \(path.shellWord) --loopback SIZE"
        case .createLoopbackStore(let path, otherwise: true):
            "make a store in an image file with: varve store init \(path.shellWord) --loopback SIZE"
        case .mountStore(let path, isNew: false): "mount it with: varve store mount \(path.shellWord)"
        case .mountStore(let path, isNew: true): "mount that store with: varve store mount \(path.shellWord)"
        case .unpack(let path, driver: nil): "make one with: varve unpack --image IMAGE \(path.shellWord)"
        case .unpack(let path, let driver?):
            "make one with: varve unpack --driver \(driver) --image IMAGE \(path.shellWord)"
        case .repackWithoutRefresh: "repack without --refresh-bundle, and unpack the new image"
        case .compareSnapshot:
            "make one yourself (btrfs subvolume snapshot -r) and compare that, or name such a store with --store"
        case .removeBundle(let path, let other):
            "remove it (varve bundle rm \(path.shellWord)) or name \(other)"
        case .removeSnapshot(let name):
            "remove it (varve snapshot rm \(BytePath(name).shellOperand)) or choose another name"

        case .saveAndRemoveSnapshot(let name, let directory):
            "copy what is wanted of it from \(directory.shellWord), and remove it (varve snapshot rm \(name.shellOperand))"

        case .createLayout(let path): "make one with: varve init --layout \(path.shellWord)"
        case .createLayoutOrName(let path, let image):
            "make one with: varve init --layout \(path.shellWord) (varve takes an image from a registry by its whole name: \(BytePath(image).shellWord))"
        case .pullImage(let source): "bring them with: varve pull \(BytePath(source).shellWord)"
        case .importImage(let source, let layout, let tag):
            "make one of it with: skopeo copy \(BytePath(source).shellWord) \(BytePath("oci:\(layout):\(tag)").shellWord), and then name it \(BytePath("\(layout):\(tag)").shellWord)"
        case .convertImage: "convert the image (skopeo copy --format oci)"
        case .decryptImage: "decrypt the image first (skopeo copy --decryption-key)"
        case .compressWithSmallerWindow: "compress the layer again without --ultra or --long"
        case .copyLayout: "copy the layout (cp -rL) and name the copy"

        case .mapUser: "give one that has it with --uid-map"
        case .mapGroup: "give one that has it with --gid-map"
        case .changeFile(let how): "\(how) or leave it out with --mask-path"
        case .removeAttribute(let name): "remove it with setfattr -x \(BytePath(name).shellQuoted)"
        case .removeACL: "remove it with setfacl -b"

        case .configureHooks: "name a hooks.toml with VARVE_HOOKS (see Docs/hooks.md)"
        case .nameHooks: "name another file with VARVE_HOOKS"
        case .distrust: "give it to yourself (chown), and do not trust what is in it"
        case .deleteSubvolume:
            "see why (varve --log debug store ls), and delete it: btrfs subvolume delete"
        case .restoreSnapshot:
            "it is no longer what was kept; restore it if its content is wanted, and remove it (varve snapshot rm)"
        case .askForFirstVersion: "ask the sender for version 1 (--proto 1)"

        case .name, .follow, .correctPath, .runAsRoot, .runAsRootOfHost, .gainAccess, .gainRight, .freeSpace,
            .raiseQuota, .raiseLimit(.memory), .raiseLimit(.archive), .tryAgain, .tryAgainLater, .wait,
            .endWriters, .mountWritable, .createStoreOnBtrfs, .restoreStore, .useNewerVersion,
            .useBtrfsStore, .useAnotherDriver, .placeBundle, .unpackAgain, .remove, .copyImageAgain,
            .getImageAgain, .copyImage, .replaceLayer, .changeImage, .copyLayoutToWritable, .correctHooks,
            .moveAway, .moveToOwnDirectory, .report:
            description
        }
    }
}
