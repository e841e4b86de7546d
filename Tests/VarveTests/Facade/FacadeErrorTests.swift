import BtrfsSendStream
import Logging
import SystemPackage
import TestSupport
import Testing
import Varve
import VarveArchive
import VarveBtrfs
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem

/// Whatever goes wrong, what leaves the library is `VarveError`, or `CancellationError`.
@Suite struct FacadeErrorTests {
    /// A call that cannot succeed.
    struct Failure {
        /// As the table of Docs/embedding.md has it.
        var call: String
        var code: VarveError.Code
        var subject: BytePath?
        var run: @Sendable () async throws -> Void

        init(
            _ call: String, _ code: VarveError.Code, _ subject: BytePath? = nil,
            _ run: @escaping @Sendable () async throws -> Void
        ) {
            self.call = call
            self.code = code
            self.subject = subject
            self.run = run
        }
    }

    /// Every call of the table with an argument that cannot be right, and others whose errors come from deep below.
    private static func failures(_ world: StoreWorld, _ store: LayerStore) throws -> [Failure] {
        let images = Images()
        let other = LayerStore(driver: DirectoryDriver())
        let layout = world.layoutPath
        let none = world.path.appending("none")
        let file = world.path.appending("file")
        let fresh = world.path.appending("fresh")
        @Sendable func image(_ tag: String) -> BytePath { layout.appendingBytes(BytePath(":\(tag)")) }
        let nowhere = none.appendingBytes(":a")
        let chain = try #require(ChainName("sha256-" + String(repeating: "0", count: 64)))
        return [
            Failure("LayerStore.open(_:workshop:logger:)", .notFound, none) {
                _ = try await LayerStore.open(none)
            },
            Failure("LayerStore.unpack(_:platform:into:options:progress:)", .notFound, none) {
                try await store.unpack(nowhere, into: fresh)
            },
            Failure("LayerStore.unpack(_:platform:into:options:progress:)", .failed, file) {
                try await store.unpack(image("a"), into: file)
            },
            // A layer that is no gzip, one that is no archive, one with an entry that may not be, one whose content is another's.
            Failure("LayerStore.unpack(_:platform:into:options:progress:)", .invalidInput) {
                try await store.unpack(image("nogzip"), into: fresh)
            },
            Failure("LayerStore.unpack(_:platform:into:options:progress:)", .invalidInput) {
                try await store.unpack(image("notar"), into: fresh)
            },
            Failure("LayerStore.unpack(_:platform:into:options:progress:)", .invalidInput) {
                try await store.unpack(image("entry"), into: fresh)
            },
            Failure("LayerStore.unpack(_:platform:into:options:progress:)", .invalidInput) {
                var options = Unpacking.Options()
                options.limits.entries = 1
                try await other.unpack(image("a"), into: fresh, options: options)
            },
            Failure("LayerStore.repack(_:into:options:progress:)", .notFound, none) {
                try await store.repack(none, into: image("b"))
            },
            Failure("LayerStore.repack(_:into:options:progress:)", .usage, "no tag") {
                try await store.repack(world.bundle(), into: image("no tag"))
            },
            Failure("LayerStore.delta(of:source:readsAll:progress:)", .notFound, none) {
                _ = try await store.delta(of: none)
            },
            Failure("LayerStore.delta(from:to:source:progress:)", .notFound, none) {
                _ = try await store.delta(from: none, to: world.bundle())
            },
            Failure("LayerStore.removeBundles(_:progress:)", .notFound, none) {
                try await store.removeBundles([none, none])
            },
            Failure("LayerStore.bundles()", .unsupported) { _ = try await other.bundles() },
            Failure("Images.createLayout(_:)", .failed, layout) { try await images.createLayout(layout) },
            Failure("Images.create(_:platform:created:)", .notFound, none) {
                try await images.create(nowhere)
            },
            Failure("Images.configure(_:_:options:)", .notFound, "none") {
                try await images.configure(image("none"), ImageConfigEdit())
            },
            Failure("Images.insert(_:into:at:isOpaque:owners:compression:options:)", .notFound, none) {
                try await images.insert(none, into: image("a"), at: "/x")
            },
            Failure("Images.insert(_:into:at:isOpaque:owners:compression:options:)", .usage, file) {
                try await images.insert(file, into: image("a"), at: "/")
            },
            Failure("Images.delete(_:in:compression:options:)", .usage) {
                try await images.delete("/", in: image("a"))
            },
            Failure("Images.tag(_:as:)", .usage, "no tag") { try await images.tag(image("a"), as: "no tag") },
            Failure("Images.removeTag(_:)", .notFound, "none") { try await images.removeTag(image("none")) },
            Failure("Images.pull(_:as:platform:progress:)", .usage, "debian") {
                try await images.pull("debian", as: image("a"))
            },
            Failure("Images.pull(_:as:platform:progress:)", .notFound, "oci-archive:/none") {
                try await images.pull("oci-archive:/none", as: image("a"))
            },
            Failure("Images.push(_:to:platform:progress:)", .notFound, "none") {
                try await images.push(image("none"), to: "oci-archive:/none")
            },
            Failure("Images.tags(of:)", .notFound, none) { _ = try await images.tags(of: none) },
            Failure("Images.stat(_:platform:)", .usage, file.appendingBytes(":a")) {
                _ = try await images.stat(file.appendingBytes(":a"))
            },
            Failure("Images.stat(_:platform:)", .usage, "docker://debian:12") {
                _ = try await images.stat("docker://debian:12")
            },
            Failure("Images.collectGarbage(in:keeping:isDryRun:)", .notFound, none) {
                _ = try await images.collectGarbage(in: none)
            },
            Failure("Images.unpackRootfs(of:platform:into:options:progress:)", .failed, layout) {
                try await images.unpackRootfs(of: image("a"), into: layout)
            },
            Failure("Images.addLayer(_:to:compression:options:)", .invalidInput, file) {
                try await images.addLayer(file, to: image("a"))
            },
            Failure("Images.runtimeConfiguration(of:platform:rootfs:owners:)", .notFound, none) {
                _ = try await images.runtimeConfiguration(of: image("a"), rootfs: none)
            },
            Failure("LayerStore.create(_:workshop:logger:)", .failed, layout) {
                _ = try await LayerStore.create(layout)
            },
            Failure("LayerStore.createLoopback(_:size:workshop:logger:)", .usage, none) {
                _ = try await LayerStore.createLoopback(none, size: 1)
            },
            Failure("LayerStore.mountLoopback(_:workshop:)", .notFound, none) {
                try await LayerStore.mountLoopback(none)
            },
            Failure("LayerStore.unmountLoopback(_:workshop:)", .notFound, layout) {
                try await LayerStore.unmountLoopback(layout)
            },
            Failure("LayerStore.chains()", .unsupported) { _ = try await other.chains() },
            Failure("LayerStore.layerNames(of:platform:stacker:)", .notFound, none) {
                _ = try await store.layerNames(of: nowhere)
            },
            Failure("LayerStore.usage()", .unsupported) { _ = try await other.usage() },
            Failure("LayerStore.check(repairs:comparingWith:layouts:)", .notFound, none) {
                _ = try await store.check(layouts: [none])
            },
            Failure(
                "LayerStore.collectGarbage(keeping:keepingYoungerThan:isDryRun:waitsForSpace:progress:)",
                .notFound, "none"
            ) { _ = try await store.collectGarbage(keeping: [image("none")]) },
            Failure("LayerStore.removeChains(_:progress:)", .notFound, chain.path) {
                try await store.removeChains([chain])
            },
            Failure("LayerStore.createSnapshot(of:name:)", .usage, "a/b") {
                try await store.createSnapshot(of: world.bundle(), name: "a/b")
            },
            Failure("LayerStore.createSnapshot(of:name:)", .notFound, none) {
                try await store.createSnapshot(of: none, name: "a")
            },
            Failure("LayerStore.snapshots()", .unsupported) { _ = try await other.snapshots() },
            Failure("LayerStore.restoreSnapshot(_:to:)", .notFound, "none") {
                try await store.restoreSnapshot("none", to: fresh)
            },
            Failure("LayerStore.removeSnapshots(_:progress:)", .notFound, "none") {
                try await store.removeSnapshots(["none"])
            },
            Failure("SendStreams.dump(_:as:workshop:to:)", .notFound, none) {
                try await SendStreams.dump(none) { _ in }
            },
            Failure("SendStreams.dump(_:as:workshop:to:)", .invalidInput) {
                try await SendStreams.dump(file) { _ in }
            },
            Failure("LayerStore.answerHook(_:bundle:request:)", .invalidInput) {
                _ = try await store.answerHook(
                    "unpack.ociv1.layer.try-skip", bundle: world.bundle(), request: [])
            },
        ]
    }

