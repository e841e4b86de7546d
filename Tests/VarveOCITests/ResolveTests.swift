import VarveFormats
import VarveOCI
import VarveSystem
import Testing

@Suite struct ResolveTests {
    let directory: TemporaryDirectory
    let layout: ImageLayout
    static let arm = Platform(os: "linux", architecture: "arm64")
    static let amd = Platform(os: "linux", architecture: "amd64")

    init() throws {
        directory = try TemporaryDirectory()
        layout = try directory.layout()
    }

    private var reference: ImageReference { get throws { try ImageReference(path: layout.path) } }

    @Test func findsATaggedImage() throws {
        let image = try layout.putImage(["a", "b"])
        try layout.tag("latest", image)
        let found = try ImageLayout.resolve(reference)
        #expect(found.manifestDescriptor.digest == image.digest)
        #expect(found.path.map(\.digest) == [image.digest])
        #expect(found.diffIDs.map(\.digest) == ["a", "b"].map { Digest(of: Array($0.utf8)) })
        #expect(found.chainIDs.count == 2)
        let text = expectError(.notFound) { _ = try layout.resolve("other") }
        #expect(text.contains("no tag \"other\"") && text.contains("latest"))
    }

    /// A letter of its own, which Unicode takes for K.
    @Test("A tag is found, replaced and removed by its bytes")
    func tagsAreBytes() throws {
        let kelvin = try layout.putImage(["kelvin"])
        let annotated = kelvin.annotated(Descriptor.referenceNameKey, "\u{212A}")
        try layout.setEntries([.object(annotated.json)])
        expectError(.notFound) { _ = try layout.resolve("K") }
        let image = try layout.putImage(["letter"])
        try layout.tag("K", image)
        #expect(try layout.resolve("K").manifestDescriptor.digest == image.digest)
        #expect(try layout.listTags().map { Array($0.utf8) } == ["\u{212A}", "K"].map { Array($0.utf8) })
        var index = try layout.index()
        #expect(index.removeTag("K") && index.entries.count == 1 && !index.removeTag("K"))
    }

    /// As buildx writes a layout without a name; a tag that was asked for must still be there.
    @Test func takesTheOnlyImageWithoutATag() throws {
        try layout.setEntries([.object(try layout.putImage().json)])
        #expect(try ImageLayout.resolve(reference).tag == nil)
        expectError(.notFound) {
            _ = try ImageLayout.resolve(try ImageReference(path: layout.path, tag: "latest"))
        }
        try layout.tag("x", try layout.putImage(["y"]))
        expectError(.notFound) { _ = try ImageLayout.resolve(reference) }
    }

    /// As some builders write them: attestations and images for other platforms beside the image, and no tags at all.
    @Test func takesTheImageOfALayoutWithoutTags() throws {
        let attestation = try layout.putImage(
            ["x"], platform: Platform(os: "unknown", architecture: "unknown"))
        let arm = try layout.putImage(["arm"], platform: Self.arm)
        let amd = try layout.putImage(["amd"], platform: Self.amd)
        try layout.setEntries([attestation, arm, amd].map { .object($0.json) })
        for image in [arm, amd] {
            let found = try ImageLayout.resolve(reference, platform: image.platform)
            #expect(found.manifestDescriptor.digest == image.digest)
        }
        var found: [Digest] = []
        try layout.selection(of: try reference).forEach { found.append($0.manifestDescriptor.digest) }
        #expect(found == [arm.digest, amd.digest])
        // Two that are as good are none.
        try layout.setEntries(
            [arm, try layout.putImage(["other"], platform: Self.arm)].map { .object($0.json) })
        let text = expectError(.invalidInput) { _ = try ImageLayout.resolve(reference, platform: Self.arm) }
        #expect(text.contains("several images"))
    }

