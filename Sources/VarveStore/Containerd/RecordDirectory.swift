package import SystemPackage
package import VarveSystem

/// The records of one containerd: a file for each, named by the SHA-256 of its key.
///
/// A record is replaced as a whole and is on disk when `write` returns. A record that goes is gone from the disk after
/// `synchronize`, which comes before its tree is deleted.
package struct RecordDirectory: Sendable {
    private let directory: SharedDescriptor

    package init(_ directory: SharedDescriptor) { self.directory = directory }

    /// - Throws: `fileTooLarge` for what could not be read again.
    package func write(_ record: SnapshotRecord) throws(Errno) {
        let bytes = record.encoded
        guard bytes.count <= SnapshotRecord.limit else { throw .fileTooLarge }
        try directory.fd.writeFileDurably(record.key.fileName, bytes, mode: 0o600)
    }

    /// What is not there is no error.
    package func remove(_ key: SnapshotKey) throws(Errno) {
        do throws(Errno) { try directory.fd.unlink(key.fileName) } catch .noSuchFileOrDirectory {}
    }

    package func synchronize() throws(Errno) { try directory.fd.synchronize() }

    /// A file that is no record, or one that cannot be read.
    package struct Fault: Sendable, Hashable {
        package enum Cause: Sendable, Hashable {
            /// No record ever has such a name.
            case foreign
            /// Something else than a daemon wrote it.
            case broken
            /// A version wrote it that this one does not know.
            case otherVersion
            /// The file system does not give it.
            case unreadable
        }

        package var name: BytePath
        package var cause: Cause
        package var reason: String

        init(_ name: BytePath, _ error: any Error) {
            self.name = name
            reason = "\(error)"
            if !SnapshotKey.isFileName(name) {
                cause = .foreign
            } else if let fault = error as? RecordFault {
                cause = fault.isOfOtherVersion ? .otherVersion : .broken
            } else {
                cause = .unreadable
            }
        }
    }

    /// All records, and the files that are none.
    ///
    /// - Parameter isOwner: nobody else writes here, so what a process left that ended while it wrote is removed. Else that is
    ///   passed over, as is a record that is removed meanwhile.
    package func read(isOwner: Bool) throws(Errno) -> (records: [SnapshotRecord], faults: [Fault]) {
        var records: [SnapshotRecord] = []
        var faults: [Fault] = []
        for entry in try directory.fd.entries() {
            // `writeFileDurably` writes under such a name first.
            if entry.name.bytes.first == UInt8(ascii: ".") {
                if isOwner { try? directory.fd.unlink(entry.name) }
                continue
            }
            do {
                if let record = try read(entry.name) { records.append(record) }
            } catch {
                faults.append(Fault(entry.name, error))
            }
        }
        return (records, faults)
    }

    /// The record in a file; nil if there is no such file. Throws for what is no record, or cannot be read.
    package func read(_ name: BytePath) throws -> SnapshotRecord? {
        let bytes: [UInt8]
        do throws(Errno) {
            bytes = try directory.fd.readFile(name, limit: SnapshotRecord.limit)
        } catch .noSuchFileOrDirectory {
            return nil
        }
        let record = try SnapshotRecord(parsing: bytes)
        guard record.key.fileName == name else { throw RecordFault("it is the record of another key") }
        return record
    }

    /// Removes a file that is no record.
    package func remove(_ fault: Fault) throws(Errno) { try directory.fd.unlink(fault.name) }
}
