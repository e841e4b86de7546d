import VarveArchive
import DeltaChecks
import Glibc
import VarveLayers
import Synchronization
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// One btrfs for the tests that need no more than a directory each. It is taken apart when the process exits.
enum SharedVolume {
    private final class Holder: Sendable {
        let volume: LoopVolume
        init() throws { volume = try LoopVolume(size: 4 << 30) }
    }

    private static let holder = Mutex<Holder?>(nil)

    /// A fresh directory.
    static func directory() throws -> TestDirectory {
        let root = try holder.withLock { current in
            if let current { return (fd: current.volume.root, path: current.volume.path) }
            let made = try Holder()
            current = made
            atexit { SharedVolume.holder.withLock { $0 = nil } }
            return (fd: made.volume.root, path: made.volume.path)
        }
        let name = BytePath(randomName())
        try root.fd.makeDirectory(name, mode: 0o755)
        return TestDirectory(
            descriptor: SharedDescriptor(try root.fd.openDirectory(name)), path: root.path.appending(name))
    }
}

/// A directory that goes away, with all in it, with its owner.
final class TestDirectory {
    private let descriptor: SharedDescriptor
    let path: BytePath
    var fd: FileDescriptor { descriptor.fd }

    init(descriptor: SharedDescriptor, path: BytePath) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit { _ = try? runCommand(["rm", "-rf", "--", path.description]) }

    /// Runs a shell script in it, which must succeed.
    @discardableResult
    func shell(_ script: String) throws -> String {
        try runSuccessfully(["sh", "-ec", "cd '\(path)'\n\(script)"]).outputText
    }

    func makeDirectory(_ name: BytePath) throws -> SharedDescriptor {
        try fd.makeDirectory(name, mode: 0o755)
        return SharedDescriptor(try fd.openDirectory(name))
    }

    /// A root file system as a store begins it: mode 0755, dated at the epoch.
    func makeRoot(_ name: BytePath = "rootfs") throws -> SharedDescriptor {
        let root = try makeDirectory(name)
        try root.fd.setTimes(access: .epoch, modification: .epoch)
        return root
    }
}

/// An entry of an archive, with its content.
struct Item: Sendable {
    var entry: TarEntry
    var content: [UInt8] = []

    static func file(
        _ path: BytePath, _ content: String = "", mode: UInt32 = 0o644, uid: UInt32 = 0, gid: UInt32 = 0,
        time: Timestamp = Timestamp(seconds: 1000), attributes: [ExtendedAttribute] = []
    ) -> Item {
        let bytes = Array(content.utf8)
        return Item(
            entry: TarEntry(
                path: path, kind: .regular, mode: mode, uid: uid, gid: gid, size: Int64(bytes.count),
                modificationTime: time, extendedAttributes: attributes), content: bytes)
    }

    static func directory(
        _ path: BytePath, mode: UInt32 = 0o755, uid: UInt32 = 0, gid: UInt32 = 0,
        time: Timestamp = Timestamp(seconds: 1000), attributes: [ExtendedAttribute] = []
    ) -> Item {
        Item(
            entry: TarEntry(
                path: path, kind: .directory, mode: mode, uid: uid, gid: gid, modificationTime: time,
                extendedAttributes: attributes))
    }

    static func symlink(_ path: BytePath, _ target: BytePath, uid: UInt32 = 0) -> Item {
        Item(
            entry: TarEntry(
                path: path, kind: .symbolicLink, linkTarget: target, mode: 0o777, uid: uid,
                modificationTime: Timestamp(seconds: 1000)))
    }

    static func hardlink(_ path: BytePath, _ target: BytePath) -> Item {
        Item(
            entry: TarEntry(
                path: path, kind: .hardLink, linkTarget: target, modificationTime: Timestamp(seconds: 1000)))
    }