    /// `PATH@DIGEST`: of a manifest, or of an index, in the layout's own index or in one nested in it.
    @Test func findsAnImageByItsDigest() throws {
        let arm = try layout.putImage(["arm"], platform: Self.arm)
        let amd = try layout.putImage(["amd"], platform: Self.amd)
        let index = try layout.putIndex([arm, amd])
        try layout.tag("multi", index)
        try layout.tag("other", try layout.putImage(["other"]))
        func find(_ digest: Digest, _ platform: Platform? = nil) throws -> ResolvedImage {
            let reference = try ImageReference(parsing: BytePath("\(layout.path)@\(digest)"))
            #expect(reference.digest == digest && reference.path == layout.path)
            return try ImageLayout.resolve(reference, platform: platform)
        }
        let found = try find(arm.digest)
        #expect(found.manifestDescriptor.digest == arm.digest)
        #expect(found.tag == nil && found.path.map(\.digest) == [index.digest, arm.digest])
        #expect(try find(index.digest, Self.amd).manifestDescriptor.digest == amd.digest)
        let missing = Digest(of: [0])
        #expect(expectError(.notFound) { _ = try find(missing) }.contains("\(missing)"))
        // There is nothing to tag by it.
        let reference = try ImageReference(path: layout.path, digest: arm.digest)
        #expect(expectError(.usage) { _ = try reference.tagToChange() }.contains(":TAG"))
    }

    /// As BuildKit leaves it if the image itself went elsewhere.
    @Test func saysThatAnIndexHoldsAttestationsAlone() throws {
        let attestation = try layout.putImage(
            ["x"], platform: Platform(os: "unknown", architecture: "unknown"))
        try layout.tag("x", try layout.putIndex([attestation]))
        let text = expectError(.invalidInput) { _ = try layout.resolve("x") }
        #expect(text.contains("nothing but attestations") && !text.contains("only to"), "\(text)")
    }

    @Test func choosesByPlatformThroughNestedIndexes() throws {
        let arm = try layout.putImage(["arm"], platform: Self.arm)
        // This one does not say what it is for in its entry; its configuration does.
        let amd = try layout.putImage(["amd"], platform: Self.amd, describes: false)
        let attestation = try layout.putImage(
            ["x"], platform: Platform(os: "unknown", architecture: "unknown"))
        let inner = try layout.putIndex([amd, attestation], type: MediaType.dockerManifestList)
        try layout.tag("multi", try layout.putIndex([arm, inner]))
        #expect(try layout.resolve("multi", platform: Self.arm).manifestDescriptor.digest == arm.digest)
        let found = try layout.resolve("multi", platform: Self.amd)
        #expect(found.manifestDescriptor.digest == amd.digest)
        #expect(found.path.count == 3)
        let text = expectError(.notFound) {
            _ = try layout.resolve("multi", platform: Platform(os: "linux", architecture: "s390x"))
        }
        #expect(text.contains("linux/amd64, linux/arm64") && text.contains("; choose one of them"))
    }

    @Test(arguments: [
        // The best that runs there.
        ("linux/arm/v7", ["v5", "v6", "v7"], "v7"), ("linux/arm/v6", ["v7", "v5"], "v5"),
        ("linux/arm", ["v6", "v5"], "v6"),
    ])
    func takesTheClosestVariant(_ wanted: String, _ variants: [String], _ expected: String) throws {
        let images = try variants.map {
            try layout.putImage([$0], platform: Platform(os: "linux", architecture: "arm", variant: $0))
        }
        try layout.tag("x", try layout.putIndex(images))
        let found = try layout.resolve("x", platform: try Platform(parsing: wanted))
        #expect(found.diffIDs[0].digest == Digest(of: Array(expected.utf8)))
    }

    @Test func takesASingleImageOfAnyPlatformUnlessAskedForAnother() throws {
        try layout.tag("x", try layout.putImage(platform: Self.arm))
        #expect(try layout.resolve("x").platform == Self.arm)
        expectError(.notFound) { _ = try layout.resolve("x", platform: Self.amd) }
    }

    /// image-index.md: of several that match, the first.
    @Test func takesTheFirstOfEquals() throws {
        let first = try layout.putImage(["1"])
        try layout.tag("x", try layout.putIndex([first, try layout.putImage(["2"])]))
        #expect(try layout.resolve("x").manifestDescriptor.digest == first.digest)
    }

