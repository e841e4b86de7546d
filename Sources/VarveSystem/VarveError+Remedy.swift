extension VarveError {
    /// What a caller can do about an error. `description` is the same in words, for a log. The command `varve` has words of
    /// its own, with its flags and with paths quoted for a shell.
    public enum Remedy: Sendable, Hashable {
        // Arguments.
        /// Give another argument: what it has to be, as it reads on from "name".
        case name(String)
        /// Give an argument that follows this rule, a clause that begins with a verb.
        case follow(String)
        /// The path of what should be there is another one.
        case correctPath
        /// The store that holds the chain of the bundle is another one; else unpack the image again.
        case nameStoreOfBundle
        /// Choose a platform that the image has.
        case choosePlatform
        /// Let the source of the delta be chosen: `DeltaSource.auto`.
        case chooseSourceAutomatically
        /// Take the name of a chain that there is.
        case listChains
        /// Take the name of a snapshot that there is.
        case listSnapshots
        /// Take the ID of a containerd that the store knows.
        case listContainerds
        /// Take a tag that this layout has.
        case listTags(BytePath)

        // Rights.
        /// Run as root.
        case runAsRoot
        /// Run as root of the host: root of a user name space or a container may not do it.
        case runAsRootOfHost
        /// Run as root; or with rootless owners, on files of the caller's own.
        case runAsRootOrRootless
        /// Only its owner may open this store.
        case useStoreOfOwn(BytePath)
        /// Run as a user who may, or change the owner or the mode of the files.
        case gainAccess
        /// The right that the kernel asks for, as it reads on from "this needs".
        case gainRight(String)
        /// Mount this btrfs with `user_subvol_rm_allowed`, or run as root.
        case allowSubvolumeRemoval(BytePath)
        /// Take this flag of chattr(1) from the file, which only root may do.
        case clearFlag(String, of: BytePath)
        /// Take the right to write to it from others. Where `orSticky`, the sticky bit of a directory does as well.
        case closeToOthers(BytePath, orSticky: Bool)
        /// Give it to root or to the caller.
        case changeOwner(BytePath)
        /// Put it in a directory of root's or of the caller's.
        case moveToOwnDirectory

        // Space and limits.
        /// Free space on the file system that is mounted there, or enlarge it. Nil where that is not known.
        case freeSpace(on: BytePath?)
        /// Free space for metadata of the btrfs that is mounted there. Nil where that is not known.
        case freeMetadata(on: BytePath?)
        /// Raise a quota on the file system that is mounted there, or free space below it. Nil where that is not known.
        case raiseQuota(on: BytePath?)
        /// Raise the limit of a quota group of the btrfs that is mounted there, or delete what it counts. Nil where that is not known.
        case raiseQuotaGroup(on: BytePath?)
        /// A limit of this process, or one for what an image may unpack to.
        case raiseLimit(Limit)
        /// The image of a loopback store needs more bytes: at least this many.
        case enlargeLoopback(atLeast: Int64)

        // Others at work, mounts.
        /// Try again.
        case tryAgain
        /// Something else works with it: try again when that has ended.
        case tryAgainLater
        /// Wait for what another process makes.
        case wait
        /// End the processes that have files open there, and try again.
        case endUsers(of: BytePath)
        /// End the varve-containerd that serves this ID.
        case endDaemon(String)
        /// End the process that has a file open there for writing, or compare a snapshot.
        case endWriters
        /// Unmount it first, and what is mounted below it too.
        case unmount(BytePath, recursively: Bool)
        /// Turn off a swap file; nil for all of them.
        case turnOffSwap(BytePath?)
        /// Mount the file system for writing.
        case mountWritable
        /// Make this read-only subvolume writable.
        case makeSubvolumeWritable(BytePath)
        /// Make this bundle writable, or repack it without a refresh.
        case makeWritable(BytePath)
        /// Load a module of the kernel.
        case loadModule(String)
        /// Install a package of the distribution.
        case install(String)
        /// Look at the kernel's log, and check the file system with this command of btrfs-progs.
        case checkFileSystem(String)

        // Stores and bundles.
        /// Make a store in this directory.
        case createStore(BytePath)
        /// Make a loopback store there: `LayerStore.createLoopback`. `otherwise`: what was asked for needs btrfs.
        case createLoopbackStore(BytePath, otherwise: Bool)
        /// Make a store on a btrfs, or run as root.
        case createStoreOnBtrfs
        /// Mount this loopback store. `isNew`: where a new one was to be made.
        case mountStore(BytePath, isNew: Bool)
        /// Restore its description, or make a new store.
        case restoreStore
        /// Use a newer version.
        case useNewerVersion
        /// Use a store on btrfs in place of the driver.
        case useBtrfsStore
        /// Use another driver.
        case useAnotherDriver
        /// Put the bundle on the file system of this store.
        case placeBundle(near: BytePath)
        /// Unpack an image to this path, with the driver of this name if there is one.
        case unpack(to: BytePath, driver: String?)
        /// Unpack the image of the bundle again. `losesChanges`: what changed in the bundle cannot be told any more.
        case unpackAgain(losesChanges: Bool)
        /// Repack without a refresh, and unpack the new image.
        case repackWithoutRefresh
        /// Take a snapshot of this writable subvolume and compare that, or name a store on its file system.
        case compareSnapshot(BytePath)
        /// Remove what is there in place of a new bundle. `or`: or give another argument, as it reads on from "name".
        case removeBundle(BytePath, or: String)
        /// Remove the snapshot of this name, or choose another.
        case removeSnapshot(String)
        /// Copy what is wanted of the directory that stands in place of the snapshot of this name, and remove it.
        case saveAndRemoveSnapshot(BytePath, at: BytePath)
        /// Remove the file or the directory that is there. `or`: or give another argument, as it reads on from "name".
        case remove(or: String?)

        // Images and layers.
        /// Make an image layout in this directory.
        case createLayout(BytePath)
        /// Make an image layout in this directory, or name the image as one in a registry.
        case createLayoutOrName(BytePath, image: String)
        /// Bring the layers of an image, which is named as containers-transports(5) has it, into the store's own layout.
        case pullImage(String)
        /// Copy the image from where it came: it is incomplete here.
        case copyImageAgain
        /// Get the image from where it was made: it was made wrongly, or changed since.
        case getImageAgain
        /// Copy the image with a tool that does this, a clause that begins with a verb.
        case copyImage(String)
        /// Fetch or build the layer again: what is wrong with it.
        case replaceLayer(String)
        /// Change the image, a clause that begins with a verb.
        case changeImage(String)
        /// Make an image layout of what another tool has, in a directory of this name and with this tag. The source is as
        /// containers-transports(5) has it.
        case importImage(source: String, layout: String, tag: String)
        /// Convert the image to the formats of OCI.
        case convertImage
        /// Decrypt the layers of the image.
        case decryptImage
        /// Compress the layer again, with a smaller window of zstd.
        case compressWithSmallerWindow
        /// Copy the layout, symbolic links followed, and name the copy.
        case copyLayout
        /// Mount the layout writable, or copy it to a place that is.
        case copyLayoutToWritable

        // Files in a bundle.
        /// Give an id map of users that has the owner.
        case mapUser
        /// Give an id map of groups that has the group.
        case mapGroup
        /// Change it, a clause that begins with a verb, or leave the file out of the layer (`Repacking.Options`).
        case changeFile(String)
        /// Remove this extended attribute of the file.
        case removeAttribute(String)
        /// Remove the ACLs of the file.
        case removeACL

        // Programs and configuration.
        /// Name a file with hooks, where there is none.
        case configureHooks
        /// Name another file with the hooks.
        case nameHooks
        /// Correct the hooks, a clause that begins with a verb.
        case correctHooks(String)
        /// Give it to the caller, and do not trust what is in it.
        case distrust
        /// Move away what a store did not make.
        case moveAway
        /// See why what is in a store cannot be removed, and delete the subvolume.
        case deleteSubvolume
        /// Restore the snapshot if its content is wanted, and remove it.
        case restoreSnapshot
        /// Ask for version 1 of the send stream.
        case askForFirstVersion
        /// Report a fault of the program.
        case report
    }

    /// A limit that can be raised.
    public enum Limit: Sendable, Hashable {
        /// Open files of the process (`RLIMIT_NOFILE`).
        case openFiles
        /// Processes and threads of the user (`RLIMIT_NPROC`) or the unit.
        case processes
        /// Memory of the process.
        case memory
        /// `UnpackLimits.size`, for an image that is trusted.
        case imageSize
        /// `UnpackLimits.entries`, for an image that is trusted.
        case imageEntries
        /// The size or the entries of an archive that is trusted.
        case archive
    }
}

