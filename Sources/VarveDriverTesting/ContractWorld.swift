import VarveArchive
import VarveDriverKit
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

/// A layout with the images of the contract, room for bundles, and what was found wrong.
final class ContractWorld {
    private let directory: BytePath
    private let removeBundle: @Sendable (BytePath) throws -> Void
    private let makeDriver: @Sendable () throws -> any StorageDriver
    private(set) var violations: [String] = []

    private var bundles: BytePath { directory.appending("bundles") }
    private var layout: BytePath { directory.appending("images") }

    init(
        _ place: BytePath, removeBundle: @escaping @Sendable (BytePath) throws -> Void,
        makeDriver: @escaping @Sendable () throws -> any StorageDriver
    ) throws {
        directory = place.appending("varve-contract-\(randomName())")
        self.removeBundle = removeBundle
        self.makeDriver = makeDriver
        let here = FileDescriptor.workingDirectory
        try here.makeDirectory(directory, mode: 0o700)
        try here.makeDirectory(bundles, mode: 0o700)
        try ContractImage.write(into: ImageLayout.create(at: layout))
    }

    func remove() {
        for name in (try? names()) ?? [] { try? removeBundle(bundles.appending(name)) }
        try? Trees.remove(directory)
    }

    // MARK: Steps

    private func expect(_ holds: Bool, _ otherwise: @autoclosure () -> String) {
        if !holds { violations.append(otherwise()) }
    }

    /// The names in the directory of the bundles, hidden ones too.
    private func names() throws -> [BytePath] {
        let opened = try Trees.open(bundles)
        return try opened.fd.entries().map(\.name).sorted()
    }

    private func bundle(_ name: BytePath) -> BytePath { bundles.appending(name) }

    private func image(_ tag: String) throws -> ResolvedImage {
        try ImageLayout.resolve(ImageReference(path: layout, tag: tag))
    }

    private func unpack(_ tag: String, _ name: BytePath) throws {
        _ = try Unpacking(driver: makeDriver()).unpack(image(tag), into: bundle(name))
    }

    /// What an image is to be, made without the driver.
    private func reference(_ tag: String) throws -> SharedDescriptor {
        let path = directory.appending("reference-\(tag)")
        if try FileDescriptor.workingDirectory.statusIfPresent(of: path) == nil {
            _ = try Unpacking(driver: DirectoryDriver()).unpack(image(tag), into: path)
        }
        return try Trees.open(path.appending("rootfs"))
    }

    private func rootfs(_ name: BytePath) throws -> SharedDescriptor {
        try Trees.open(bundle(name).appending("rootfs"))
    }

    private func delta(_ name: BytePath, of tag: String, readsAll: Bool = false) throws -> [Change] {
        try makeDriver().freeze(
            RepackContext(bundle: bundle(name), image: image(tag), readsAll: readsAll)
        ).delta {}.changes
    }

    private func repack(_ name: BytePath, to tag: String, refreshes: Bool = false) throws -> Repacking.Result
    {
        var options = Repacking.Options()
        options.refreshesBundle = refreshes
        return try Repacking(driver: makeDriver(), options: options)
            .repack(bundle(name), into: ImageLayout(opening: layout), tag: tag)
    }

    /// The names of paths, for a sentence.
    private func list(_ changes: [Change]) -> String {
        changes.isEmpty ? "nothing" : changes.map { "\($0)" }.joined(separator: ", ")
    }

    private func expectTree(_ name: BytePath, equals tree: SharedDescriptor, _ what: String) throws {
        let differences = try Trees.compare(old: tree, new: rootfs(name)).changes
        expect(differences.isEmpty, "\(what): the tree differs in \(list(differences))")
    }

    private func expectDelta(_ name: BytePath, of tag: String, is expected: [Change], _ what: String) throws {
        for readsAll in [false, true] {
            let found = try delta(name, of: tag, readsAll: readsAll)
            expect(
                found == expected,
                "\(what): the delta is \(list(found)), and \(list(expected)) has changed\(readsAll ? " (all content read)" : "")"
            )
        }
    }

    private func expectOnly(_ expected: [BytePath], _ what: String) throws {
        let found = try names()
        expect(
            found == expected.sorted(),
            "\(what): the directory of the bundles holds \(found.map(\.description)), not \(expected.map(\.description))"
        )
    }

    /// Whether `body` fails, as it must.
    private func expectFailure(_ what: String, _ body: () throws -> Void) {
        do {
            try body()
            violations.append("\(what): there is no error")
        } catch {}
    }

    // MARK: Rules

