import BtrfsSendStream
import Testing

@Suite struct SendStreamPrinterTests {
    struct Line: Sendable, CustomTestStringConvertible {
        /// What is special about it.
        var name: String
        var command: SendCommand
        var text: String
        var json: String
        var testDescription: String { name }
    }

    static let lines = [
        Line(
            name: "a space in a path", command: .mkfile(path: ArraySlice("a b/c".utf8), inode: 257),
            text: #"mkfile          path=a\ b/c ino=257"#,
            json: #"{"command":"mkfile","path":"a b/c","ino":257}"#),
        Line(
            name: "a path that is not UTF-8", command: .unlink(path: [0x66, 0xff, 0x0a]),
            text: #"unlink          path=f\377\n"#,
            json: #"{"command":"unlink","pathBase64":"Zv8K"}"#),
        Line(
            name: "what JSON and text escape",
            command: .rename(path: ArraySlice("\"\\".utf8), to: ArraySlice("é\u{1}".utf8)),
            text: #"rename          path="\\ dest=\303\251\001"#,
            json: #"{"command":"rename","path":"\"\\","dest":"é\u0001"}"#),
        Line(
            name: "a value of one byte: two characters of padding",
            command: .setXattr(path: [], name: ArraySlice("user.a".utf8), value: [1]),
            text: #"set_xattr       path= name=user.a data=\001"#,
            json: #"{"command":"set_xattr","path":"","name":"user.a","dataBase64":"AQ=="}"#),
        Line(
            name: "a value of two bytes: one character of padding",
            command: .setXattr(path: [], name: ArraySlice("user.a".utf8), value: [1, 2]),
            text: #"set_xattr       path= name=user.a data=\001\002"#,
            json: #"{"command":"set_xattr","path":"","name":"user.a","dataBase64":"AQI="}"#),
        Line(
            name: "an octal mode", command: .chmod(path: ArraySlice("f".utf8), mode: 0o4755),
            text: "chmod           path=f mode=4755",
            json: #"{"command":"chmod","path":"f","mode":"4755"}"#),
        Line(
            name: "contents as a length",
            command: .write(path: ArraySlice("f".utf8), offset: .max, data: [1, 2, 3]),
            text: "write           path=f offset=18446744073709551615 len=3",
            json: #"{"command":"write","path":"f","offset":18446744073709551615,"len":3}"#),
        Line(name: "no fields", command: .end, text: "end", json: #"{"command":"end"}"#),
        Line(
            name: "a UUID",
            command: .subvol(
                path: ArraySlice("s".utf8), uuid: SubvolumeUUID(high: 0x0123_4567_89ab_cdef, low: 1),
                ctransid: 7),
            text: "subvol          path=s uuid=01234567-89ab-cdef-0000-000000000001 transid=7",
            json:
                #"{"command":"subvol","path":"s","uuid":"01234567-89ab-cdef-0000-000000000001","transid":7}"#),
    ]

    @Test(arguments: lines)
    func line(_ line: Line) {
        #expect(line.command.description == line.text)
        #expect(SendStreamPrinter.json(line.command) == line.json)
    }

    /// Reference values from `date -u -d @N`, with five nanoseconds. The leap day is in a century that has one.
    @Test(arguments: [
        (0, "1970-01-01T00:00:00.000000005Z"),
        (951_782_399, "2000-02-28T23:59:59.000000005Z"),
        (951_782_400, "2000-02-29T00:00:00.000000005Z"),
        (1_700_000_000, "2023-11-14T22:13:20.000000005Z"),
        (-1, "1969-12-31T23:59:59.000000005Z"),
        (-62_135_596_800, "0001-01-01T00:00:00.000000005Z"),
        (253_402_300_800, "10000-01-01T00:00:00.000000005Z"),
    ])
    func time(seconds: Int64, text: String) {
        #expect(
            Self.times(SendTime(seconds: seconds, nanoseconds: 5)).hasPrefix(
                "utimes          path=f atime=\(text) "))
    }

    private static func times(_ time: SendTime) -> String {
        SendStreamPrinter.text(
            .utimes(path: ArraySlice("f".utf8), atime: time, mtime: time, ctime: time, otime: nil))
    }

    @Test(arguments: [Int64.min, .max])
    func extremeTimesDoNotTrap(seconds: Int64) {
        #expect(Self.times(SendTime(seconds: seconds, nanoseconds: 0)).hasSuffix(".000000000Z"))
    }

    /// The numbers are those of linux/btrfs.h.
    @Test(arguments: [
        (0, "none"), (1, "zlib"), (2, "zstd"), (3, "lzo_4k"), (4, "lzo_8k"), (5, "lzo_16k"), (6, "lzo_32k"),
        (7, "lzo_64k"), (8, "8"), (UInt32.max, "4294967295"),
    ])
    func compression(number: UInt32, name: String) {
        let compression = SendCompression(number: number)
        #expect(compression.number == number)
        let command = SendCommand.encodedWrite(
            path: ArraySlice("f".utf8), offset: 0, unencodedFileLength: 1, unencodedLength: 2,
            unencodedOffset: 3,
            compression: compression, encryption: 0, data: [4])
        #expect(
            command.description
                == "encoded_write   path=f offset=0 len=1 unencoded_file_len=1 unencoded_len=2 unencoded_offset=3 "
                + "compression=\(name) encryption=0")
        #expect(SendStreamPrinter.json(command).hasSuffix("\"compression\":\"\(name)\",\"encryption\":0}"))
    }

    @Test func uuids() {
        let uuid = SubvolumeUUID("01234567-89ab-CDEF-fedc-ba9876543210")
        #expect(uuid?.description == "01234567-89ab-cdef-fedc-ba9876543210")
        #expect(uuid.flatMap { SubvolumeUUID($0.bytes) } == uuid)
        #expect(uuid?.bytes.first == 0x01 && uuid?.bytes.last == 0x10)
        #expect(SubvolumeUUID([UInt8](repeating: 0, count: 15)) == nil)
    }

    @Test(arguments: [
        "", "01234567-89ab-CDEF-fedc-ba987654321", "01234567089ab-CDEF-fedc-ba9876543210",
        "01234567-89ab-CDEF-fedc-ba98765432100", "g1234567-89ab-CDEF-fedc-ba9876543210",
    ])
    func notAUUID(text: String) { #expect(SubvolumeUUID(text) == nil) }
}
