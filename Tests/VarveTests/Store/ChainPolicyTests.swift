import VarveFormats
import Glibc
import VarveOCI
import VarveStore
import VarveSystem
import Testing

/// For which prefixes an unpack keeps a chain.
@Suite struct ChainPolicyTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var policy = ChainPolicy.auto
        /// When each layer was made; nil where its history entry does not say.
        var times: [String?]
        /// MiB of each layer.
        var sizes: [Int64] = [1, 1, 1, 1]
        /// Layers from the bottom that another image of the layout has too.
        var shared: Int = 0
        var first = 0
        var expected: [Int]
    }

    static let oneGo: [String?] = Array(repeating: "2024-05-01T10:00:00Z", count: 4)

    @Test(
        "The prefixes that get a chain",
        arguments: [
            // What the two simple policies say.
            Case(testDescription: "all", policy: .all, times: oneGo, expected: [0, 1, 2, 3]),
            Case(testDescription: "last", policy: .last, times: [nil, nil, nil, nil], expected: [3]),
            Case(
                testDescription: "all, with some in place", policy: .all, times: oneGo, first: 2,
                expected: [2, 3]),
            Case(testDescription: "everything in place", times: oneGo, first: 4, expected: []),
            // Nobody else can have part of what was made in one go.
            Case(testDescription: "made in one go", times: oneGo, expected: [3]),
            // The base image ends where the time jumps.
            Case(
                testDescription: "built on a base image",
                times: [
                    "2024-04-01T00:00:00Z", "2024-04-01T00:01:00Z", "2024-05-01T10:00:00Z",
                    "2024-05-01T10:59:00Z",
                ], expected: [1, 3]),
            // As some builders stack layers that are older than their base.
            Case(
                testDescription: "a jump backwards",
                times: [
                    "2024-05-01T10:00:00Z", "2024-04-01T00:00:00Z", "2024-04-01T00:00:00Z",
                    "2024-04-01T00:00:00Z",
                ], expected: [0, 3]),
            Case(
                testDescription: "an hour and a second",
                times: [
                    "2024-05-01T10:00:00Z", "2024-05-01T11:00:00Z", "2024-05-01T12:00:01Z",
                    "2024-05-01T12:00:01Z",
                ],
                expected: [1, 3]),
            // Where nothing is known, any prefix may be shared.
            Case(
                testDescription: "no times", times: [nil, nil, nil, nil], expected: [0, 1, 2, 3]),
            Case(
                testDescription: "one without a time",
                times: ["2024-05-01T10:00:00Z", nil, "2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"],
                expected: [0, 1, 3]),
            Case(
                testDescription: "1970, as reproducible builders write it",
                times: Array(repeating: "1970-01-01T00:00:01Z", count: 4), expected: [0, 1, 2, 3]),
            Case(
                testDescription: "history of another number of layers",
                times: ["2024-05-01T10:00:00Z"], expected: [0, 1, 2, 3]),
            // What has to be done again for want of a chain is bounded.
            Case(
                testDescription: "large layers", times: oneGo, sizes: [127, 1, 127, 500], expected: [1, 3]),
            Case(
                testDescription: "the bound counts from what is in place", times: oneGo,
                sizes: [500, 100, 27, 500], first: 1, expected: [3]),
            // Another image of the layout is known to part from this one here.
            Case(testDescription: "shared by a neighbour", times: oneGo, shared: 2, expected: [1, 3]),
            Case(testDescription: "a copy of the image", times: oneGo, shared: 4, expected: [3]),
        ])
    func prefixes(_ one: Case) throws {
        let directory = try TemporaryDirectory()
        let layout = try ImageLayout.create(at: directory.path.appending("layout"))
        let layers = one.sizes.enumerated().map { index, size in
            Descriptor(
                mediaType: LayerCompression.gzip.mediaType, digest: Digest(of: [UInt8(index)]),
                size: size << 20)
        }
        func add(_ tag: String, _ layers: [Descriptor], _ times: [String?]) throws {
            var config = ImageConfig.empty(created: .epoch)
            config["rootfs"] = [
                "type": "layers", "diff_ids": .array(layers.map { .string($0.digest.description) }),
            ]
            // Entries for no layer lie between.
            config["history"] = .array(
                times.flatMap { time in
                    [HistoryEntry(created: time), HistoryEntry(isEmptyLayer: true)].map {
                        .object($0.json)
                    }
                })
            let stored = try layout.putJSON(config, mediaType: MediaType.ociConfig)
            let manifest = ImageManifest(config: stored, layers: layers)
            try layout.tag(tag, try layout.putJSON(manifest.json, mediaType: MediaType.ociManifest))
        }
        try add("a", layers, one.times)
        if one.shared > 0 {
            let other = Descriptor(
                mediaType: LayerCompression.gzip.mediaType, digest: Digest(of: [9]), size: 1)
            try add("b", layers.prefix(one.shared) + [other], [])
        }
        #expect(one.policy.prefixes(of: try layout.resolve("a"), above: one.first) == one.expected)
    }
}
