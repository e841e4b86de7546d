import VarveFormats
import SystemPackage
import TestSupport
import Testing
import VarveOCI
import VarveSystem

/// What documents take in memory: the whole command, in a process of its own, as the kernel counts it.
@Suite struct DocumentMemoryTests {
    /// Values that take the more memory for their bytes the smaller they are, each with a number.
    struct Shape: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// What is repeated.
        var item: @Sendable (Int) -> String
        var isObject = false

        init(_ what: String, isObject: Bool = false, _ item: @escaping @Sendable (Int) -> String) {
            testDescription = what
            self.item = item
            self.isObject = isObject
        }

        /// Members for a document, `bytes` of them.
        func member(_ name: String, bytes: Int) -> String {
            var text = "\"\(name)\":" + (isObject ? "{" : "[")
            text.reserveCapacity(bytes + 100)
            var number = 0
            while text.utf8.count < bytes {
                if number > 0 { text += "," }
                text += item(number)
                number += 1
            }
            return text + (isObject ? "}" : "]")
        }
    }

    static func digits(_ number: Int, _ count: Int) -> String {
        let text = String(number)
        return String(repeating: "0", count: max(0, count - text.count)) + text
    }

    static func digest(_ number: Int) -> String { "sha256:" + digits(number, 64) }

    /// Some are more than is taken, some the most that is: the bound must hold for both.
    static let shapes: [Shape] = [
        Shape("numbers of one digit") { _ in "1" },
        Shape("numbers of 7 digits") { _ in "1234567" },
        Shape("numbers of 8 digits") { _ in "12345678" },
        Shape("numbers of 40 digits") { _ in String(repeating: "1", count: 40) },
        Shape("words") { _ in "true" },
        Shape("empty strings") { _ in "\"\"" },
        Shape("empty strings with blanks") { _ in "\"\"      " },
        Shape("empty objects") { _ in "{}" },
        Shape("empty objects with blanks") { _ in "{     }" },
        Shape("empty arrays") { _ in "[]" },
        Shape("arrays of one number") { _ in "[1]" },
        Shape("arrays of one number with blanks") { _ in "[1" + String(repeating: " ", count: 22) + "]" },
        Shape("nested arrays") { _ in
            String(repeating: "[", count: 400) + "1" + String(repeating: "]", count: 400)
        },
        Shape("nested arrays with blanks") { _ in
            String(repeating: "[" + String(repeating: " ", count: 22), count: 400) + "1"
                + String(repeating: "]", count: 400)
        },
        Shape("short strings") { _ in "\"abcdef\"" },
        Shape("strings that are just too long to lie in the value") { "\"\(digits($0, 16))\"" },
        Shape("strings of 24") { "\"\(digits($0, 24))\"" },
        Shape("strings of 32") { "\"\(digits($0, 32))\"" },
        Shape("strings of 40") { "\"\(digits($0, 40))\"" },
        Shape("escapes") { _ in "\"" + String(repeating: "\\n", count: 40) + "\"" },
        Shape("keys of 4", isObject: true) { "\"\(digits($0, 8))\":1" },
        Shape("keys of 10", isObject: true) { "\"\(digits($0, 10))\":1" },
        Shape("long keys", isObject: true) { "\"\(digits($0, 33))\":1" },
        Shape("small objects") { _ in #"{"k":1}"# },
        Shape("small objects with blanks") { _ in #"{"k":1                              }"# },
    ]

    /// Entries of an index that are what they should be.
    static let descriptors: [Shape] = [
        Shape("the smallest descriptors") { #"{"mediaType":"x","digest":"\#(digest($0))","size":1}"# },
        Shape("descriptors") {
            #"{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(digest($0))","size":1234}"#
        },
        Shape("descriptors with a tag and a platform") {
            #"{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(digest($0))","size":1234,"annotations":{"#
                + #""\#(Descriptor.referenceNameKey)":"v\#(digits($0, 8))"},"platform":{"architecture":"amd64","os":"linux"}}"#
        },
        // Tiny members beside descriptors: the value takes the most that is taken, and a collection keeps every digest as well.
        Shape("descriptors with tiny annotations") {
            #"{"mediaType":"x","digest":"\#(digest($0))","size":1,"annotations":{"a":"","b":"","c":"","d":"","e":"","f":""}}"#
        },
    ]

    /// Of a document: more than what every document may take in memory, and little enough for a test.
    private static let bytes = 3 << 19

    /// Bytes that a command takes beyond what it takes with an empty index.
    private func peak(_ arguments: [String]) throws -> (code: Int, bytes: Int) {
        let result = try runSuccessfully([try builtProgram("peak-memory")] + arguments)
        let numbers = result.outputText.split(separator: "\n").last?.split(separator: " ").compactMap {
            Int($0)
        }
        guard let numbers, numbers.count == 2 else { throw TestSupportError(result.outputText) }
        return (numbers[0], numbers[1])
    }

    private func measure(
        _ index: String, _ commands: [[String]],
        _ check: (_ command: String, _ code: Int, _ factor: Double) -> Void
    ) throws {
        let directory = try TemporaryDirectory()
        let layout = try directory.layout()
        let place = layout.path.description
        let file = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(layout.path))
        for command in commands {
            let words = command.map { $0.replacing("LAYOUT", with: place) }
            try file.fd.writeFileDurably("index.json", Array(#"{"schemaVersion":2,"manifests":[]}"#.utf8))
            // What pages of the program are in memory differs from run to run; the fewest are what it needs.
            let base = try (0..<3).map { _ in try peak(words).bytes }.min() ?? 0
            try file.fd.writeFileDurably("index.json", Array(index.utf8))
            let (code, bytes) = try peak(words)
            check(command[0], code, Double(bytes - base) / Double(index.utf8.count))
        }
    }

    /// Without this, a measure that counts nothing would be a promise kept.
    @Test func measures() throws {
        let text = String(repeating: "x", count: Self.bytes)
        try measure(#"{"schemaVersion":2,"manifests":[],"x":"\#(text)"}"#, [["ls", "--layout", "LAYOUT"]]) {
            command, code, factor in
            // The document and its one string.
            #expect(code == 0 && factor > 1.5 && factor < 2.5, "\(command): \(factor)")
        }
    }

    @Test("A document takes no more than eight times its size", arguments: shapes)
    func takesNoMore(_ shape: Shape) throws {
        for name in ["manifests", "x"] {
            if shape.isObject, name == "manifests" { continue }
            let extra = name == "x" ? #""manifests":[],"# : ""
            let index = #"{"schemaVersion":2,\#(extra)\#(shape.member(name, bytes: Self.bytes))}"#
            let commands =
                name == "x"
                ? [["tag", "--image", "LAYOUT:a", "b"]]
                : [["ls", "--layout", "LAYOUT"], ["gc", "--layout", "LAYOUT"]]
            try measure(index, commands) { command, _, factor in
                #expect(factor <= 8, "\(command) with \(shape.testDescription) in \(name): \(factor)")
                // It has been read, at least to see that there is too much of it.
                #expect(factor > 0.1, "\(command) with \(shape.testDescription) in \(name): \(factor)")
            }
        }
    }

    @Test("An index of very many entries is taken", arguments: descriptors)
    func takes(_ shape: Shape) throws {
        let index = #"{"schemaVersion":2,\#(shape.member("manifests", bytes: Self.bytes))}"#
        try measure(index, [["ls", "--layout", "LAYOUT"], ["gc", "--layout", "LAYOUT"]]) {
            command, code, factor in
            #expect(code == 0, "\(command) with \(shape.testDescription)")
            #expect(factor <= 8 && factor >= 1, "\(command) with \(shape.testDescription): \(factor)")
        }
    }

    /// What `stat` prints of a configuration, beside the document itself: the shapes that make the most of their bytes.
    @Test(
        "Showing a configuration takes no more than eight times its size",
        arguments: [
            Shape("history") { #"{"created_by":"RUN \#(digits($0, 80))","empty_layer":true}"# },
            Shape("history with all there is") {
                #"{"created":"2020-01-01T00:00:00Z","created_by":"RUN \#(digits($0, 9))","author":"me","comment":"a comment","empty_layer":true}"#
            },
        ])
    func showsInProportion(_ shape: Shape) throws {
        let directory = try TemporaryDirectory()
        let layout = try directory.layout()
        let size = 1 << 20
        for (tag, history) in [("small", ""), ("large", "," + shape.member("history", bytes: size))] {
            let config = try layout.put(
                #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}\#(history)}"#,
                mediaType: MediaType.ociConfig)
            let manifest = try layout.put(
                #"{"schemaVersion":2,"mediaType":"\#(MediaType.ociManifest)","config":{"mediaType":"\#(MediaType.ociConfig)","digest":"\#(config.digest)","size":\#(config.size)},"layers":[]}"#,
                mediaType: MediaType.ociManifest)
            try layout.tag(tag, manifest)
        }
        for options in [[], ["--json"]] {
            let base = try peak(["stat", "--image", "\(layout.path):small"] + options)
            let large = try peak(["stat", "--image", "\(layout.path):large"] + options)
            let factor = Double(large.bytes - base.bytes) / Double(size)
            #expect(base.code == 0 && large.code == 0)
            #expect(factor <= 8 && factor > 0.5, "stat \(options) with \(shape.testDescription): \(factor)")
        }
    }

    // MARK: What is not refused

    @Test func takesWhatImagesHave() throws {
        let entries = (0..<10_000).map {
            #"{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(Self.digest($0))","size":\#($0)}"#
        }
        let index = try ImageIndex(
            json(#"{"schemaVersion":2,"manifests":[\#(entries.joined(separator: ","))]}"#), of: "it")
        #expect(index.entries.count == 10_000)
        // The shortest entries that say anything.
        let history = (0..<5_000).map {
            #"{"created":"2020-01-01T00:00:00Z","created_by":"RUN \#($0)","empty_layer":true}"#
        }
        let config = try ImageConfig(
            json(
                #"{"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[\#(history.joined(separator: ","))]}"#
            ), of: "it")
        #expect(config.history.count == 5_000 && config.history.last?.createdBy == "RUN 4999")
        // Every small document.
        let small = "[" + Array(repeating: "1", count: 100_000).joined(separator: ",") + "]"
        #expect(try json(small).array?.count == 100_000)
    }

    @Test func refusesVeryManyEntries() throws {
        let volumes = (0...ImageConfig.maximumEntries).map { #""/\#($0)":{}"# }.joined(separator: ",")
        let document =
            #"{"os":"linux","config":{"Volumes":{\#(volumes)}},"rootfs":{"type":"layers","diff_ids":[]}}"#
        let padded = document + String(repeating: " ", count: 2 << 20)
        let error = #expect(throws: OCIError.self) { _ = try ImageConfig(json(padded), of: "it") }
        #expect(error.map { "\($0)" }?.contains("50001 entries") == true)
    }
}
