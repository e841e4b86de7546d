import VarveFormats
import VarveOCI
import VarveSystem
import Testing

@Suite struct MutationTests {
    let directory: TemporaryDirectory
    let layout: ImageLayout

    init() throws {
        directory = try TemporaryDirectory()
        layout = try directory.layout()
    }

    /// A Docker image that is changed becomes an OCI image as a whole, and loses nothing that is not known
    /// here.
    @Test func appendsALayerToADockerImage() throws {
        let source = try layout.putImage(
            ["a"], manifestType: MediaType.dockerManifest, configType: MediaType.dockerConfig,
            layerType: "application/vnd.docker.image.rootfs.diff.tar.gzip")
        try layout.tag("x", source.annotated("k", "v"))
        let image = try layout.resolve("x")
        let layer = try layout.put("b", mediaType: LayerCompression.zstd.mediaType)
        let diffID = DiffID(Digest(of: Array("inner".utf8)))
        let history = HistoryEntry(
            created: "2020-01-01T00:00:00Z", createdBy: "varve repack", author: "me", comment: "c",
            isEmptyLayer: true)
        let descriptor = try image.appendingLayer(
            layer, diffID: diffID, history: history, created: Timestamp(seconds: 1))
        try layout.tag("x", descriptor)

        let new = try layout.resolve("x")
        #expect(new.manifestDescriptor.mediaType == MediaType.ociManifest)
        #expect(new.manifestDescriptor.platform == .host)
        #expect(new.manifestDescriptor.annotation("k") == "v")
        #expect(new.manifest.json["mediaType"]?.string == MediaType.ociManifest)
        #expect(new.manifest.config.mediaType == MediaType.ociConfig)
        #expect(new.manifest.json["x-kept"] == ["a": 1])
        #expect(
            new.layers.map(\.mediaType) == [
                "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd",
            ])
        #expect(new.diffIDs == image.diffIDs + [diffID])
        #expect(new.config.created == "1970-01-01T00:00:01Z")
        #expect(new.config.json["x-unknown"] == (try json("1.50")))
        #expect(new.config.history.count == 1)
        #expect(new.config.history.first?.isEmptyLayer == false)
        #expect(new.config.history.first?.comment == "c")
        // The old blobs are there until they are collected; the same change again gives the same bytes.
        _ = try layout.readBlob(source)
        let again = try image.appendingLayer(
            layer, diffID: diffID, history: history, created: Timestamp(seconds: 1))
        #expect(again == descriptor)
    }

    @Test func dropsWhatDescribesTheOldContent() throws {
        let source = try layout.putImage()
        var json = source.json
        json["data"] = "e30="
        json["urls"] = ["https://example.com"]
        json["x-unknown"] = 1
        try layout.tag("x", try Descriptor(.object(json), of: "test"))
        let mutation = try ImageMutation(try layout.resolve("x"))
        let descriptor = try mutation.commit(to: layout)
        #expect(descriptor.json["data"] == nil && descriptor.json["urls"] == nil)
        #expect(descriptor.json["x-unknown"] == 1)
    }

    @Test func configChangesDoNotTouchTheLayers() throws {
        try layout.tag("x", try layout.putImage())
        let image = try layout.resolve("x")
        var mutation = try ImageMutation(image)
        mutation.updateConfig { (config: inout JSONObject) in
            config["rootfs"] = nil
            config["config"] = ["Cmd": ["true"]]
        }
        try layout.tag("x", try mutation.commit(to: layout))
        let new = try layout.resolve("x")
        #expect(new.diffIDs == image.diffIDs)
        #expect(new.config.execution.command == ["true"])
        // What would be no image configuration is not written.
        mutation.updateConfig { (config: inout JSONObject) in config["config"] = ["Cmd": "true"] }
        let bad = mutation
        expectError(.invalidInput) { _ = try bad.commit(to: layout) }
    }

    @Test func statCopesWithAHistoryThatDoesNotFit() throws {
        func stat(_ history: String) throws -> [ImageStat.Entry] {
            try layout.tag("x", try layout.putImage(["a", "b"]))
            var mutation = try ImageMutation(try layout.resolve("x"))
            for entry in try #require(try json(history).array) {
                mutation.append(history: HistoryEntry(isEmptyLayer: entry.bool ?? false))
            }
            try layout.tag("x", try mutation.commit(to: layout))
            return Array(try ImageStat(ImageReference(path: layout.path, tag: "x")).history)
        }
        // Whether each entry is one of an empty layer, and how many layers are shown in all.
        for (history, layers) in [
            ("[]", []), ("[false,true,false]", [true, false, true]), ("[true,false]", [false, true]),
            ("[false,false,false]", [true, true, false]),
        ] {
            #expect(try stat(history).map { $0.layer != nil } == layers)
        }
    }
}
