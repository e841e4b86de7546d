import VarveArchive
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem

/// The images of the contract: `image`, with some of everything that a layer can hold, and `empty`, without layers.
enum ContractImage {
    static func write(into layout: ImageLayout) throws {
        let created = Timestamp(seconds: 1_700_000_000)
        try layout.newImage(tag: "empty", created: created)
        try layout.newImage(tag: "image", created: created)
        for layer in layers {
            let image = try ImageLayout.resolve(ImageReference(path: layout.path, tag: "image"))
            let (descriptor, diffID) = try write(layer, into: layout)
            let manifest = try image.appendingLayer(
                descriptor, diffID: diffID, history: nil, created: created)
            try layout.tag("image", manifest)
        }
    }

    private static func write(_ layer: [Entry], into layout: ImageLayout) throws -> (Descriptor, DiffID) {
        try NewLayer.write(into: layout, .gzip) { sink in
            let writer = TarWriter(sink)
            for entry in layer {
                try writer.write(entry.entry)
                if !entry.content.isEmpty {
                    try unsafe entry.content.withUnsafeBytes { try unsafe writer.writeContent($0) }
                }
            }
            try writer.finish()
        }
    }

    /// An entry with its content.
    struct Entry {
        var entry: TarEntry
        var content: [UInt8] = []

        private init(_ path: BytePath, _ kind: TarKind, _ mode: UInt32, to target: BytePath = .empty) {
            entry = TarEntry(
                path: path, kind: kind, linkTarget: target, mode: mode,
                modificationTime: Timestamp(seconds: 1000, nanoseconds: 5))
        }

        static func directory(_ path: BytePath, mode: UInt32 = 0o755) -> Entry {
            Entry(path, .directory, mode)
        }

        static func file(_ path: BytePath, _ text: String = "", mode: UInt32 = 0o644) -> Entry {
            bytes(path, Array(text.utf8), mode: mode)
        }

        static func bytes(_ path: BytePath, _ content: [UInt8], mode: UInt32 = 0o644) -> Entry {
            var result = Entry(path, .regular, mode)
            result.content = content
            result.entry.size = Int64(content.count)
            return result
        }

        static func symbolicLink(_ path: BytePath, to target: BytePath) -> Entry {
            Entry(path, .symbolicLink, 0o777, to: target)
        }

        static func hardLink(_ path: BytePath, to target: BytePath) -> Entry {
            Entry(path, .hardLink, 0o644, to: target)
        }

        static func device(_ path: BytePath, _ major: UInt32, _ minor: UInt32) -> Entry {
            var result = Entry(path, .characterDevice, 0o666)
            (result.entry.deviceMajor, result.entry.deviceMinor) = (major, minor)
            return result
        }

        static func fifo(_ path: BytePath) -> Entry { Entry(path, .fifo, 0o600) }

        func with(uid: UInt32, gid: UInt32, attributes: [ExtendedAttribute] = []) -> Entry {
            var result = self
            (result.entry.uid, result.entry.gid) = (uid, gid)
            result.entry.extendedAttributes = attributes
            return result
        }
    }

    private static var layers: [[Entry]] {
        [
            [
                .directory("./"), .directory("bin/"), .file("bin/sh", "shell", mode: 0o4755),
                .directory("etc/"), .file("etc/passwd", "root:x:0:0::/:/bin/sh\n"), .file("etc/old", "old"),
                .directory("etc/replaced/"), .file("etc/replaced/inside", "x"),
                .directory("data/"), .file("data/a", "a"), .file("data/b", "b"),
                .symbolicLink("lib", to: "bin"),
            ],
            [
                .directory("special/", mode: 0o1777),
                .file("special/attributes", "x").with(
                    uid: 12, gid: 34,
                    attributes: [
                        ExtendedAttribute(name: "user.empty", value: []),
                        ExtendedAttribute(name: "user.text", value: Array("a=b\u{0}c".utf8)),
                    ]),
                .device("special/null", 1, 3), .fifo("special/fifo"),
                .bytes("special/large", (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 >> 3) }),
                .file("special/a b#c*\u{e9}\\\t", "odd"), .symbolicLink("special/odd link", to: "to a\nb"),
                .directory("links/"), .file("links/a", "linked"), .hardLink("links/b", to: "links/a"),
                .file("links/c", "other"), .hardLink("links/d", to: "links/c"),
            ],
            // Takes away, replaces, and gives a name again to what was another file.
            [
                .file("data/.wh..wh..opq"), .file("data/again", "k"), .file("etc/.wh.old"),
                .file("etc/replaced", "a file now"), .directory("etc/new/"), .file("etc/new/inside", "x"),
            ],
        ]
    }
}
