package import SystemPackage
package import VarveSystem

/// The records of one containerd: a file for each, named by the SHA-256 of its key.
///
/// A record is replaced as a whole and is on disk when `write` returns. A record that goes is gone from the disk after
/// `synchronize`, which comes before its tree is deleted.
package struct RecordDirectory: Sendable {
    private let directory: SharedDescriptor

    package init(_ directory: SharedDescriptor) { self.directory = directory }

    package func write(_ record: SnapshotRecord) throws(Errno) {
        try directory.fd.writeFileDurably(record.key.fileName, record.encoded, mode: 0o600)
    }

    /// What is not there is no error.
    package func remove(_ key: SnapshotKey) throws(Errno) {
        do throws(Errno) { try directory.fd.unlink(key.fileName) } catch .noSuchFileOrDirectory {}
    }

    package func synchronize() throws(Errno) { try directory.fd.synchronize() }

    /// A file that is no record, or one that cannot be read.
    package struct Fault: Sendable, Hashable {
        package var name: BytePath
        package var reason: String
    }

    /// All records, and the files that are none. What a process left that ended while it wrote is removed.
    package func read() throws(Errno) -> (records: [SnapshotRecord], faults: [Fault]) {
        var records: [SnapshotRecord] = []
        var faults: [Fault] = []
        for entry in try directory.fd.entries() {
            // `writeFileDurably` writes under such a name first.
            if entry.name.bytes.first == UInt8(ascii: ".") {
                try? directory.fd.unlink(entry.name)
                continue
            }
            do {
                let record = try SnapshotRecord(
                    parsing: directory.fd.readFile(entry.name, limit: SnapshotRecord.limit))
                guard record.key.fileName == entry.name else {
                    throw RecordFault("it is the record of another key")
                }
                records.append(record)
            } catch {
                faults.append(Fault(name: entry.name, reason: "\(error)"))
            }
        }
        return (records, faults)
    }
}