    @Test func refusesATagWithSeveralMeanings() throws {
        let images = [try layout.putImage(["1"]), try layout.putImage(["2"])]
        try layout.setEntries(images.map { .object($0.annotated(Descriptor.referenceNameKey, "x").json) })
        let text = expectError(.invalidInput) { _ = try layout.resolve("x") }
        for image in images { #expect(text.contains("\(image.digest)")) }
        // The same image twice is no ambiguity; nor are images for different platforms.
        try layout.setEntries(
            [images[0], images[0]].map { .object($0.annotated(Descriptor.referenceNameKey, "x").json) })
        _ = try layout.resolve("x")
        let arm = try layout.putImage(["3"], platform: Self.arm)
        try layout.setEntries(
            [arm, try layout.putImage(["4"], platform: Self.amd)].map {
                .object($0.annotated(Descriptor.referenceNameKey, "x").json)
            })
        #expect(try layout.resolve("x", platform: Self.arm).manifestDescriptor.digest == arm.digest)
    }

    @Test func findsTagsInNestedIndexesAfterThoseOutside() throws {
        let inner = try layout.putImage(["inner"])
        let index = try layout.putIndex([inner.annotated(Descriptor.referenceNameKey, "deep")])
        try layout.setEntries([.object(index.json), ["mediaType": "a/b", "digest": "blake3:0", "size": 1]])
        let found = try layout.resolve("deep")
        #expect(found.path.map(\.digest) == [index.digest, inner.digest])
        #expect(try layout.listTags() == ["deep"])
        // Repacked: the new one comes first, the nested one is still there.
        let new = try layout.putImage(["new"])
        try layout.tag("deep", new)
        #expect(try layout.resolve("deep").manifestDescriptor.digest == new.digest)
        #expect(try layout.index().entries.first == .object(index.json))
    }

    @Test func refusesIndexesThatNestTooDeep() throws {
        var index = try layout.putIndex([try layout.putImage()])
        for _ in 0..<20 { index = try layout.putIndex([index]) }
        try layout.tag("x", index)
        #expect(expectError(.invalidInput) { _ = try layout.resolve("x") }.contains("levels deep"))
        #expect(expectError(.invalidInput) { _ = try layout.listTags() }.contains("levels deep"))
    }

    /// Many ways through few indexes: each is opened once, and the whole ends.
    @Test func endsOnWideIndexes() throws {
        var index = try layout.putIndex([try layout.putImage()])
        for _ in 0..<6 { index = try layout.putIndex(Array(repeating: index, count: 100)) }
        try layout.tag("x", index)
        _ = try layout.resolve("x")
    }

    /// An index cannot hold its own digest; a blob that claims to is damaged.
    @Test func refusesAnIndexThatClaimsToContainItself() throws {
        let digest = Digest(of: [1])
        let entry = { (size: Int) in
            "{\"mediaType\":\"\(MediaType.ociIndex)\",\"digest\":\"\(digest)\",\"size\":\(size)}"
        }
        var text = "{\"schemaVersion\":2,\"manifests\":[\(entry(250))]}"
        text += String(repeating: " ", count: 250 - text.utf8.count)
        try shell("printf '%s' '\(text)' > \(layout.path)/blobs/sha256/\(digest.hex)")
        try layout.tag("x", Descriptor(mediaType: MediaType.ociIndex, digest: digest, size: 250))
        #expect(expectError(.invalidInput) { _ = try layout.resolve("x") }.contains("damaged"))
        expectError(.invalidInput) { _ = try layout.listTags() }
        expectError(.invalidInput) { _ = try layout.collectGarbage() }
    }

    struct Broken: Sendable, CustomTestStringConvertible {
        var manifest: String
        var reason: String
        var testDescription: String { reason }
    }

    static let config =
        #""config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":SIZE}"#
    static let one = "sha256:" + String(repeating: "0", count: 64)

    @Test(arguments: [
        Broken(manifest: "[]", reason: "not an object"),
        Broken(manifest: #"{"config":{}}"#, reason: "no \"schemaVersion\""),
        Broken(manifest: #"{"schemaVersion":1}"#, reason: "schemaVersion 1"),
        Broken(manifest: #"{"schemaVersion":2}"#, reason: "no \"config\""),
        // One blob that is two documents (CVE-2021-41190).
        Broken(manifest: #"{"schemaVersion":2,"layers":[],"manifests":[],\#(config)}"#, reason: "ambiguous"),
        Broken(
            manifest:
                #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",\#(config)}"#,
            reason: "should be an image manifest"),
        Broken(
            manifest:
                #"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"CONFIG","size":SIZE},"layers":[]}"#,
            reason: "artifact"),
        Broken(
            manifest:
                #"{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"\#(one)","size":1}],\#(config)}"#,
            reason: "has 1 layers"),
        Broken(
            manifest:
                #"{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"sha256:../../x","size":1}],\#(config)}"#,
            reason: "no digest"),
        Broken(
            manifest:
                #"{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"\#(one)","size":-1}],\#(config)}"#,
            reason: "no \"size\""),
        Broken(
            manifest:
                #"{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"\#(one)","size":99999999999999999999}],\#(config)}"#,
            reason: "integer of 64 bits"),
        Broken(
            manifest: #"{"schemaVersion":2,"layers":[{"digest":"\#(one)","size":1}],\#(config)}"#,
            reason: "no \"mediaType\""),
        Broken(manifest: #"{"schemaVersion":2,"layers":[7],\#(config)}"#, reason: "a descriptor is a number"),
        Broken(manifest: #"{"schemaVersion":2,"layers":{},\#(config)}"#, reason: "must be an array"),
        Broken(manifest: #"{"schemaVersion":2"#, reason: "not valid JSON"),
    ])
    func refusesBrokenManifests(_ test: Broken) throws {
        let config = try layout.put(
            #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
            mediaType: MediaType.ociConfig)
        let parts = test.manifest.replacing("CONFIG", with: config.digest.description).replacing(
            "SIZE", with: "\(config.size)")
        try layout.tag("x", try layout.put(parts, mediaType: MediaType.ociManifest))
        let text = expectError(.invalidInput) { _ = try layout.resolve("x") }
        #expect(text.contains(test.reason), "\(text)")
    }

    @Test(arguments: [
        (#"{"os":"linux"}"#, "no \"rootfs\""), (#"{"rootfs":{"type":"tree"}}"#, "must be \"layers\""),
        (#"{"rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}"#, "no digest"),
        (#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Env":"A=B"}}"#, "must be an array"),
        (#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Labels":{"a":1}}}"#, "label"),
    ])
    func refusesBrokenConfigurations(_ config: String, _ reason: String) throws {
        let blob = try layout.put(config, mediaType: MediaType.ociConfig)
        let manifest: JSONObject = ["schemaVersion": 2, "config": .object(blob.json), "layers": []]
        try layout.tag("x", try layout.putJSON(manifest, mediaType: MediaType.ociManifest))
        let text = expectError(.invalidInput) { _ = try layout.resolve("x") }
        #expect(text.contains(reason), "\(text)")
    }

    @Test(arguments: [
        ("application/vnd.oci.image.layer.v1.tar", LayerCompression.none),
        ("application/vnd.oci.image.layer.v1.tar+gzip", .gzip),
        ("application/vnd.oci.image.layer.v1.tar+zstd", .zstd),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", .gzip),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", .gzip),
        ("application/vnd.docker.image.rootfs.diff.tar", .none),
    ])
    func readsLayerTypes(_ type: String, _ compression: LayerCompression) throws {
        #expect(try LayerMediaType(type).compression == compression)
    }

    @Test(arguments: [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
        ("application/x-tar", "media type"),
    ])
    func refusesLayerTypes(_ type: String, _ reason: String) {
        #expect(expectError(.invalidInput) { _ = try LayerMediaType(type) }.contains(reason))
    }
}

extension String {
    func replacing(_ word: String, with other: String) -> String {
        var result = ""
        var rest = self[...]
        while let start = rest.indices.first(where: { rest[$0...].hasPrefix(word) }) {
            result += rest[..<start] + other
            rest = rest[start...].dropFirst(word.count)
        }
        return result + rest
    }
}
