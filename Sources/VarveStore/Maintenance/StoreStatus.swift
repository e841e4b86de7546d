package import VarveBtrfs
import Logging
import VarveOCI
package import VarveSystem
import SystemPackage

/// How a store is: where it lies, how full that is, what is in it, and what stands in its way.
package struct StoreStatus: Sendable {
    /// Where it is.
    package var path: BytePath
    package var mountPoint: BytePath?
    package var fileSystem: String
    package var device: BytePath?
    /// Of the mount and of the file system, as the kernel shows them.
    package var options: [String]
    package var isNoAccessTime: Bool
    package var compression: String?
    /// Whether quota groups are on; nil for others than root.
    package var hasQuotas: Bool?

    /// The image file of a loopback store.
    package struct Image: Sendable {
        package var path: BytePath
        package var size: Int64
        /// What it takes on disk.
        package var allocated: Int64
        /// What is free on the file system that it lies on.
        package var hostFree: Int64
        package var isMountedAtBoot: Bool
    }
    package var image: Image?

    /// Bytes that may still be written, as statfs(2) has them.
    package var free: Int64
    package var usage: FileSystemUsage

    package var chains: Int
    package var snapshots: Int
    package var containerds: Int
    /// Tags of images in the store's own layout.
    package var images: Int
    /// Nil for others than root.
    package var bundles: Int?

    package var problems: [Problem] = []

    /// What is wrong, or soon will be.
    package enum Problem: Sendable, Hashable {
        case accessTimes
        case readOnly
        case littleSpace(free: Int64, isLoopback: Bool)
        case littleMetadata(free: Int64)
        /// The file system of the image file is full before the image is.
        case hostTooSmall(free: Int64, mayGrow: Int64)
        case notAtBoot
        case deviceErrors(UInt64)
    }
}

extension StoreStatus {
    package init(of store: SnapshotStore) throws {
        let fd = store.directory.fd
        let (mount, info, free, path) = try attempt("look at the file system of", store.path) {
            () throws(Errno) -> (MountTable.Mount?, FileSystemInfo, Int64, BytePath) in
            let id = try fd.mountID()
            return (
                try MountTable.read().last { $0.id == id }, try fd.fileSystem(), try fd.freeBytes(),
                try fd.path()
            )
        }
        self.path = path
        mountPoint = mount?.point
        device = mount?.source
        options = mount?.fileSystemOptions ?? []
        fileSystem = try fd.fileSystemUUID().description
        isNoAccessTime = info.isNoAccessTime
        compression = options.first { $0.hasPrefix("compress") }.flatMap {
            $0.split(separator: "=").last.map { String($0) }
        }
        self.free = free
        usage = try fd.fileSystemUsage()
        chains = try store.chains.list().count
        snapshots = try store.snapshots().count
        containerds = try ContainerdFolder(of: store).places().count
        images = try store.imagesIfPresent()?.listTags().count ?? 0
        bundles = try? store.bundles().count
        try store.locks.cancellation.check()
        var search = TreeSearch(fd)
        hasQuotas = Privileges.isRoot ? (try? search.hasQuotaTree()) : nil
        image = try Self.image(of: path, mount, store.logger)
        problems = found(info)
    }

    private static func image(of path: BytePath, _ mount: MountTable.Mount?, _ logger: Logger) throws
        -> Image?
    {
        let name = LoopbackStore.image(of: path)
        guard try LoopbackStore.hasImage(path), mount?.point == path,
            try attempt("look for the loop devices of", name, { () throws(Errno) in try AttachedFile.all() })
                .contains(where: { $0.device == mount?.source && $0.file == name })
        else { return nil }
        let (status, free) = try attempt("look at", name) { () throws(Errno) -> (FileStatus, Int64) in
            let parent = try FileDescriptor.workingDirectory.openDirectory(name.directory)
            return (try parent.fd.status(of: name.lastComponent), try parent.fd.freeBytes())
        }
        return Image(
            path: name, size: status.size, allocated: status.blocks * 512, hostFree: free,
            isMountedAtBoot: (try? BootMount(of: path, logger: logger).isInstalled) ?? false)
    }

    private func found(_ info: FileSystemInfo) -> [Problem] {
        var problems: [Problem] = []
        if info.isReadOnly { problems.append(.readOnly) }
        if usage.errors > 0 { problems.append(.deviceErrors(usage.errors)) }
        // A twentieth, and for a store of any size 5 GiB are enough.
        let size = Int64(clamping: usage.size)
        let little = min(size / 20, 5 << 30)
        if free < little { problems.append(.littleSpace(free: free, isLoopback: image != nil)) }
        // The kernel makes the next block group for metadata of what is unallocated; what it keeps for itself nobody can use.
        let kept = usage.metadata.used + usage.reserve
        let metadata = usage.unallocated + (usage.metadata.size > kept ? usage.metadata.size - kept : 0)
        if metadata < UInt64(min(max(size / 100, 16 << 20), 1 << 30)), free >= little {
            problems.append(.littleMetadata(free: Int64(clamping: metadata)))
        }
        if let image {
            let growth = max(image.size - image.allocated, 0)
            if image.hostFree < growth {
                problems.append(.hostTooSmall(free: image.hostFree, mayGrow: growth))
            }
            if !image.isMountedAtBoot { problems.append(.notAtBoot) }
        }
        if !isNoAccessTime { problems.append(.accessTimes) }
        return problems
    }
}
