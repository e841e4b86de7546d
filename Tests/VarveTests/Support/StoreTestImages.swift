import VarveFormats
import VarveArchive
import Glibc
import VarveLayers
import Logging
import VarveOCI
import VarveStore
import Synchronization
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// An entry of a layer, with its content.
struct StoreEntry: Sendable {
    var entry: TarEntry
    var content: [UInt8] = []

    static func file(_ path: BytePath, _ content: String = "", mode: UInt32 = 0o644) -> StoreEntry {
        bytes(path, Array(content.utf8), mode: mode)
    }

    static func bytes(_ path: BytePath, _ bytes: [UInt8], mode: UInt32 = 0o644) -> StoreEntry {
        StoreEntry(
            entry: TarEntry(
                path: path, kind: .regular, mode: mode, size: Int64(bytes.count),
                modificationTime: Timestamp(seconds: 1000, nanoseconds: 5)), content: bytes)
    }

    static func directory(_ path: BytePath, mode: UInt32 = 0o755) -> StoreEntry {
        StoreEntry(
            entry: TarEntry(
                path: path, kind: .directory, mode: mode, modificationTime: Timestamp(seconds: 1000)))
    }

    static func link(_ path: BytePath, _ kind: TarKind, _ target: BytePath) -> StoreEntry {
        StoreEntry(
            entry: TarEntry(
                path: path, kind: kind, linkTarget: target, modificationTime: Timestamp(seconds: 1000)))
    }

    static func archive(_ entries: [StoreEntry]) throws -> [UInt8] {
        let sink = StoreMemory()
        let writer = TarWriter(sink)
        for item in entries {
            try writer.write(item.entry)
            if !item.content.isEmpty {
                try unsafe item.content.withUnsafeBytes { try unsafe writer.writeContent($0) }
            }
        }
        try writer.finish()
        return sink.bytes
    }
}

/// Bytes as a sink.
final class StoreMemory: ByteSink {
    var bytes: [UInt8] = []
    func write(_ piece: UnsafeRawBufferPointer) { unsafe bytes.append(contentsOf: piece) }
    func finish() {}
}

/// A layer: what is in it and how it is stored.
struct StoreLayer: Sendable {
    /// The uncompressed archive.
    var archive: [UInt8]
    var compression: LayerCompression

    init(_ entries: [StoreEntry], _ compression: LayerCompression = .gzip) throws {
        archive = try StoreEntry.archive(entries)
        self.compression = compression
    }

    var diffID: DiffID { DiffID(Digest(of: archive)) }

    func blob() throws -> [UInt8] {
        let sink = StoreMemory()
        let codec: Compression =
            switch compression {
            case .none: .none
            case .gzip: .gzip
            case .zstd: .zstd
            }
        let encoder = try codec.encoder(into: sink)
        try unsafe archive.withUnsafeBytes { try unsafe encoder.write($0) }
        try encoder.finish()
        return sink.bytes
    }
}

/// Everything that was logged.
final class StoreLog: Sendable {
    private let lines = Mutex<[String]>([])
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    func count(_ prefix: String) -> Int { lines.withLock { $0.count { $0.hasPrefix(prefix) } } }
    var logger: Logger {
        Logger(label: "test") { _ in
            StoreLogHandler(log: self)
        }
    }
}

struct StoreLogHandler: LogHandler {
    let log: StoreLog
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .debug
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) { log.add("\(event.message)") }
}

/// A btrfs of its own with a store, an image layout and room for bundles and reference trees.
final class StoreWorld: Sendable {
    let volume: LoopVolume
    let log = StoreLog()
    var path: BytePath { volume.path }
    var storePath: BytePath { path.appending("store") }
    var layoutPath: BytePath { path.appending("layout") }
    func bundle(_ name: String = "bundle") -> BytePath { path.appending(name) }

    init(size: Int64 = 1 << 30, makesStore: Bool = true) throws {
        volume = try LoopVolume(size: size)
        if makesStore { _ = try SnapshotStore.initialize(at: storePath, logger: log.logger) }
    }

    /// With the image `a` of these layers, unpacked to `bundle`.
    ///
    /// - Parameter lower: the image `base` has that many of the layers, and is unpacked to `lower` before; nil for no such image.
    convenience init(unpacked layers: [StoreLayer], lower: Int? = nil) throws {
        try self.init()
        if let lower {
            try addImage("base", Array(layers[..<lower]))
            try unpack("base", "lower")
        }
        try addImage("a", layers)
        try unpack("a")
    }

