import VarveFormats
import ArgumentParser
import BtrfsSendStream
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
import Varve

@testable import VarveCommands

/// All that the command can do, as calls of the library.
@Suite struct FacadeTests {
    private static func text(_ path: BytePath) throws -> String {
        String(
            decoding: try FileDescriptor.workingDirectory.readFile(
                BytePath(repositoryFile("\(path)")), limit: 1 << 20),
            as: UTF8.self)
    }

    /// The words of each command that does something, as the parser knows them.
    private static func verbs(_ type: any ParsableCommand.Type, _ words: [String] = []) -> [String] {
        let configuration = type.configuration
        let path = words + [configuration.commandName ?? ""]
        if configuration.subcommands.isEmpty { return [path.joined(separator: " ")] }
        // What help does not list serves umoci's own tests.
        return configuration.subcommands.filter { $0.configuration.shouldDisplay }.flatMap { verbs($0, path) }
    }

    @Test("The table of Docs/embedding.md has each verb of the command, with a call that there is")
    func table() throws {
        let verbs = Set(RootCommand.commands.flatMap(\.commands).flatMap { Self.verbs($0().type) })
        #expect(verbs.count > 25)
        let listed = try Self.listedCalls()
        #expect(Set(listed.keys) == verbs)
        let sources = try FileDescriptor.workingDirectory.openDirectory(
            BytePath(repositoryFile("Sources/Varve")))
        // What is declared, as `TYPE.NAME(LABEL:…)`.
        var declared: Set<String> = []
        for entry in try sources.fd.entries() where entry.name.description.hasSuffix(".swift") {
            let text = try Self.text(BytePath("Sources/Varve").appending(entry.name))
            declared.formUnion(Self.publicFunctions(of: text))
        }
        for (verb, calls) in listed {
            for call in calls {
                #expect(declared.contains(call), "\(verb): there is no \(call) in \(declared.sorted())")
            }
        }
    }

    /// The table of Docs/embedding.md: the calls of each verb.
    static func listedCalls() throws -> [String: [String]] {
        var listed: [String: [String]] = [:]
        for line in try text("Docs/embedding.md").split(separator: "\n") where line.hasPrefix("| `") {
            let cells = line.split(separator: "|").map { $0.trimmingSpaces() }
            guard cells.count == 2 else { continue }
            let calls = cells[1].split(separator: "`").filter { $0.contains("(") && $0.contains(".") }
            // Some verbs have none on purpose; the table says why.
            if !calls.isEmpty || cells[1].hasPrefix("none: ") {
                listed[cells[0].filter { $0 != "`" }] = calls.map(String.init)
            }
        }
        return listed
    }

