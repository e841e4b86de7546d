import TestSupport
import Testing
import VarveFormats
import VarveOCI
import VarveSystem

/// Images that are read one after another.
@Suite struct ImageSelectionTests {
    let directory: TemporaryDirectory
    let layout: ImageLayout

    init() throws {
        directory = try TemporaryDirectory()
        layout = try directory.layout()
    }

    /// A configuration without layers and with that many labels.
    private func putConfig(_ labels: Int, architecture: String = "s390x") throws -> Descriptor {
        let text = (0..<labels).map { "\"label \($0)\":\"\(String(repeating: "x", count: 60))\"" }
            .joined(separator: ",")
        return try layout.put(
            """
            {"architecture":"\(architecture)","os":"linux","config":{"Labels":{\(text)}},"rootfs":{"type":"layers","diff_ids":[]}}
            """, mediaType: MediaType.ociConfig)
    }

    private func putManifest(_ config: Descriptor, _ number: Int) throws -> Descriptor {
        try layout.putJSON(
            [
                "schemaVersion": 2, "config": .object(config.json), "layers": [],
                "annotations": ["number": .string("\(number)")],
            ], mediaType: MediaType.ociManifest)
    }

    private func numbers(_ selection: ImageSelection) throws -> [String] {
        var found: [String] = []
        try selection.forEach { image in
            for annotation in image.manifest.annotations { found.append(annotation.value) }
        }
        return found
    }

    @Test("Images with one configuration come together, in the place of the first, each once")
    func order() throws {
        let configs = [try putConfig(0), try putConfig(1)]
        let manifests = try [0, 1, 0, 1, 0].enumerated().map { try putManifest(configs[$1], $0) }
        try layout.setEntries((manifests + manifests).map { .object($0.json) })
        let selection = try layout.selection(of: nil)
        #expect(try selection.count == 5 && numbers(selection) == ["0", "2", "4", "1", "3"])
    }

    @Test("A configuration is what each manifest says of it")
    func wrongSize() throws {
        let config = try putConfig(1)
        let wrong = Descriptor(mediaType: config.mediaType, digest: config.digest, size: config.size + 1)
        try layout.setEntries([
            .object(try putManifest(config, 0).json), .object(try putManifest(wrong, 1).json),
        ])
        expectError(.invalidInput) { _ = try numbers(layout.selection(of: nil)) }
    }

    @Test("A wish to stop is heard between two images")
    func cancelled() throws {
        let config = try putConfig(0)
        try layout.setEntries((0..<5).map { .object(try putManifest(config, $0).json) })
        let cancellation = Cancellation()
        let selection = try ImageLayout(opening: layout.path, cancellation: cancellation).selection(of: nil)
        var count = 0
        expectError(.cancelled) {
            try selection.forEach { _ in
                count += 1
                cancellation.cancel()
            }
        }
        #expect(count == 1)
    }

    @Test("A configuration that many manifests name is read once, however they are looked at")
    func sharedConfiguration() throws {
        let config = try putConfig(4_000)
        func costs(_ count: Int) throws -> [Double] {
            let manifests = try (0..<count).map { try putManifest(config, $0) }
            try layout.setEntries(manifests.map { .object($0.json) })
            try layout.tag("index", try layout.putIndex(manifests))
            let other = try ImageReference(path: layout.path, tag: "index")
            let all = try ProcessorTime.least {
                let found = try numbers(layout.selection(of: nil))
                #expect(found.count == count)
            }
            // None is for this platform, and none says what it is for: each is asked.
            let wanted = Platform(os: "linux", architecture: "amd64")
            let one = ProcessorTime.least { _ = try? ImageLayout.resolve(other, platform: wanted) }
            return [all, one]
        }
        let (few, many) = (try costs(2), try costs(32))
        for (one, all) in zip(few, many) { #expect(all < 4 * one, "\(few) \(many)") }
    }
}