    /// The store, opened and swept as the command does it.
    func store() throws -> SnapshotStore {
        let store = try SnapshotStore.open(at: storePath, logger: log.logger)
        store.sweeper.sweep()
        return store
    }

    func layout() throws -> ImageLayout {
        if try volume.root.statusIfPresent(of: "layout") == nil {
            return try ImageLayout.create(at: layoutPath)
        }
        return try ImageLayout(opening: layoutPath)
    }

    /// Puts an image into the layout. `change` may damage its configuration.
    func addImage(
        _ tag: String, _ layers: [StoreLayer], change: (inout JSONObject) -> Void = { _ in }
    ) throws {
        let layout = try layout()
        var descriptors: [Descriptor] = []
        for layer in layers {
            descriptors.append(try put(try layer.blob(), mediaType: layer.compression.mediaType))
        }
        var config = ImageConfig.empty(created: .epoch)
        config["config"] = ["Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]]
        config["rootfs"] = [
            "type": "layers", "diff_ids": .array(layers.map { .string($0.diffID.description) }),
        ]
        change(&config)
        let stored = try layout.putJSON(config, mediaType: MediaType.ociConfig)
        let manifest = ImageManifest(config: stored, layers: descriptors)
        try layout.tag(tag, try layout.putJSON(manifest.json, mediaType: MediaType.ociManifest))
    }

    func put(_ bytes: [UInt8], mediaType: String) throws -> Descriptor {
        let writer = try BlobWriter(try layout())
        try writer.write(bytes)
        try writer.finish()
        let blob = try #require(writer.blob)
        return Descriptor(mediaType: mediaType, digest: blob.digest, size: blob.size)
    }

    func image(_ tag: String) throws -> ResolvedImage { try layout().resolve(tag) }

    @discardableResult
    func unpack(
        _ tag: String, _ bundle: String = "bundle", options: Unpacking.Options = Unpacking.Options(),
        cancellation: Cancellation = Cancellation(), progress: @escaping ProgressHandler = { _ in }
    ) throws -> Unpacking.Result {
        try Unpacking(
            driver: BtrfsDriver(store: try store()), options: options, cancellation: cancellation,
            progress: progress
        ).unpack(try image(tag), into: self.bundle(bundle))
    }

    @discardableResult
    func repack(
        _ bundle: String, _ tag: String, _ change: (inout Repacking.Options) -> Void = { _ in }
    ) throws -> Repacking.Result {
        var options = Repacking.Options(now: Timestamp(seconds: 1_700_000_000))
        change(&options)
        return try Repacking(driver: BtrfsDriver(store: try store()), options: options)
            .repack(self.bundle(bundle), into: try layout(), tag: tag)
    }

    /// `A path` and so on, as `varve diff` has it.
    func delta(_ bundle: String, source: DeltaSource = .auto) throws -> DeltaResult {
        try BtrfsDriver(store: try store()).freeze(
            RepackContext(bundle: self.bundle(bundle), source: source)
        ).delta {}
    }

    func diff(_ bundle: String, source: DeltaSource = .auto) throws -> [String] {
        try delta(bundle, source: source).changes.map(\.description)
    }

    /// Runs a shell script in the volume's root.
    @discardableResult
    func shell(_ script: String) throws -> String {
        try runSuccessfully(["sh", "-ec", "cd '\(path)'\n\(script)"]).outputText
    }

    func names(in directory: String) throws -> [String] {
        let opened = try volume.root.openDirectory(BytePath(directory))
        return try opened.fd.entries().map(\.name.description).sorted()
    }

    func open(_ directory: String) throws -> SharedDescriptor {
        SharedDescriptor(try volume.root.openDirectory(BytePath(directory)))
    }

    var chains: [String] { get throws { try names(in: "store/chains") } }

    /// That nothing is under way or left over.
    func expectClean(sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(try names(in: "store/work") == [], sourceLocation: sourceLocation)
        #expect(try names(in: "store/locks") == [], sourceLocation: sourceLocation)
    }

    /// ChainIDs as the image-spec says, by sha256sum.
    func chainNames(_ layers: [StoreLayer]) throws -> [String] {
        var result: [String] = []
        var chain = ""
        for layer in layers {
            let diffID =
                "sha256:"
                + String(try runSuccessfully(["sha256sum"], input: layer.archive).outputText.prefix(64))
            if chain.isEmpty {
                chain = diffID
            } else {
                chain =
                    "sha256:"
                    + String(
                        try runSuccessfully(["sha256sum"], input: Array("\(chain) \(diffID)".utf8)).outputText
                            .prefix(64))
            }
            result.append("sha256-" + chain.dropFirst(7))
        }
        return result
    }

    /// The tree that the layers give, made with no store, in a plain directory.
    func reference(_ layers: [StoreLayer], options: ApplyOptions = ApplyOptions()) throws -> SharedDescriptor
    {
        let name = BytePath("reference-" + randomName())
        try volume.root.makeDirectory(name, mode: 0o755)
        let root = try open(name.description)
        try root.fd.setTimes(access: .epoch, modification: .epoch)
        for (index, layer) in layers.enumerated() {
            try LayerApplier(root: root.fd, isBottom: index == 0, options: options).apply(
                TarReader(StoreBytes(layer.archive)))
        }
        return root
    }

    /// The layers of an image in the layout, as they are stored there.
    func storedLayers(_ tag: String) throws -> [StoreLayer] {
        let image = try image(tag)
        return try image.layers.map { descriptor in
            let type = try LayerMediaType(descriptor.mediaType)
            let codec: Compression =
                switch type.compression {
                case .none: .none
                case .gzip: .gzip
                case .zstd: .zstd
                }
            let file = SharedDescriptor(try image.layout.openBlob(descriptor))
            let source = codec.decoder(over: FileSource(file))
            var bytes: [UInt8] = []
            while true {
                let piece = try unsafe source.next()
                if unsafe piece.isEmpty { break }
                unsafe bytes.append(contentsOf: piece)
            }
            var layer = try StoreLayer([], type.compression)
            layer.archive = bytes
            return layer
        }
    }

    /// Takes the layers of an image away, so that whoever reads one fails.
    func hideLayers(_ tag: String) throws {
        for layer in try image(tag).layers {
            try? volume.root.unlink(BytePath("layout/blobs/sha256/\(layer.digest.hex)"))
        }
    }

    func blobPath(_ digest: Digest) -> BytePath { layoutPath.appending("blobs/sha256/\(digest.hex)") }
}

/// Bytes as a source.
@safe
final class StoreBytes: ByteSource {
    private let memory: UnsafeMutableRawBufferPointer
    private var isDone = false
    init(_ bytes: [UInt8]) {
        unsafe memory = .allocate(byteCount: max(1, bytes.count), alignment: 16)
        unsafe memory.copyBytes(from: bytes)
        count = bytes.count
    }
    private let count: Int
    deinit { unsafe memory.deallocate() }
    func next() -> UnsafeRawBufferPointer {
        defer { isDone = true }
        return unsafe UnsafeRawBufferPointer(rebasing: memory[..<(isDone ? 0 : count)])
    }
}

/// Whether an error says that the input is at fault.
func storeBlamesInput(_ error: any Error) -> Bool {
    switch error {
    case let error as VarveError: error.code == .invalidInput
    case let error as OCIError: error.kind == .invalidInput
    case LayerError.invalidEntry: true
    default: error is TarError || error is CodecError
    }
}

/// Whether an error is the library's, of that kind.
func isStoreError(_ error: any Error, _ code: VarveError.Code) -> Bool {
    (error as? VarveError)?.code == code
}

/// Three small layers that build on each other.
func storeSampleLayers() throws -> [StoreLayer] {
    [
        try StoreLayer([
            .directory("./"), .directory("bin/"), .file("bin/sh", "shell", mode: 0o755), .directory("etc/"),
            .file("etc/passwd", "root:x:0:0::/:/bin/sh\n"), .file("etc/old", "old"),
            .link("bin/bash", .hardLink, "bin/sh"),
            .directory("data/"), .file("data/kept", "k"),
        ]),
        try StoreLayer(
            [
                .file("etc/new", "new"), .file("etc/.wh.old"), .link("bin/zsh", .hardLink, "bin/sh"),
                .link("lib", .symbolicLink, "data"),
            ], .zstd),
        try StoreLayer([.file("lib/x", "x"), .file("bin/sh", "another", mode: 0o4755)], .none),
    ]
}
