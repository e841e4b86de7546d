import VarveFormats
import TestSupport
import VarveOCI
import VarveSystem
import Testing

/// Eight times the input takes no more than three times eight times as long: what grows with its square takes 64 times.
/// Time of this thread's processor, so that other tests do not count.
@Suite struct GrowthTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// Enough of them that the smaller run takes some milliseconds.
        var count: Int
        /// Makes the input, outside of the time, and returns what is to be measured.
        var work: @Sendable (_ count: Int) throws -> () throws -> Void

        init(_ what: String, _ count: Int, _ work: @escaping @Sendable (Int) throws -> () throws -> Void) {
            testDescription = what
            self.count = count
            self.work = work
        }
    }

    static func configuration(_ members: String) throws -> ImageConfig {
        try ImageConfig(
            json(#"{"os":"linux","config":{\#(members)},"rootfs":{"type":"layers","diff_ids":[]}}"#), of: "it"
        )
    }

    static func list(_ count: Int, _ item: (Int) -> String) -> String {
        (0..<count).map(item).joined(separator: ",")
    }

    static let shapes: [Shape] = [
        Shape("variables", 1000) { count in
            let config = try configuration("\"Env\":[\(list(count) { "\"NAME\($0)=value\"" })]")
            return { _ = try RuntimeConfig.make(config, passwd: nil, group: nil) }
        },
        Shape("labels", 1000) { count in
            let config = try configuration("\"Labels\":{\(list(count) { "\"label.\($0)\":\"value\"" })}")
            return { _ = try RuntimeConfig.make(config, passwd: nil, group: nil) }
        },
        Shape("ports and volumes", 1000) { count in
            let config = try configuration(
                "\"ExposedPorts\":{\(list(count) { "\"\($0)/tcp\":{}" })},\"Volumes\":{\(list(count) { "\"/v\($0)\":{}" })}"
            )
            return { _ = try RuntimeConfig.make(config, passwd: nil, group: nil) }
        },
        Shape("keys of an object", 1000) { count in
            let text = Array("{\(list(count) { "\"a key of some length \($0)\":\"value\"" })}".utf8)
            return { _ = try JSONValue(parsing: text) }
        },
        Shape("labels and variables that are set", 500) { count in
            let config = try configuration(
                "\"Labels\":{\(list(count) { "\"label.\($0)\":\"value\"" })},\"Env\":[\(list(count) { "\"NAME\($0)=value\"" })]"
            )
            var edit = ImageConfigEdit()
            for number in 0..<count {
                if let pair = ImageConfigEdit.Pair(parsing: "label.new\(number)=x") {
                    edit.labels.append(pair)
                }
                if let pair = ImageConfigEdit.Pair(parsing: "NEW\(number)=x") {
                    edit.environment.append(pair)
                }
            }
            let complete = edit
            return {
                var mutation = ImageMutation(emptyFor: .host, created: .epoch)
                mutation.updateConfig { $0 = config.json }
                complete.apply(to: &mutation)
            }
        },
        Shape("labels that are sorted", 1000) { count in
            let labels = try object("{\(list(count) { "\"label.\($0)\":\"value\"" })}")
            return { _ = labels.sortedByKey }
        },
        Shape("names of layers as stacker has them", 500) { count in
            let layers = (0..<count).map { number in
                Descriptor(mediaType: "x", digest: Digest(of: Array("\(number % 400)".utf8)), size: 1)
            }
            return { _ = StackerName.prefixes(of: layers) }
        },
        Shape("groups of a user", 1000) { count in
            let group = Array((0..<count).map { "group\($0):x:\($0):other,user\n" }.joined().utf8)
            return { _ = try ContainerUser("user", passwd: Array("user:x:1:1::/:\n".utf8), group: group) }
        },
    ]

    @Test("The time is in proportion to the number of", arguments: shapes) func grows(_ shape: Shape) throws {
        let small = try ProcessorTime.least(try shape.work(shape.count))
        let large = try ProcessorTime.least(try shape.work(shape.count * 8))
        #expect(
            ProcessorTime.isInProportion(small, toEightTimesAsMuch: large),
            "\(small) s, and \(large) s for eight times as many")
    }

    // MARK: Documents that many refer to

    /// Each of very many entries leads to one large document, which is not read for each of them.
    @Test func readsADocumentThatManyReferToOnlySoOften() throws {
        let directory = try TemporaryDirectory()
        let layout = try directory.layout()
        let image = try layout.putImage(describes: false)
        let large = try layout.putJSON(
            [
                "schemaVersion": 2, "mediaType": .string(MediaType.ociIndex),
                "manifests": [.object(image.json)],
                "annotations": ["x": .string(String(repeating: "x", count: 3 << 20))],
            ], mediaType: MediaType.ociIndex)
        let tagged = JSONValue.object(large.annotated(Descriptor.referenceNameKey, "x").json)
        try layout.setEntries(Array(repeating: tagged, count: 1000))
        #expect(expectError(.invalidInput) { _ = try layout.resolve("x") }.contains("together"))
        // The entries of one index, of images that do not say what they are for.
        let other = try layout.putImage(["other"], describes: false)
        let many = try layout.putIndex(Array(repeating: image, count: 20_000) + [other])
        try layout.tag("y", many)
        _ = try? layout.resolve("y")
    }

    /// Whoever adds the sizes of layers up must not meet a sum that is no number.
    @Test func refusesLayersWhoseSizesAddUpToTooMuch() throws {
        let directory = try TemporaryDirectory()
        let layout = try directory.layout()
        let layer = Descriptor(
            mediaType: "application/vnd.oci.image.layer.v1.tar", digest: Digest(of: [1]), size: 1 << 62)
        let config = try layout.put(
            #"{"os":"linux","rootfs":{"type":"layers","diff_ids":["\#(layer.digest)","\#(layer.digest)"]}}"#,
            mediaType: MediaType.ociConfig)
        let manifest: JSONObject = [
            "schemaVersion": 2, "config": .object(config.json),
            "layers": [.object(layer.json), .object(layer.json)],
        ]
        try layout.tag("x", try layout.putJSON(manifest, mediaType: MediaType.ociManifest))
        #expect(expectError(.invalidInput) { _ = try layout.resolve("x") }.contains("add up"))
    }
}
