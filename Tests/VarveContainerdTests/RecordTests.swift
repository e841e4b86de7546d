import Testing
import VarveOCI
import VarveStore
import VarveSystem

@testable import VarveContainerd

/// Records as they lie on the disk.
@Suite struct RecordTests {
    private static func full() -> SnapshotRecord {
        var record = SnapshotRecord(
            key: SnapshotKey("a/b \"c\"\n\u{0}é"), kind: .committed, parent: SnapshotKey("/p"),
            labels: ["x": "y", "": "z", "é": "\u{1}"], time: Timestamp(seconds: -5, nanoseconds: 999_999_999),
            tree: 7,
            chain: ChainID(Digest(of: [1, 2, 3])), usage: .init(size: 1 << 40, inodes: 3),
            origin: .init(uuid: "u", parentUUID: "", transaction: 1 << 40))
        record.updated = Timestamp(seconds: 1 << 40, nanoseconds: 1)
        record.committedFrom = 6
        return record
    }

    @Test func survives() throws {
        #expect(try SnapshotRecord(parsing: Self.full().encoded) == Self.full())
        let bare = SnapshotRecord(
            key: SnapshotKey("k"), kind: .active, parent: SnapshotKey(""), labels: [:], time: .epoch, tree: 1)
        #expect(try SnapshotRecord(parsing: bare.encoded) == bare)
        var sharing = bare
        sharing.kind = .view
        sharing.sharesTree = true
        #expect(try SnapshotRecord(parsing: sharing.encoded) == sharing)
    }

    /// Records as the first daemon wrote them, byte for byte: those who have them must not lose their snapshots by an upgrade. They stay as
    /// they are for as long as version 1 is read; a new member gets a sample of its own.
    static let older = [
        #"{"version":1,"key":"k8s.io/3/extract-576830697-i9Is sha256:98","kind":"active","parent":"","labels":{},"created":[1796061557,576830697],"updated":[1796061558,0],"tree":2}"#,
        #"{"version":1,"key":"default/4/view","kind":"view","parent":"default/1/base","labels":{"a":"b","containerd.io/gc.root":"2026-11-30T17:46:35Z"},"created":[0,0],"updated":[0,0],"tree":12,"chain":"sha256:982e3cc1977ac2452ca140096271d53f73a23c32e51845e01e5557c47ffe60aa"}"#,
        #"{"version":1,"key":"default/1/base","kind":"committed","parent":"","labels":{"containerd.io/snapshot.ref":"sha256:982e3cc1977ac2452ca140096271d53f73a23c32e51845e01e5557c47ffe60aa"},"created":[0,0],"updated":[0,0],"tree":1,"chain":"sha256:982e3cc1977ac2452ca140096271d53f73a23c32e51845e01e5557c47ffe60aa","committedFrom":1}"#,
        #"{"version":1,"key":"moby/7/own","kind":"committed","parent":"moby/1/base","labels":{},"created":[0,0],"updated":[0,0],"tree":7,"usage":{"size":16384,"inodes":3},"committedFrom":6,"origin":{"uuid":"7d2c8ae4-9f53-4f0e-8a8d-0c7d6e5f4a3b","parentUUID":"","transaction":58}}"#,
    ]

    @Test(arguments: older)
    func readsOlder(_ text: String) throws {
        let record = try SnapshotRecord(parsing: Array(text.utf8))
        // A daemon before this one reads what this one writes, after a step back.
        #expect(String(decoding: record.encoded, as: UTF8.self) == text + "\n")
    }

    /// Two keys that Unicode takes for one text are two keys, and two files.
    @Test func keysAreBytes() {
        let composed = SnapshotKey("\u{e9}")
        let decomposed = SnapshotKey("e\u{301}")
        #expect(composed != decomposed)
        #expect(composed.fileName != decomposed.fileName)
    }

    /// Whatever is cut off, changed or put in between: a fault, or a record, and never an end of the process.
    @Test func hostile() {
        let bytes = Self.full().encoded
        for count in bytes.indices {
            // The closing line end alone may be missing.
            if count < bytes.count - 1 {
                #expect(throws: RecordFault.self) { try SnapshotRecord(parsing: Array(bytes[..<count])) }
            }
            for value: UInt8 in [0, 0x22, 0x2d, 0x39, 0x5d, 0x7d, 0xff] {
                var changed = bytes
                changed[count] = value
                _ = try? SnapshotRecord(parsing: changed)
            }
        }
    }

    @Test(arguments: [
        "{}", "[]", "null", "", #"{"version":2}"#, #"{"version":1,"key":""}"#,
        #"{"version":1,"key":"k","kind":"other","parent":"","labels":{},"created":[0,0],"updated":[0,0],"tree":1}"#,
        #"{"version":1,"key":"k","kind":"view","parent":"","labels":{"a":1},"created":[0,0],"updated":[0,0],"tree":1}"#,
        #"{"version":1,"key":"k","kind":"view","parent":"","labels":{},"created":[0,1000000000],"updated":[0,0],"tree":1}"#,
        #"{"version":1,"key":"k","kind":"view","parent":"","labels":{},"created":[0,0],"updated":[0,0],"tree":0}"#,
        #"{"version":1,"key":"k","kind":"view","parent":"","labels":{},"created":[0,0],"updated":[0,0],"tree":-1}"#,
        #"{"version":1,"key":"k","kind":"view","parent":"","labels":{},"created":[0,0],"updated":[0,0],"tree":1,"chain":"x"}"#,
        #"{"version":1,"key":"k","kind":"view","parent":"","labels":{},"created":[0,0],"updated":[0,0],"tree":1,"usage":3}"#,
        // The tree of another, which this one may write to.
        #"{"version":2,"key":"k","kind":"active","parent":"p","labels":{},"created":[0,0],"updated":[0,0],"tree":1}"#,
    ])
    func refuses(_ text: String) {
        #expect(throws: RecordFault.self) { try SnapshotRecord(parsing: Array(text.utf8)) }
    }
}