    @Test(
        "Each call of the table fails with an error of the library: its code, its subject, and no flag of a command"
    )
    func calls() async throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        var notTar = try StoreLayer([], .none)
        notTar.archive = [UInt8](repeating: 1, count: 1024)
        try world.addImage("notar", [notTar])
        let layout = try world.layout()
        let manifest = ImageManifest(
            config: try world.image("notar").manifest.config,
            layers: [try world.put(notTar.archive, mediaType: LayerCompression.gzip.mediaType)])
        try layout.tag("nogzip", try layout.putJSON(manifest.json, mediaType: MediaType.ociManifest))
        try world.addImage("entry", [try StoreLayer([.file("f", "x"), .link("l", .hardLink, "none")])])
        try world.shell("echo x > file")
        let store = try await LayerStore.open(world.storePath)
        try await store.unpack(world.layoutPath.appendingBytes(":a"), into: world.bundle())
        let failures = try Self.failures(world, store)
        let listed = Set(try FacadeTests.listedCalls().values.joined())
        #expect(listed.subtracting(failures.map(\.call)) == [], "the table has calls that are not tried here")
        for failure in failures {
            do {
                try await failure.run()
                Issue.record("\(failure.call): nothing failed")
            } catch let error as VarveError {
                #expect(error.code == failure.code, "\(failure.call): \(error.code): \(error)")
                if let subject = failure.subject {
                    #expect(error.subject == subject, "\(failure.call): \(error)")
                }
                #expect(!error.reason.isEmpty, "\(failure.call)")
                let words = error.description.split(separator: " ")
                let isOfCommand = words.contains {
                    ($0.hasPrefix("--") && $0.dropFirst(2).first?.isLetter == true) || $0 == "varve"
                }
                #expect(!isOfCommand, "\(failure.call): \(error)")
            } catch {
                Issue.record("\(failure.call): \(type(of: error)): \(error)")
            }
        }
    }

    /// What somebody else's code throws.
    struct OwnError: Error, CustomStringConvertible {
        var description: String { "the shelf is full" }
    }

    /// Throws one error in each call.
    struct BrokenDriver: StorageDriver {
        var error: any Error
        var name: String { "broken" }
        func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction { throw error }
        func freeze(_ context: RepackContext) throws -> any FrozenBundle { throw error }
    }

    @Test("An error of a driver of somebody else's is the cause of one of the library")
    func driver() async throws {
        let store = LayerStore(driver: BrokenDriver(error: OwnError()))
        let error = try await #require(throws: VarveError.self) { try await store.delta(of: "/none") }
        #expect(error.code == .failed && error.cause is OwnError && error.description == "the shelf is full")
        let own = VarveError(.noSpace, "the shelf is full", subject: "shelf", remedy: .tryAgain)
        let kept = try await #require(throws: VarveError.self) {
            try await LayerStore(driver: BrokenDriver(error: own)).delta(of: "/none")
        }
        #expect(kept.code == .noSpace && kept.subject == "shelf" && kept.remedy == .tryAgain)
        #expect(kept.description == "the shelf is full; try again")
    }

    @Test("No error of a module below leaves the library as it is")
    func modules() async throws {
        let errors: [any Error] = [
            OCIError(.invalidInput, "x"), LayerError.treeChanged,
            BtrfsError(.send, path: "a", errno: .ioError),
            TarError(offset: 0, entry: nil, reason: .endsEarly), CodecError(.gzip, .truncated, offset: 0),
            PipelineError.longerThan(limit: 1), SendStreamError(.empty, offset: 0), Errno.ioError,
            PlaceError(path: "a", reason: .noRegularFile),
        ]
        for error in errors {
            let store = LayerStore(driver: BrokenDriver(error: error))
            await #expect("\(type(of: error))") {
                try await store.delta(of: "/none")
            } throws: { ($0 as? VarveError).map { $0.cause.map { type(of: $0) } == type(of: error) } == true }
        }
        for error in [CancellationError(), LayerError.cancelled, PipelineError.cancelled] as [any Error] {
            let store = LayerStore(driver: BrokenDriver(error: error))
            await #expect(throws: CancellationError.self) { try await store.delta(of: "/none") }
        }
    }
}