    static func node(
        _ path: BytePath, _ kind: TarKind, _ major: UInt32 = 0, _ minor: UInt32 = 0, mode: UInt32 = 0o644
    )
        -> Item
    {
        Item(
            entry: TarEntry(
                path: path, kind: kind, mode: mode, modificationTime: Timestamp(seconds: 1000),
                deviceMajor: major,
                deviceMinor: minor))
    }

    /// An empty file, as whiteouts are.
    static func whiteout(_ path: BytePath) -> Item { file(path, mode: 0) }

    /// `self` with something changed.
    func with(_ change: (inout TarEntry) -> Void) -> Item {
        var copy = self
        change(&copy.entry)
        return copy
    }
}

/// The bytes of an archive of `items`.
func archive(_ items: [Item]) throws -> [UInt8] {
    let memory = MemoryArchive()
    let writer = TarWriter(memory)
    for item in items {
        try writer.write(item.entry)
        if !item.content.isEmpty {
            try unsafe item.content.withUnsafeBytes { try unsafe writer.writeContent($0) }
        }
    }
    try writer.finish()
    return memory.bytes
}

func apply(
    _ bytes: [UInt8], to root: FileDescriptor, isBottom: Bool = false, options: ApplyOptions = ApplyOptions()
) throws {
    try LayerApplier(root: root, isBottom: isBottom, options: options).apply(TarReader(MemorySource(bytes)))
}

/// Applies `layers`, the bottom one first.
func apply(_ layers: [[Item]], to root: FileDescriptor, options: ApplyOptions = ApplyOptions()) throws {
    for (index, layer) in layers.enumerated() {
        try apply(try archive(layer), to: root, isBottom: index == 0, options: options)
    }
}

/// What is in a tree, one line a path in byte order: `a/` a directory, `a=text` a file, `a->target` a symbolic link,
/// `a==b` another name of `b`, `a|` a FIFO, `a%1,3` a device.
func listing(_ root: FileDescriptor) throws -> [String] {
    var lines: [(BytePath, String)] = []
    var files: [(path: BytePath, inode: UInt64, text: String)] = []
    var pending: [BytePath] = [.empty]
    while let path = pending.popLast() {
        let directory = try root.openDirectory(path.isEmpty ? .current : path)
        for entry in try directory.fd.entries() {
            let child = path.appending(entry.name)
            let status = try directory.fd.status(of: entry.name)
            switch status.type {
            case .directory:
                lines.append((child, "\(child)/"))
                pending.append(child)
            case .symbolicLink:
                files.append((child, status.inode, "->\(try directory.fd.readSymbolicLink(entry.name))"))
            case .regular:
                let bytes = try directory.fd.readFile(entry.name, limit: 1 << 24)
                files.append((child, status.inode, "=" + BytePath.escape(bytes.prefix(60))))
            case .fifo:
                files.append((child, status.inode, "|"))
            default:
                files.append((child, status.inode, "%\(status.deviceMajor),\(status.deviceMinor)"))
            }
        }
    }
    var first: [UInt64: BytePath] = [:]
    for file in files.sorted(by: { $0.path < $1.path }) {
        if let other = first[file.inode] {
            lines.append((file.path, "\(file.path)==\(other)"))
        } else {
            first[file.inode] = file.path
            lines.append((file.path, "\(file.path)\(file.text)"))
        }
    }
    return lines.sorted { $0.0 < $1.0 }.map(\.1)
}

extension FileDescriptor {
    /// What lies at a path below this directory, which holds no symbolic link but perhaps as the last part.
    func look(_ path: BytePath) throws -> FileStatus {
        let directory = try openDirectory(path.parent.isEmpty ? .current : path.parent)
        return try directory.fd.status(of: path.lastComponent)
    }

    func attributes(at path: BytePath) throws -> [ExtendedAttribute] {
        let directory = try openDirectory(path.parent.isEmpty ? .current : path.parent)
        return try directory.fd.extendedAttributes(of: path.lastComponent)
    }
}

/// Whether the error says that the layer is at fault, not the host.
func blamesTheLayer(_ error: any Error) -> Bool {
    if case LayerError.invalidEntry = error { return true }
    return error is TarError
}
