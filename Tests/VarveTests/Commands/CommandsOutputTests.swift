import Logging
import VarveFormats
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import Synchronization
import VarveSystem
import SystemPackage
import Testing

@testable import VarveCommands

@Suite struct CommandsOutputTests {
    private static let changes = [
        Change(kind: .modified, path: ".", type: .directory),
        Change(kind: .added, path: "a \"b\"/\u{e9}", type: .regular),
        Change(
            kind: .deleted, path: BytePath([0x6e, 0x0a, 0x5c, 0x7f] as [UInt8]) ?? .empty, type: .symbolicLink
        ),
        Change(kind: .added, path: BytePath([0x6c, 0xff] as [UInt8]) ?? .empty, type: .fifo),
        Change(kind: .added, path: "nodes/b", type: .blockDevice),
        Change(kind: .added, path: "nodes/c", type: .characterDevice),
    ]

    private func written(_ format: ChangeFormat, _ changes: [Change]) throws -> [UInt8] {
        let collected = Collected()
        let writer = ResultWriter(collected.sink)
        try format.write(changes, to: writer)
        try writer.flush()
        return collected.all
    }

    @Test func text() throws {
        var expected = Array("M .\nA a \"b\"/\u{e9}\nD n\\x0a\\x5c\\x7f\nA l\\xff".utf8)
        expected += Array("\nA nodes/b\nA nodes/c\n".utf8)
        #expect(try written(.text, Self.changes) == expected)
    }

    @Test func terminated() throws {
        var expected = Array("M .\0A a \"b\"/\u{e9}\0D n\n\\".utf8)
        expected += [0x7f, 0] + Array("A l".utf8) + [0xff, 0] + Array("A nodes/b\0A nodes/c\0".utf8)
        #expect(try written(.terminated, Self.changes) == expected)
    }