    /// Public functions of a source file, named as documentation names them.
    private static func publicFunctions(of text: String) -> [String] {
        var type = ""
        var result: [String] = []
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            for start in ["extension ", "public struct ", "public enum "] where line.hasPrefix(start) {
                type = String(line.dropFirst(start.count).prefix { $0.isLetter })
            }
            for start in ["    public func ", "    public static func "] where line.hasPrefix(start) {
                var head = String(line.dropFirst(start.count))
                var next = index + 1
                while !head.contains("async"), next < lines.count, next < index + 12 {
                    head += lines[next]
                    next += 1
                }
                let name = head.prefix { $0 != "(" }
                let labels = Self.labels(String(head.dropFirst(name.count)))
                result.append("\(type).\(name)(\(labels.map { $0 + ":" }.joined()))")
            }
        }
        return result
    }

    /// The labels of a parameter list that begins with its parenthesis.
    private static func labels(_ list: String) -> [String] {
        var depth = 0
        var result: [String] = []
        var isStart = true
        var word = ""
        for character in list {
            switch character {
            case "(", "[", "{":
                depth += 1
            case ")", "]", "}":
                depth -= 1
                if depth == 0 { return result }
            case "," where depth == 1:
                isStart = true
            case " ", ":":
                if depth == 1, isStart, !word.isEmpty {
                    result.append(word)
                    isStart = false
                }
                word = ""
            default:
                if depth == 1, isStart { word.append(character) }
            }
        }
        return result
    }

    // MARK: Images

    private static let date = Timestamp(seconds: 1_700_000_000)
    private static let variables = ["SOURCE_DATE_EPOCH": "1700000000"]

    /// The digest of a tag's manifest.
    private static func manifest(_ world: StoreWorld, _ tag: String) throws -> Digest {
        try world.image(tag).manifestDescriptor.digest
    }

    @Test("Changes of an image are those that the command makes, byte for byte")
    func changes() async throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", try storeSampleLayers())
        try world.shell(
            "mkdir d; echo one > d/one; echo two > two; tar --sort=name --mtime=@0 -cf two.tar two")
        let layout = world.layoutPath
        let image = layout.appendingBytes(":a")
        let images = Images()
        func options(_ tag: String) -> ImageEditing.Options {
            ImageEditing.Options(tag: tag, history: Repacking.History(), sourceDate: Self.date)
        }
        func command(_ words: BytePath...) -> CommandRun { varve(words, variables: Self.variables) }

        #expect(
            command("config", "--image", image, "--tag", "c1", "--config.user", "me", "--config.env", "A=b")
                .code
                == 0)
        var edit = ImageConfigEdit()
        edit.user = "me"
        edit.environment = [try #require(ImageConfigEdit.Pair(parsing: "A=b"))]
        try await images.configure(image, edit, options: options("c2"))
        #expect(try Self.manifest(world, "c1") == Self.manifest(world, "c2"))

        let directory = world.path.appending("d")
        #expect(
            command("insert", "--image", image, "--tag", "i1", "--opaque", directory, "/etc").code == 0)
        let inserted = try await images.insert(
            directory, into: image, at: "/etc", isOpaque: true, options: options("i2"))
        #expect(try Self.manifest(world, "i1") == Self.manifest(world, "i2"))
        #expect(try inserted.manifest.digest == Self.manifest(world, "i2"))
        #expect(inserted.layer != nil && inserted.tag == "i2")

        #expect(command("insert", "--image", image, "--tag", "w1", "--whiteout", "/bin/sh").code == 0)
        try await images.delete("/bin/sh", in: image, options: options("w2"))
        #expect(try Self.manifest(world, "w1") == Self.manifest(world, "w2"))

        let archive = world.path.appending("two.tar")
        #expect(command("raw", "add-layer", "--image", image, "--tag", "l1", archive).code == 0)
        try await images.addLayer(archive, to: image, options: options("l2"))
        #expect(try Self.manifest(world, "l1") == Self.manifest(world, "l2"))

        let before = try world.shell("find layout -type f | sort")
        await #expect(throws: (any Error).self) {
            try await images.addLayer(directory.appending("one"), to: image, options: options("bad"))
        }
        await #expect(throws: VarveError.self) {
            try await images.configure(image, edit, options: options("no tag"))
        }
        #expect(try world.shell("find layout -type f | sort") == before)
    }

    @Test("Layouts and tags")
    func layouts() async throws {
        let world = try StoreWorld(makesStore: false)
        let images = Images()
        let layout = world.layoutPath
        func image(_ tag: String) -> BytePath { layout.appendingBytes(BytePath(":\(tag)")) }
        try await images.createLayout(layout)
        await #expect(throws: VarveError.self) { try await images.createLayout(layout) }
        let made = try await images.create(image("empty"), created: Self.date)
        #expect(try await images.stat(image("empty")).manifest.descriptor.digest == made.digest)
        try world.addImage("a", try storeSampleLayers())
        try await images.tag(image("a"), as: "b")
        #expect(try await images.tags(of: layout) == ["empty", "a", "b"])
        let stat = try await images.stat(image("b"))
        // The image was made without a history.
        #expect(stat.history.isEmpty)
        #expect("\(stat)".hasPrefix("manifest sha256:") && "\(stat)".hasSuffix(", 3 layers"))

        try await images.removeTag(image("a"))
        try await images.removeTag(image("b"))
        await #expect {
            try await images.removeTag(image("b"))
        } throws: { isStoreError($0, .notFound) }
        let planned = try await images.collectGarbage(in: layout, isDryRun: true)
        let collected = try await images.collectGarbage(in: layout)
        #expect(planned.removed.count == 5 && collected.removed.count == 5)
        #expect("\(collected)" == "removed 5 blobs of \(collected.freed) bytes, kept 2")
    }

    @Test("A root file system alone, and its runtime configuration")
    func raw() async throws {
        let world = try StoreWorld(makesStore: false)
        let layers = try storeSampleLayers()
        try world.addImage("a", layers) { $0["config"] = ["User": "root", "Cmd": ["/bin/sh"]] }
        let warnings = StoreLog()
        let images = Images(logger: warnings.logger)
        let image = world.layoutPath.appendingBytes(":a")
        let rootfs = world.path.appending("rootfs")
        let result = try await images.unpackRootfs(of: image, into: rootfs)
        #expect("\(result)" == "3 layers, 0 of them in place already")
        let reference = try world.reference(layers)
        let made = try world.open("rootfs")
        #expect(try TreeCompare.differences(reference.fd, made.fd) == [])

        let known = try await images.runtimeConfiguration(of: image, rootfs: rootfs)
        let file = world.path.appending("config.json")
        #expect(varve("raw", "runtime-config", "--image", image, "--rootfs", rootfs, file).code == 0)
        #expect(try FileDescriptor.workingDirectory.readFile(file, limit: 1 << 20) == known)
        #expect(warnings.count("") == 0)
        _ = try await images.runtimeConfiguration(of: image)
        #expect(warnings.count("") == 1)
    }

    // MARK: The store

    @Test("Chains, bundles and snapshots are listed and removed")
    func lists() async throws {
        let world = try StoreWorld()
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        try world.shell("btrfs -q subvolume create 'in here'; mkdir 'in here/deep'")
        let image = world.layoutPath.appendingBytes(":a")
        let store = try await LayerStore.open(world.storePath)
        var options = Unpacking.Options()
        options.chains = .all
        let places = [world.bundle("b1"), world.path.appending("in here/deep/b2"), world.bundle("b3")]
        for place in places { try await store.unpack(image, into: place, options: options) }
        let names = try world.chainNames(layers)

        #expect(try await store.chains().map(\.description) == names.sorted())
        let bundles = try await store.bundles()
        #expect(bundles.map(\.path) == [places[0], places[2], places[1]])
        #expect(Set(bundles.map { $0.chain?.description }) == [names[2]])
        #expect(try Set(bundles.map(\.manifest)) == [Self.manifest(world, "a")])
        #expect(bundles.allSatisfy { $0.created != nil })

        try await store.createSnapshot(of: places[0], name: "one")
        try await store.createSnapshot(of: places[1], name: "two")
        #expect(try await store.snapshots().map(\.name) == ["one", "two"])
        #expect(try await store.bundles().count == 3, "a snapshot is no bundle")
        try await store.restoreSnapshot("one", to: world.bundle("b4"))
        #expect(try await store.bundles().count == 4)

        let told = Mutex<[String]>([])
        // One that is not there does not keep the other.
        await #expect {
            try await store.removeSnapshots(["one", "none", "two"]) { progress in
                told.withLock { $0.append("\(progress)") }
            }
        } throws: { isStoreError($0, .notFound) }
        #expect(try await store.snapshots().isEmpty)
        #expect(told.withLock { $0.first } == "items(done: 1, count: 3)")
        try await store.removeBundles(places + [world.bundle("b4")])
        #expect(try await store.bundles() == [])

        let used = try await store.usage()
        #expect(used.chains.map(\.name.description) == names.sorted())
        let layerNames = try await store.layerNames(of: image)
        #expect(layerNames.map(\.chain.description) == names)
        #expect(layerNames.allSatisfy { $0.isPresent && $0.isInStacker == nil })
        try await store.removeChains([try #require(ChainName(names[2]))])
        #expect(try await store.layerNames(of: image).map(\.isPresent) == [true, true, false])
        try world.expectClean()
    }

    @Test("Garbage is collected, and a store checked")
    func care() async throws {
        let world = try StoreWorld()
        let layers = try storeSampleLayers()
        try world.addImage("a", layers)
        let image = world.layoutPath.appendingBytes(":a")
        let store = try await LayerStore.open(world.storePath)
        try await store.unpack(image, into: world.bundle())
        try await store.removeBundles([world.bundle()])
        #expect(try await store.collectGarbage(keeping: [image]).chains == [])
        #expect(try await store.collectGarbage(keepingYoungerThan: .seconds(3600)).chains == [])
        let planned = try await store.collectGarbage(isDryRun: true)
        #expect("\(planned)".hasPrefix("would delete 3 chains, 0 kept"))
        let found = try await store.check(comparingWith: [image])
        #expect(found.findings == [] && found.compared.count == 3 && found.uncompared == 0)
        #expect("\(found)" == "nothing is wrong")

        let chain = try #require(try world.chains.first)
        try world.shell(
            "btrfs property set -f store/chains/\(chain) ro false; echo x > store/chains/\(chain)/rootfs/x")
        #expect(try await store.check().left == 1)
        #expect(try await store.check(repairs: true).left == 0)
        #expect(try world.chains.count == 2)
        let collected = try await store.collectGarbage(waitsForSpace: true)
        #expect(collected.isSpaceBack && "\(collected)" == "deleted 2 chains, 0 kept")
        #expect(try world.chains == [])
        try world.expectClean()
    }

    @Test("Blobs that a snapshot needs stay in its layout")
    func neededBlobs() async throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        let image = world.layoutPath.appendingBytes(":a")
        let store = try await LayerStore.open(world.storePath)
        try await store.unpack(image, into: world.bundle())
        let images = Images()
        try await images.removeTag(image)
        #expect(try await images.collectGarbage(in: world.layoutPath, keeping: store).removed.isEmpty)
        #expect(try await images.collectGarbage(in: world.layoutPath).removed.count == 5)
    }

    @Test("A loopback store is made, unmounted and mounted")
    func loopback() async throws {
        let directory = try TemporaryDirectory()
        let path = directory.path.appending("s")
        do {
            let store = try await LayerStore.createLoopback(path, size: 256 << 20)
            #expect(try await store.chains() == [])
        }
        try await LayerStore.unmountLoopback(path)
        await #expect(throws: VarveError.self) { try await LayerStore.unmountLoopback(path) }
        await #expect(throws: VarveError.self) { try await LayerStore.open(path) }
        try await LayerStore.mountLoopback(path)
        #expect(try await LayerStore.open(path).chains() == [])
        try await LayerStore.unmountLoopback(path)
    }

    @Test("The store answers as a hook program")
    func hook() async throws {
        let world = try StoreWorld()
        let store = try await LayerStore.open(world.storePath)
        let request = Array(
            "{\"protocolVersion\":1,\"hook\":\"unpack.ociv1.layer.try-skip\",\"layers\":[]}".utf8)
        let name = HookName.trySkip.rawValue
        let answer = try await store.answerHook(name, bundle: world.bundle(), request: request)
        #expect(try JSONValue(parsing: answer).object?["layers"]?.int64 == 0)
        await #expect {
            try await store.answerHook(name, bundle: world.bundle("other"), request: [])
        } throws: { isStoreError($0, .invalidInput) }
    }

    @Test("A send stream is printed as the command prints it, and a pipe that nobody fills can be given up")
    func stream() async throws {
        let world = try StoreWorld(makesStore: false)
        try world.shell(
            """
            btrfs -q subvolume create a; echo x > a/f; btrfs -q subvolume snapshot -r a b
            btrfs -q send -f stream b; mkfifo pipe
            """)
        let file = world.path.appending("stream")
        for format in [(SendStreams.Format.text, "text"), (.json, "json")] {
            let lines = Mutex("")
            try await SendStreams.dump(file, as: format.0) { line in lines.withLock { $0 += line + "\n" } }
            let text = lines.withLock { $0 }
            #expect(text == varve("stream", "dump", "--format", BytePath(format.1), file).text)
            #expect(text.contains("mkfile"))
        }
        let pipe = world.path.appending("pipe")
        let workshop = VarveStore.Workshop(VarveStore.Workshop.Limits(calls: 1))
        let task = Task { try await SendStreams.dump(pipe, workshop: workshop) { _ in } }
        while workshop.load.running == 0 { await Task.yield() }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(workshop.load == (0, 0))
    }

    // MARK: Deltas and progress

    @Test("Deltas come as results that can be printed, and tell their progress")
    func deltas() async throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer((0..<300).map { .file(BytePath("f\($0)"), "x") })])
        let store = try await LayerStore.open(world.storePath)
        let image = world.layoutPath.appendingBytes(":a")
        try await store.unpack(image, into: world.bundle())
        try await store.createSnapshot(of: world.bundle(), name: "before")
        try world.shell("echo y > bundle/rootfs/f7; rm bundle/rootfs/f8; mkdir bundle/rootfs/new")
        let expected = ["M .", "M f7", "D f8", "A new"]
        let told = Atomic<Int>(0)
        let own = try await store.delta(of: world.bundle(), source: .walk) {
            told.store($0, ordering: .relaxed)
        }
        #expect(own.changes.map { "\($0)" } == expected)
        #expect(told.load(ordering: .relaxed) >= 64)
        let pair = try await store.delta(from: "before", to: world.bundle())
        #expect(pair.changes.map { "\($0)" } == expected)
        #expect("\(pair)".hasPrefix("4 changes, found by "))

        let repacked = try await store.repack(
            world.bundle(), into: world.layoutPath.appendingBytes(":b"))
        #expect("\(repacked)".hasPrefix("4 changes, layer sha256:"))
        var options = Repacking.Options()
        options.compression = LayerCompression.none
        let again = try await store.repack(
            world.bundle(), into: world.layoutPath.appendingBytes(":c"), options: options)
        #expect(again.layer?.mediaType == LayerCompression.none.mediaType)
    }

    /// However often the engine tells, whoever is told can count on his peace.
    @Test("Progress is told at most 20 times a second, and what there is to do always")
    func pace() async throws {
        let world = try StoreWorld()
        try world.addImage("a", [try StoreLayer((0..<3000).map { .file(BytePath("f\($0)"), "x") })])
        let store = try await LayerStore.open(world.storePath)
        let told = Mutex<[String]>([])
        let elapsed = try await ContinuousClock().measure {
            try await store.unpack(
                world.layoutPath.appendingBytes(":a"), into: world.bundle()
            ) { progress in told.withLock { $0.append("\(progress)") } }
        }
        let all = told.withLock { $0 }
        #expect(all.first?.hasPrefix("planned(") == true)
        // Two calls lie 50 ms apart, however long the whole takes.
        #expect(Double(all.count - 1) <= elapsed / .milliseconds(50) + 1, "\(all)")
    }

    @Test("A driver can be tested alone, with contexts and results that its test makes")
    func driverAlone() async throws {
        let world = try StoreWorld(makesStore: false)
        try world.addImage("a", try storeSampleLayers())
        let context = UnpackContext(bundle: world.bundle(), image: try world.image("a"))
        #expect(context.chainIDs.count == 3 && context.diffIDs.count == 3)
        do {
            let transaction = try DirectoryDriver().beginUnpack(context)
            #expect(transaction.unpack.layersInPlace == 0)
        }
        let store = LayerStore(driver: DirectoryDriver())
        try await store.unpack(world.layoutPath.appendingBytes(":a"), into: world.bundle())
        // Of any kind, with no store.
        try await store.removeBundles([world.bundle()])
        #expect(try world.names(in: ".") == ["layout"])
        await #expect(throws: VarveError.self) { try await store.snapshots() }
        let result = Repacking.Result(
            layer: nil, manifest: context.image.manifestDescriptor, changes: 0)
        #expect("\(result)".hasPrefix("nothing changed; the manifest is sha256:"))
    }
}

extension Substring {
    fileprivate func trimmingSpaces() -> String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}
