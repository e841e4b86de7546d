import Logging
import TestSupport
import Testing
import VarveFormats
import VarveStore
import VarveSystem

@testable import VarveCommands

/// `--log-format json`, and the levels that systemd's journal shows.
@Suite struct LogFormatTests {
    /// The objects on lines of standard error. Nothing else may be there.
    static func objects(_ bytes: [UInt8]) throws -> [JSONObject] {
        #expect(bytes.isEmpty || bytes.last == UInt8(ascii: "\n"))
        return try bytes.split(separator: UInt8(ascii: "\n")).map { line in
            let object = try #require(try JSONValue(parsing: Array(line)).object)
            #expect(object.members.prefix(3).map(\.key) == ["time", "level", "msg"])
            #expect(object["time"]?.string.flatMap { RFC3339.parse($0) } != nil)
            return object
        }
    }

    @Test(
        "An error is an object that has what --error-format json says",
        arguments: [[], ["--error-format", "json"]])
    func errors(_ more: [BytePath]) throws {
        let run = varve(more + ["--log-format=json", "ls", "--layout", "/none\u{1b}/\u{e9}"])
        #expect(run.code == 4 && run.output.isEmpty, "\(run)")
        #expect(!run.errors.contains { $0 < 0x20 && $0 != 0x0a })
        let object = try #require(try Self.objects(run.errors).first)
        #expect(object["level"]?.string == "error" && object["code"]?.string == "notFound")
        #expect(object["subject"]?.string == "/none\u{1b}/\u{e9}")
        let (reason, remedy) = (object["reason"]?.string ?? "", object["remedy"]?.string ?? "")
        #expect(object["msg"]?.string == "\(reason); \(remedy)" && !reason.isEmpty && !remedy.isEmpty)
        #expect(object["exitCode"]?.int64 == 4)
    }

    @Test("Of wrong usage the sentence is one line, and of several things each that fails is an object")
    func usageAndSeveral() throws {
        let usage = varve("--log-format", "json", "unpack")
        let object = try Self.objects(usage.errors)
        #expect(usage.code == 2 && object.count == 1 && object[0]["code"]?.string == "usage", "\(usage)")
        #expect(object[0]["msg"]?.string?.contains("\n") == false)
        let several = varve("--log-format", "json", "bundle", "rm", "/none/a", "/none/b")
        #expect(
            try Self.objects(several.errors).compactMap { $0["subject"]?.string } == ["/none/a", "/none/b"])
        #expect(varve("--log-format", "xml", "unpack").errorText.hasPrefix("varve: "))
    }

    @Test("Messages are objects of their level, with what belongs to them as members")
    func messages() throws {
        let collected = Collected()
        let diagnostics = Diagnostics(collected.sink, isTerminal: false, format: .json)
        var logger = Logger(label: "test") { _ in DiagnosticLogHandler(diagnostics, level: .info) }
        logger[metadataKey: "store"] = "/s"
        logger.warning("one\ntwo\u{9b}", metadata: ["layer": "3"])
        logger.debug("not asked for")
        diagnostics.passOn(Array("a hook says\nthis\n".utf8))
        diagnostics.ask("go on? ")
        let objects = try Self.objects(collected.all)
        #expect(objects.map { $0["level"]?.string } == ["warning", "info", "info", "notice"])
        #expect(objects.map { $0["msg"]?.string } == ["one\ntwo\u{9b}", "a hook says", "this", "go on? "])
        #expect(objects[0]["store"]?.string == "/s" && objects[0]["layer"]?.string == "3")
    }

    @Test("The journal of systemd gets the level of each line, in either format")
    func journal() throws {
        func written(_ format: LogLine.Format, _ errorFormat: ErrorFormatArgument = .text) -> String {
            let collected = Collected()
            let diagnostics = Diagnostics(
                collected.sink, isTerminal: false, isJournal: true, format: format, errorFormat: errorFormat)
            let logger = Logger(label: "test") { _ in DiagnosticLogHandler(diagnostics, level: .debug) }
            logger.debug("d")
            logger.warning("w")
            _ = diagnostics.report(ErrorReport(usage: "error: u\nUsage: varve"))
            diagnostics.passOn(Array("a\nb\n".utf8))
            return String(decoding: collected.all, as: UTF8.self)
        }
        #expect(
            written(.text)
                == "<7>varve: debug: d\n<4>varve: warning: w\n<3>varve: error: u\n<3>Usage: varve\n<6>a\n<6>b\n"
        )
        #expect(written(.text, .json).contains("\n<3>{\"code\":\"usage\""))
        #expect(
            written(.json).split(separator: "\n").map { String($0.prefix(4)) }
                == ["<7>{", "<4>{", "<3>{", "<6>{", "<6>{"])
    }

    @Test("A command under systemd, as varve-gc.service runs it, says the level of what it says")
    func process() throws {
        let varve = try builtProgram("varve")
        let script = """
            : >log; exec 2>>log
            JOURNAL_STREAM=$(stat --format=%d:%i log) "$1" ls --layout /none || :
            JOURNAL_STREAM=1:2 "$1" ls --layout /none || :
            JOURNAL_STREAM=$(stat --format=%d:%i log) "$1" --log-format json ls --layout /none || :
            cut -c 1-8 log
            """
        let directory = try TemporaryDirectory()
        let text = try shell(asText: "cd \"$2\"\n" + script, BytePath(varve), directory.path)
        #expect(text == "<3>varve\nvarve: t\n<3>{\"tim\n")
    }
}