    func checkTree() throws {
        let tree = try reference("image")
        for name in ["one", "two"] as [BytePath] {
            try unpack("image", name)
            try expectTree(name, equals: tree, "unpack")
            try expectDelta(name, of: "image", is: [], "unpack")
            let opened = try Trees.open(bundle(name))
            for file in ["config.json", BundleMetadata.fileName] as [BytePath] {
                expect(
                    try opened.fd.statusIfPresent(of: file)?.isRegular == true, "the bundle has no \(file)")
            }
        }
        try expectOnly(["one", "two"], "unpack")
    }

    func checkEmptyImage() throws {
        try unpack("empty", "one")
        try expectTree("one", equals: reference("empty"), "an image without layers")
        try expectDelta("one", of: "empty", is: [], "an image without layers")
        let root = try rootfs("one")
        try root.fd.writeFileDurably("file", Array("x".utf8))
        _ = try repack("one", to: "first")
        try expectTree("one", equals: reference("first"), "the first layer of an image")
    }

    func checkDelta() throws {
        let tree = try reference("image")
        for (index, edit) in ContractEdit.all.enumerated() {
            let tag = "edited-\(index)"
            try unpack("image", "one")
            let root = try rootfs("one")
            try edit.apply(root.fd)
            extendLifetime(root)
            let expected = try Trees.compare(old: tree, new: rootfs("one")).changes
            expect(expected.isEmpty == edit.isEmpty, "\(edit.name): the check itself is wrong")
            try expectDelta("one", of: "image", is: expected, edit.name)
            let result = try repack("one", to: tag)
            expect(result.changes == expected.count, "\(edit.name): \(result.changes) changes are packed")
            try expectTree("one", equals: reference(tag), "\(edit.name), packed")
            try removeBundle(bundle("one"))
            // What the driver may have kept of the repack is the same.
            try unpack(tag, "two")
            try expectTree("two", equals: reference(tag), "\(edit.name), unpacked again")
            try removeBundle(bundle("two"))
        }
        try expectOnly([], "bundles that were removed")
    }

    func checkRefresh() throws {
        try unpack("image", "one")
        let root = try rootfs("one")
        try root.fd.writeFileDurably("first", Array("1".utf8))
        _ = try repack("one", to: "first", refreshes: true)
        try expectDelta("one", of: "first", is: [], "after a refresh")
        let old = try reference("first")
        try root.fd.unlink("first")
        try root.fd.writeFileDurably("second", Array("2".utf8))
        try expectDelta(
            "one", of: "first", is: Trees.compare(old: old, new: root).changes, "a change after a refresh")
        _ = try repack("one", to: "second", refreshes: true)
        try expectTree("one", equals: reference("second"), "the second refresh")
        try expectDelta("one", of: "second", is: [], "after the second refresh")
    }

    func checkDamagedImage() throws {
        guard let layer = try image("image").layers.last else { return }
        let blob = layout.appending("blobs/sha256").appending(layer.digest.hex)
        let opened = try FileDescriptor.workingDirectory.open(blob, [.readWrite])
        // Inside the content of a file: the archive stays one.
        try opened.fd.setSize(layer.size - 1)
        expectFailure("an image that is damaged") { try unpack("image", "one") }
        try expectOnly([], "an image that is damaged")
    }

    func checkCancelled() throws {
        let cancellation = Cancellation()
        var unpacking = Unpacking.Options()
        unpacking.chains = .all
        expectFailure("an unpack that is cancelled") {
            _ = try Unpacking(
                driver: makeDriver(), options: unpacking, cancellation: cancellation,
                progress: { if case .read = $0 { cancellation.cancel() } }
            ).unpack(image("image"), into: bundle("one"))
        }
        try expectOnly([], "an unpack that is cancelled")
        try unpack("image", "one")
        try expectTree("one", equals: reference("image"), "the unpack after one that was cancelled")
    }

    func checkOccupiedPlace() throws {
        try FileDescriptor.workingDirectory.makeDirectory(bundle("one"), mode: 0o755)
        let occupied = try Trees.open(bundle("one"))
        try occupied.fd.writeFileDurably("own", Array("mine".utf8))
        expectFailure("a place that is not free") { try unpack("image", "one") }
        expect(
            try occupied.fd.readFile("own", limit: 100) == Array("mine".utf8),
            "a place that is not free: the file in it is changed")
        expect(try occupied.fd.entries().count == 1, "a place that is not free: there is more in it than was")
        try expectOnly(["one"], "a place that is not free")
    }

    func checkNoBundle() throws {
        expectFailure("a bundle that is not there") { _ = try delta("none", of: "image") }
        try FileDescriptor.workingDirectory.makeDirectory(bundle("plain"), mode: 0o755)
        expectFailure("a directory that is no bundle") { _ = try delta("plain", of: "image") }
        try expectOnly(["plain"], "a directory that is no bundle")
    }
}
