import VarveArchive
import VarveLayers
import Synchronization
import VarveSystem
import SystemPackage

extension FuzzTarget {
    /// Up to three layers of the worst entries there are, applied to a root beside a tree that must stay as it is.
    ///
    /// The first byte says whether the rest is one layer as it stands or the recipe of several. A tree or an error that
    /// blames the layer; nothing beside the root changes; no whiteout and no property of btrfs gets into the tree. Needs
    /// root.
    package static let apply = FuzzTarget(
        name: "apply",
        seeds: { TarSeeds.all.map { [0x01] + $0 } + applySeeds },
        run: { try ApplyPlace.run($0) })
}

/// Entries as bytes: kind and mode, name, target, content and attributes, as `entry` reads them.
private let applySeeds: [[UInt8]] = [
    [0, 2, 1, 0, 0, 1, 9, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0],
    [0, 1, 1, 0, 0, 0, 0, 0, 0, 2, 2, 0, 1, 8, 0, 0, 0, 255, 0, 2, 0, 1, 0, 0, 0, 0],
    [0, 3, 1, 1, 0, 1, 0, 0, 0, 4, 1, 2, 0, 0, 0, 5, 0, 255, 0, 1, 7, 0, 0, 0],
    // A symbolic link that leads to a name of a whiteout.
    [0, 1, 1, 0, 0, 0, 0, 0, 0, 2, 2, 0, 1, 8, 254, 0, 191, 202, 45],
    (0..<120).map { UInt8(truncatingIfNeeded: $0 &* 37) },
    (0..<200).map { UInt8(truncatingIfNeeded: $0 &* $0) },
]

/// Where layers are applied: in memory, gone with the process.
private final class ApplyPlace: Sendable {
    private static let shared = Result { try ApplyPlace() }

    private let path: BytePath
    private let directory: SharedDescriptor
    private let before: [String]

    private init() throws {
        (path, directory) = try FuzzScratch.make("apply")
        try directory.fd.makeDirectory("victim", mode: 0o755)
        let victim = try directory.fd.openDirectory("victim")
        try victim.fd.writeFileDurably("file", Array("content".utf8))
        try victim.fd.makeSymbolicLink("link", target: "file")
        try victim.fd.makeDirectory("a", mode: 0o700)
        before = try Self.everything(directory.fd, "victim")
    }

    /// One at a time: there is one root.
    private static let turn = Mutex(())

    static func run(_ bytes: [UInt8]) throws -> FuzzTarget.Outcome {
        try turn.withLock { _ in try shared.get().run(bytes) }
    }

    private func run(_ bytes: [UInt8]) throws -> FuzzTarget.Outcome {
        var input = FuzzInput(bytes)
        var layers: [[UInt8]] = []
        if input.byte() & 1 != 0 {
            var archive = input.all()
            mendChecksums(&archive)
            layers = [archive]
        } else {
            while layers.count < 3, !input.isEmpty { layers.append(try layer(&input)) }
        }
        try directory.fd.makeDirectory("root", mode: 0o755)
        defer { try? FuzzScratch.remove("root", from: directory.fd) }
        let root = SharedDescriptor(try directory.fd.openDirectory("root"))
        defer { extendLifetime(root) }
        var outcome = FuzzTarget.Outcome.taken
        do {
            for (index, layer) in layers.enumerated() {
                try LayerApplier(root: root.fd, isBottom: index == 0).apply(
                    TarReader(FuzzSource(layer, run: 4096)))
            }
            try Self.checkTree(root.fd)
        } catch is TarError {
            outcome = .refused
        } catch let error as LayerError {
            guard case .invalidEntry = error else { throw error }
            outcome = .refused
        }
        try require(
            try Self.everything(directory.fd, "victim") == before, "the neighbour of the root has changed")
        let names = try directory.fd.entries().map(\.name.description).sorted()
        try require(names == ["root", "victim"], "beside the root there are \(names)")
        return outcome
    }

    /// The next layer of the recipe, up to a byte 0xff.
    private func layer(_ input: inout FuzzInput) throws -> [UInt8] {
        let sink = FuzzSink()
        let writer = TarWriter(sink)
        for _ in 0..<16 where !input.isEmpty {
            let kind = input.byte()
            if kind == 0xff { break }
            var entry = TarEntry(
                path: name(&input), kind: TarKind.allCases[Int(kind) % TarKind.allCases.count],
                mode: kind & 0x80 != 0 ? 0o7777 : 0o755, uid: UInt32(kind >> 6 & 1))
            if entry.kind == .hardLink || entry.kind == .symbolicLink { entry.linkTarget = name(&input) }
            let extra = input.byte()
            if extra & 1 != 0 {
                let attribute = input.pick(Self.attributes)
                entry.extendedAttributes = [
                    ExtendedAttribute(name: attribute, value: input.bytes(Int(extra >> 4)))
                ]
            }
            if extra & 2 != 0 {
                entry.accessACL = Array("user::rwx,user:7:r--,group::r-x,mask::rwx,other::r--".utf8)
            }
            if extra & 4 != 0, entry.kind == .directory {
                entry.defaultACL = Array("u::rwx,g::rwx,o::-".utf8)
            }
            var content: [UInt8] = []
            if entry.kind == .regular, extra & 8 != 0 { content = [extra] }
            entry.size = Int64(content.count)
            do {
                try writer.write(entry)
                try unsafe content.withUnsafeBytes { try unsafe writer.writeContent($0) }
            } catch is TarError {
                // No archive can hold it.
            }
        }
        try writer.finish()
        return sink.bytes
    }

    private static let attributes: [BytePath] = [
        "user.a", "trusted.overlay.opaque", "security.capability", "system.posix_acl_access",
        "btrfs.compression", "foo",
        "user.", "system.posix_acl_default", "security.selinux",
    ]

    private func name(_ input: inout FuzzInput) -> BytePath {
        let parts = [
            "a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", "victim", "../victim", "\(path)/victim",
            ".wh..wh..opq",
            ".wh...", ".wh.", "file", "/", "link", ".wh..wh.plnk", "a/b", "../../victim/a", "/proc/self/cwd",
            ".wh.file",
        ]
        let count = Int(input.byte() % 4)
        return BytePath((0...count).map { _ in input.pick(parts) }.joined(separator: "/"))
    }

    private static func checkTree(_ directory: FileDescriptor) throws {
        for entry in try directory.entries() {
            try require(!entry.name.hasPrefix(Array(".wh.".utf8)), "\(entry.name) is in the tree")
            if try directory.status(of: entry.name).isDirectory {
                let child = SharedDescriptor(try directory.openDirectory(entry.name))
                defer { extendLifetime(child) }
                try checkTree(child.fd)
            }
        }
    }

    /// Status (all but the access time), attributes and content of all below `name`.
    private static func everything(_ directory: FileDescriptor, _ name: BytePath) throws -> [String] {
        var status = try directory.status(of: name)
        status.accessTime = .epoch
        var lines = ["\(name) \(status) \(try directory.extendedAttributes(of: name))"]
        if status.isRegular { lines[0] += " \(try directory.readFile(name, limit: 1 << 20))" }
        if status.isSymbolicLink { lines[0] += " \(try directory.readSymbolicLink(name))" }
        if status.isDirectory {
            let opened = SharedDescriptor(try directory.openDirectory(name))
            defer { extendLifetime(opened) }
            for entry in try opened.fd.entries().sorted(by: { $0.name < $1.name }) {
                lines += try everything(opened.fd, entry.name)
            }
        }
        return lines
    }
}