    @Test func json() throws {
        let expected = #"""
            [
            {"change":"modified","path":".","type":"directory"},
            {"change":"added","path":"a \"b\"/é","type":"file"},
            {"change":"deleted","path":"n\u000a\\\u007f","type":"symlink"},
            {"change":"added","pathBase64":"bP8=","type":"fifo"},
            {"change":"added","path":"nodes/b","type":"block-device"},
            {"change":"added","path":"nodes/c","type":"character-device"}
            ]

            """#
        #expect(try String(decoding: written(.json, Self.changes), as: UTF8.self) == expected)
        #expect(try String(decoding: written(.json, []), as: UTF8.self) == "[]\n")
    }

    @Test func base64() throws {
        // All lengths of the last group.
        for (name, text) in [
            ([0xff] as [UInt8], "/w=="), ([0xff, 0xfe], "//4="), ([0xff, 0xfe, 0xfd], "//79"),
            ([0xff, 0x61, 0x62, 0x63], "/2FiYw=="),
        ] {
            let change = Change(kind: .added, path: try #require(BytePath(name)), type: .regular)
            #expect(
                try String(decoding: written(.json, [change]), as: UTF8.self).contains(
                    "\"pathBase64\":\"\(text)\""))
        }
    }

    /// 100,000 changes are written in large pieces, and quickly.
    @Test func many() throws {
        let many = (0..<100_000).map {
            Change(kind: .added, path: BytePath("usr/share/some/directory/file\($0)"), type: .regular)
        }
        let writes = Mutex(0)
        let writer = ResultWriter(OutputSink { _ in writes.withLock { $0 += 1 } })
        try ChangeFormat.text.write(many, to: writer)
        try writer.flush()
        #expect(writes.withLock { $0 } < 50)
    }

    @Test func table() {
        var table = Table(["LAYER", "SIZE", "COMMENT"])
        table.append(["sha256:0", "<none>", ""])
        table.append(["x", "", "a\tb"])
        #expect(table.text == "LAYER    SIZE   COMMENT\nsha256:0 <none>\nx               a\\x09b\n")
    }

    @Test func humanSizes() {
        // go-units HumanSize, as umoci stat shows it: four digits, powers of 1000.
        let decimal: [(Int64, String)] = [
            (0, "0B"), (153, "153B"), (999, "999B"), (1000, "1kB"), (1234, "1.234kB"), (12_345, "12.35kB"),
            (123_456, "123.5kB"),
            (1_000_000, "1MB"), (27_097_408, "27.1MB"), (5_000_000_000, "5GB"),
        ]
        for (bytes, text) in decimal { #expect(decimalSize(bytes) == text) }
        let binary: [(Int64, String)] = [
            (1, "1 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (20 << 30, "20 GiB"),
            (.max, "8 EiB"),
        ]
        for (bytes, text) in binary { #expect(binarySize(bytes) == text) }
    }

    @Test func listing() throws {
        let item = Listing.Item(name: "a\u{1b}", cells: ["a\u{1b}", "1"], json: ["name": "a\u{1b}"])
        func lines(_ format: ListingOptions.Format, quiet: Bool, header: [String]?) throws -> String {
            let collected = Collected()
            let writer = ResultWriter(collected.sink)
            try Listing(header: header, items: [item]).write(format, isQuiet: quiet, to: writer)
            try writer.flush()
            return String(decoding: collected.all, as: UTF8.self)
        }
        #expect(try lines(.table, quiet: false, header: ["NAME", "N"]) == "NAME  N\na\\x1b 1\n")
        #expect(try lines(.table, quiet: true, header: ["NAME", "N"]) == "a\\x1b\n")
        #expect(try lines(.json, quiet: false, header: nil) == "[\n{\"name\":\"a\\u001b\"}\n]\n")
    }

    /// `varve ls | head` ends quietly; a full disk does not.
    @Test func brokenOutput() throws {
        let directory = try TemporaryDirectory()
        #expect(varve("init", "--layout", directory.path.appending("L")).code == 0)
        func list(_ errno: CInt) -> CommandRun {
            let errors = Collected()
            let code = VarveCommand.run(
                arguments: ["ls", "--format", "json", "--layout", directory.path.appending("L")],
                standardOutput: OutputSink { (_) throws(Errno) in throw Errno(rawValue: errno) },
                standardError: errors.sink,
                environment: CommandEnvironment([:]))
            return CommandRun(code: code, output: [], errors: errors.all)
        }
        let closed = list(EPIPE)
        #expect(closed.code == 0 && closed.errors.isEmpty)
        let full = list(ENOSPC)
        #expect(
            full.code == 7
                && full.errorText == "varve: cannot write to standard output: No space left on device\n")
    }

    @Test func messagesCannotSteerATerminal() {
        let collected = Collected()
        Diagnostics(collected.sink, isTerminal: false).message("a\u{1b}[2Jb\rc\nd")
        #expect(String(decoding: collected.all, as: UTF8.self) == "varve: a\\x1b[2Jb\\x0dc\\x0ad\n")
    }

    // MARK: Progress

    private final class Clock: Sendable {
        private let seconds = Mutex(0.0)
        func advance(_ by: Double) { seconds.withLock { $0 += by } }
        var now: @Sendable () -> Double { { self.seconds.withLock { $0 } } }
    }

    @Test func progressLines() {
        let (collected, clock) = (Collected(), Clock())
        let diagnostics = Diagnostics(collected.sink, isTerminal: true)
        let line = ProgressLine("unpacking", on: diagnostics, every: 0.1, clock: clock.now)
        line.update(.planned(layersInPlace: 2, layers: 7, bytes: 100 << 20))
        line.update(.read(bytes: 1))
        #expect(collected.all.isEmpty, "what is done in a moment shows nothing")
        clock.advance(1)
        line.update(.read(bytes: 25 << 20))
        clock.advance(0.05)
        line.update(.read(bytes: 26 << 20))
        clock.advance(0.95)
        line.update(.layer(index: 3, isWaiting: true))
        diagnostics.message("hello")
        clock.advance(1)
        line.update(.layer(index: 3, isWaiting: false))
        diagnostics.clearProgress()
        diagnostics.clearProgress()
        let erase = "\r\u{1b}[K"
        #expect(
            String(decoding: collected.all, as: UTF8.self)
                == "\(erase)unpacking: 2 of 7 layers, 25 MiB of 100 MiB, 25 MiB/s, 3 s left"
                + "\(erase)unpacking: 3 of 7 layers, waiting for another process that unpacks the same lay"
                + "\(erase)varve: hello\n"
                + "\(erase)unpacking: 3 of 7 layers, 26 MiB of 100 MiB, 8.67 MiB/s, 9 s left" + erase)
    }

    @Test func noProgressWhereThereIsNoTerminal() {
        let collected = Collected()
        #expect(Diagnostics(collected.sink, isTerminal: false).progressInterval(.debug) == nil)
        #expect(Diagnostics(collected.sink, isTerminal: true).progressInterval(.error) == 0.1)
        #expect(
            Diagnostics(collected.sink, isTerminal: true, format: .json).progressInterval(.warning) == nil)
    }

    @Test(
        "With --log-format json, progress is messages of their own, at a terminal too, and --log info asks for them"
    )
    func progressAsObjects() throws {
        let (collected, clock) = (Collected(), Clock())
        let diagnostics = Diagnostics(collected.sink, isTerminal: true, format: .json)
        let interval = try #require(diagnostics.progressInterval(.info))
        let line = ProgressLine("unpacking", on: diagnostics, every: interval, clock: clock.now)
        for _ in 0..<30 {
            clock.advance(0.1)
            line.update(.layer(index: 3, isWaiting: true))
        }
        diagnostics.clearProgress()
        let objects = try LogFormatTests.objects(collected.all)
        #expect((2...3).contains(objects.count))
        for object in objects {
            #expect(object["level"]?.string == "info")
            #expect(
                object["msg"]?.string == "unpacking: waiting for another process that unpacks the same layer")
        }
    }
}
