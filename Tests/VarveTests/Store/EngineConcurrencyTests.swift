import VarveFormats
import Glibc
import VarveOCI
import VarveStore
import VarveSystem
import TestSupport
import Testing

/// Several unpacks into one store at the same time, each opening it for itself as processes would.
@Suite struct EngineConcurrencyTests {
    /// As many layers as names, each with files of its own and one that all of them write.
    private static func layers(_ names: [String]) throws -> [StoreLayer] {
        try names.map { name in
            try StoreLayer(
                (0..<60).map { .file(BytePath("\(name)/f\($0)"), "\(name) \($0)") }
                    + [.file("top", name)])
        }
    }

    /// Unpacks the images at once and compares each bundle with what its layers give.
    private static func unpackAtOnce(
        _ world: StoreWorld, _ images: [(tag: String, layers: [StoreLayer])], _ policy: ChainPolicy
    ) async throws {
        var options = Unpacking.Options()
        options.chains = policy
        let tasks = images.map { image in
            Task.detached { [options] in
                try world.unpack(image.tag, "bundle-\(image.tag)", options: options)
            }
        }
        for task in tasks { _ = try await task.value }
        for image in images {
            let reference = try world.reference(image.layers)
            let rootfs = try world.open("bundle-\(image.tag)/rootfs")
            #expect(try TreeCompare.differences(reference.fd, rootfs.fd) == [], "\(image.tag)")
            let top = try #require(try world.chainNames(image.layers).last)
            #expect(try world.chains.contains(top))
        }
        try world.expectClean()
    }

    @Test("Two images that share a prefix", arguments: ChainPolicy.allCases)
    func sharedPrefix(_ policy: ChainPolicy) async throws {
        let world = try StoreWorld()
        let images = try [("a", ["x", "y", "z", "a"]), ("b", ["x", "y", "z", "b", "c"])].map {
            (tag: $0.0, layers: try Self.layers($0.1))
        }
        for image in images {
            try world.addImage(image.tag, image.layers) { config in
                // Made in one go, so that `auto` keeps what both have and what each is.
                let entry = HistoryEntry(created: "2024-05-01T10:00:00Z")
                config["history"] = .array(image.layers.map { _ in .object(entry.json) })
            }
        }
        try await Self.unpackAtOnce(world, images, policy)
        let expected = [ChainPolicy.all: 6, .auto: 3, .last: 2]
        #expect(try world.chains.count == expected[policy])
        #expect(world.log.count("published the chain") == expected[policy], "each chain is built once")
    }

    @Test("Four images that share nothing")
    func nothingShared() async throws {
        let world = try StoreWorld()
        let images = try ["a", "b", "c", "d"].map { tag in
            (tag: tag, layers: try Self.layers(["\(tag)1", "\(tag)2", "\(tag)3"]))
        }
        for image in images { try world.addImage(image.tag, image.layers) }
        try await Self.unpackAtOnce(world, images, .all)
        #expect(try world.chains.count == 12)
    }

    @Test("A chain of one policy is the start of another's", arguments: ChainPolicy.allCases)
    func mixedPolicies(_ policy: ChainPolicy) throws {
        let world = try StoreWorld()
        let layers = try Self.layers(["x", "y", "z", "a"])
        try world.addImage("short", Array(layers[..<2]))
        try world.addImage("a", layers)
        var options = Unpacking.Options()
        options.chains = .last
        try world.unpack("short", "short", options: options)
        options.chains = policy
        #expect(try world.unpack("a", options: options).layersInPlace == 2)
        #expect(try world.chains.count == (policy == .last ? 2 : 3))
        let reference = try world.reference(layers)
        let rootfs = try world.open("bundle/rootfs")
        #expect(try TreeCompare.differences(reference.fd, rootfs.fd) == [])
        try world.expectClean()
    }
}