extension VarveError.Remedy: CustomStringConvertible {
    /// Which file system, as it reads on.
    package static func on(_ point: BytePath?) -> String {
        point.map { " on the file system that is mounted at \"\($0)\"" } ?? ""
    }

    public var description: String {
        switch self {
        case .name(let what): "name \(what)"
        case .follow(let rule): rule
        case .correctPath: "correct its path"
        case .nameStoreOfBundle: "name the right store, or unpack the image again"
        case .choosePlatform: "choose one of them"
        case .chooseSourceAutomatically: "let the source be chosen"
        case .listChains: "list the chains of the store"
        case .listSnapshots: "list the snapshots of the store"
        case .listContainerds: "list what the store keeps for containerd"
        case .listTags: "list the tags of the layout"

        case .runAsRoot: "run as root"
        case .runAsRootOfHost:
            "root of a user name space or of a container may not do it: run as root of the host"
        case .runAsRootOrRootless:
            "run as root, or with rootless owners on files of your own and a host that allows user name spaces"
        case .useStoreOfOwn: "run as its owner, or name another"
        case .gainAccess: "run as a user who may do that, or change the owner or mode of the files"
        case .gainRight(let right): "this needs \(right)"
        case .allowSubvolumeRemoval: "have it mounted with user_subvol_rm_allowed, or run as root"
        case .clearFlag(let flag, let path):
            "take the flag \(flag) from \"\(path)\" as root"
        case .closeToOthers(_, let orSticky):
            "take that away" + (orSticky ? ", or give it the sticky bit" : "")
        case .changeOwner: "give it to root or to yourself"
        case .moveToOwnDirectory:
            "put it in a directory that belongs to root or to you, as all directories above it do"

        case .freeSpace(let point?):
            "free space on the file system that is mounted at \"\(point)\", or enlarge it"
        case .freeSpace(nil): "free space on this file system or enlarge it"
        case .freeMetadata(let point):
            "free space for metadata is used up\(Self.on(point)): delete snapshots, or balance the file system"
        case .raiseQuota(let point): "raise the quota\(Self.on(point)) or free space below it"
        case .raiseQuotaGroup(let point):
            "a quota group is full\(Self.on(point)): raise its limit, or delete what it counts"
        case .raiseLimit(let limit):
            switch limit {
            case .openFiles: "raise the limit of open files"
            case .processes: "raise the limit of processes"
            case .memory: "give the process more"
            case .imageSize, .imageEntries: "if you trust it, allow more"
            case .archive: "if the archive can be trusted, allow more"
            }
        case .enlargeLoopback: "give a larger size"

        case .tryAgain: "try again"
        case .tryAgainLater: "try again when that has ended"
        case .wait: "wait for it"
        case .endUsers: "end what has files open there and try again"
        case .endDaemon(let id): "end the varve-containerd that serves \"\(id)\" first"
        case .endWriters:
            "end the process that has a file open there for writing, or compare a snapshot of it"
        case .unmount(let path, let recursively):
            "unmount \(recursively ? "it, and all that is mounted below \"\(path)\"," : "it") first"
        case .turnOffSwap: "turn it off first"
        case .mountWritable: "mount the file system for writing"
        case .makeSubvolumeWritable(let path): "make the subvolume \"\(path)\" writable"
        case .makeWritable:
            "make it writable, or mount its file system for writing, or repack it without a refresh"
        case .loadModule(let name): "load the kernel module \(name)"
        case .install(let package): "install \(package)"
        case .checkFileSystem(let command): "see the log of the kernel, and run \(command)"

        case .createStore, .createLoopbackStore(_, otherwise: false): "make one"
        case .createLoopbackStore(_, otherwise: true): "make a loopback store"
        case .createStoreOnBtrfs: "run as root, or make a store on a btrfs"
        case .mountStore(_, let isNew): isNew ? "mount that store" : "mount it"
        case .restoreStore: "restore it, or make a new store"
        case .useNewerVersion: "use a newer varve"
        case .useBtrfsStore: "use a btrfs store"
        case .useAnotherDriver: "unpack the image with another driver"
        case .placeBundle(let store): "put it there, for example in \"\(store)/bundles\""
        case .unpack: "unpack an image to it"
        case .unpackAgain(losesChanges: false): "unpack the image again"
        case .unpackAgain(losesChanges: true):
            "what changed in the bundle cannot be told any more, unpack the image again"
        case .repackWithoutRefresh: "repack without a refresh, and unpack the new image"
        case .compareSnapshot:
            "take a read-only snapshot yourself and compare that, or name such a store"
        case .removeBundle(_, let other), .remove(let other?): "remove it or name \(other)"
        case .remove(nil): "remove it"
        case .removeSnapshot: "remove it or choose another name"
        case .saveAndRemoveSnapshot(_, let directory):
            "copy what is wanted of it from \"\(directory)\", and remove it"

        case .createLayout: "make one"
        case .createLayoutOrName(_, let image):
            "make one, or name an image in a registry with its transport: \(image)"
        case .pullImage(let source): "pull the image \(source)"
        case .copyImageAgain: "copy the image again"
        case .getImageAgain: "get the image again from where it was made"
        case .copyImage(let how): how
        case .replaceLayer(let how): how
        case .changeImage(let how): how
        case .importImage(let source, let layout, let tag):
            "make one of it, for example with skopeo: copy \(source) to oci:\(layout):\(tag)"
        case .convertImage: "convert the image"
        case .decryptImage: "decrypt the image first"
        case .compressWithSmallerWindow: "compress the layer again with a smaller window"
        case .copyLayout: "copy the layout, links followed, and name the copy"
        case .copyLayoutToWritable: "mount it writable, or copy the layout to a place that is"

        case .mapUser, .mapGroup: "give one that has it"
        case .changeFile(let how): "\(how) or leave it out of the layer"
        case .removeAttribute(let name): "remove the attribute \(name)"
        case .removeACL: "remove its ACLs"

        case .configureHooks: "name one (see Docs/hooks.md)"
        case .nameHooks: "name another file"
        case .correctHooks(let how): how
        case .distrust: "give it to yourself, and do not trust what is in it"
        case .moveAway: "the store did not make it; move it away"
        case .deleteSubvolume: "see why, and delete the subvolume"
        case .restoreSnapshot:
            "it is no longer what was kept; restore it if its content is wanted, and remove it"
        case .askForFirstVersion: "ask the sender for version 1"
        case .report: "report it"
        }
    }
}
