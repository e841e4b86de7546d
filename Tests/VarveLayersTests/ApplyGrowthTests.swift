import VarveArchive
import CLinux
import DeltaChecks
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// What a layer costs follows its size, whatever it says, and what it makes is counted.
@Suite(.serialized) struct ApplyGrowthTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var count: Int
        var layers: @Sendable (Int) -> [[Item]]

        init(_ what: String, _ count: Int, _ layers: @escaping @Sendable (Int) -> [[Item]]) {
            testDescription = what
            self.count = count
            self.layers = layers
        }
    }

    private static func each(_ count: Int, _ items: (Int) -> [Item]) -> [Item] { (0..<count).flatMap(items) }

    static let shapes: [Shape] = [
        Shape("files, each with an opaque whiteout of its directory", 200) { count in
            [[.directory("d/")], each(count) { [.file(BytePath("d/f\($0)")), .whiteout("d/.wh..wh..opq")] }]
        },
        Shape("files, each with a whiteout of its directory", 200) { count in
            [[.directory("d/")], each(count) { [.file(BytePath("d/f\($0)")), .whiteout(".wh.d")] }]
        },
        Shape("directories in each other, emptied from within", 30) { count in
            let deep = String(repeating: "d/", count: count)
            return [
                [.directory("e/")],
                [.symlink("l", BytePath(deep)), .directory(BytePath(deep))]
                    + each(count) { [.file(BytePath("l/f\($0)"))] }
                    + each(count) { number in
                        [.whiteout(BytePath(String(repeating: "d/", count: count - number) + ".wh..wh..opq"))]
                    },
            ]
        },
        Shape("attributes of a directory that is there", 60) { count in
            let attributes = (0..<count).map { ExtendedAttribute(name: BytePath("user.a\($0)"), value: [1]) }
            return [
                [.directory("d/", attributes: attributes)],
                [
                    .directory(
                        "d/", attributes: attributes.map { ExtendedAttribute(name: $0.name, value: [2]) })
                ],
            ]
        },
    ]

    /// Three times eight at the most for eight times as many.
    @Test("The time is in proportion to the number of", arguments: shapes) func grows(_ shape: Shape) throws {
        func seconds(_ count: Int) throws -> Double {
            let layers = try shape.layers(count).map(archive)
            var least = Double.infinity
            for _ in 0..<2 {
                let base = try SharedVolume.directory()
                let root = try base.makeRoot()
                let start = ProcessorTime.now()
                for (index, layer) in layers.enumerated() {
                    try apply(layer, to: root.fd, isBottom: index == 0)
                }
                least = min(least, ProcessorTime.now() - start)
            }
            return least
        }
        let (small, large) = (try seconds(shape.count), try seconds(shape.count * 8))
        #expect(
            ProcessorTime.isInProportion(small, toEightTimesAsMuch: large),
            "\(small) s, and \(large) s for eight times as many")
    }

    /// A directory that is settled is not gone through again, and yet nothing of lower layers stays and nothing of this one
    /// goes.
    @Test func whiteoutsOfWhatIsSettledStayRight() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        try apply(
            [
                [
                    .directory("d/"), .file("d/old", "x"), .directory("d/e/"), .file("d/e/old", "x"),
                    .directory("d/e/g/"),
                    .directory("h/"), .file("h/old", "x"),
                ],
                [
                    // What is emptied, and left with nothing, is still a directory of the layer below.
                    .whiteout("d/e/.wh..wh..opq"), .file("d/new", "1"), .whiteout("d/.wh..wh..opq"),
                    .whiteout("d/.wh..wh..opq"), .file("d/e/f", "2"), .whiteout("d/.wh.e"),
                    .whiteout(".wh.d"),
                    .whiteout("h/.wh..wh..opq"), .whiteout(".wh.h"), .whiteout(".wh.h"),
                    .directory("i/"), .file("i/f", "3"), .whiteout("i/.wh..wh..opq"), .whiteout(".wh.i"),
                ],
            ], to: root.fd)
        #expect(try listing(root.fd) == ["d/", "d/e/", "d/e/f=2", "d/new=1", "i/", "i/f=3"])
    }

    // MARK: What no entry lists

    /// Entries in as many directories as they have room for: all are counted, to the last.
    @Test func countsDirectoriesOnTheWay() throws {
        let depth = 100
        let items = (0..<10).map { number in
            Item.file(BytePath("\(number)/" + String(repeating: "d/", count: depth - 1) + "f"))
        }
        let bytes = try archive(items)
        func run(entries: Int, size: Int = .max) throws {
            let base = try SharedVolume.directory()
            let root = try base.makeRoot()
            let allowance = TarAllowance(size: Int64(size), entries: Int64(entries))
            try LayerApplier(root: root.fd, isBottom: true).apply(
                TarReader(MemorySource(bytes), allowance: allowance))
        }
        let made = 10 * depth
        try run(entries: 10 + made, size: bytes.count + 512 * made)
        #expect(Self.reason { try run(entries: 10 + made - 1) } == .tooManyEntries)
        #expect(Self.reason { try run(entries: .max, size: bytes.count + 512 * made - 1) } == .tooLarge)
    }

    /// What a layer in a directory of its own has copied from below.
    @Test func countsCopiesOfLayersBelow() throws {
        let base = try SharedVolume.directory()
        let lower = try base.makeRoot("lower")
        try apply(
            try archive([.directory("d/"), .file("d/f", String(repeating: "x", count: 10_000))]),
            to: lower.fd,
            isBottom: true)
        let bytes = try archive([.hardlink("g", "d/f")])
        func run(_ name: BytePath, size: Int) throws {
            let root = try base.makeRoot(name)
            let applier = LayerApplier(
                root: root.fd, isBottom: false, standalone: StandaloneLayer(whiteouts: .files)
            ) { LowerTree([LowerLayer(root: lower, whiteouts: .files)]) }
            try applier.apply(TarReader(MemorySource(bytes), allowance: TarAllowance(size: Int64(size))))
        }
        // The directory and the file, each with a header.
        try run("a", size: bytes.count + 1024 + 10_000)
        #expect(Self.reason { try run("b", size: bytes.count + 1024 + 9_999) } == .tooLarge)
    }

    /// What is mounted in a layer's directory may be files of the host.
    @Test("Nothing that is mounted in a layer below is copied into the one above")
    func mountsInLayersBelow() throws {
        let base = try SharedVolume.directory()
        let lower = try base.makeRoot("mounted")
        try apply(
            try archive([.directory("d/"), .file("d/f", "of the layer")]), to: lower.fd, isBottom: true)
        let path = try lower.fd.path()
        try runSuccessfully(["sh", "-ec", "echo secret > \"$1/../secret\"", "sh", "\(path)"])
        let bytes = try archive([.hardlink("g", "d/f")])
        func run(_ name: BytePath) throws {
            let root = try base.makeRoot(name)
            let applier = LayerApplier(
                root: root.fd, isBottom: false, standalone: StandaloneLayer(whiteouts: .files)
            ) { LowerTree([LowerLayer(root: lower, whiteouts: .files)]) }
            try applier.apply(TarReader(MemorySource(bytes)))
        }
        try run("plain")
        for (number, mounts) in [["secret", "d/f"], ["", "d"]].enumerated() {
            let (source, place) = ("\(path)/../\(mounts[0])", "\(path)/\(mounts[1])")
            try runSuccessfully(["mount", "--bind", source, place])
            defer { _ = try? runCommand(["umount", place]) }
            let error = #expect(throws: LayerError.self) { try run(BytePath("above\(number)")) }
            #expect(
                "\(String(describing: error))".contains("is a mount point"), "\(String(describing: error))")
        }
    }

    private static func reason(_ body: () throws -> Void) -> TarError.Reason? {
        do {
            try body()
        } catch let error as TarError {
            return error.reason
        } catch {
            Issue.record("another error: \(error)")
        }
        return nil
    }
}
