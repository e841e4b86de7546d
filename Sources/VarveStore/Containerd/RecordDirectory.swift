package import SystemPackage
import VarveBtrfs
package import VarveSystem

/// The records of one containerd: a file for each, named by the SHA-256 of its key.
///
/// A record is replaced as a whole and is on disk when `write` returns. A record that goes is gone from the disk after
/// `synchronize`, which comes before its tree is deleted.
///
/// That of a snapshot whose tree is a new one is written before the tree is made, under another name (`begin`), and gets its own
/// once it is there (`confirm`). The kernel commits the snapshot and all that was written before it in one transaction, so that nothing else waits
/// for the disk. After a crash in between, the record counts if its tree is there (`read`).
package struct RecordDirectory: Sendable {
    private let directory: SharedDescriptor

    package init(_ directory: SharedDescriptor) { self.directory = directory }

    /// - Throws: `fileTooLarge` for what could not be read again.
    package func write(_ record: SnapshotRecord) throws(Errno) {
        try write(record, record.key.fileName, .now)
    }

    private func write(_ record: SnapshotRecord, _ name: BytePath, _ durable: FileDescriptor.FileDurability)
        throws(Errno)
    {
        let bytes = record.encoded
        guard bytes.count <= SnapshotRecord.limit else { throw .fileTooLarge }
        try directory.fd.replaceFile(name, with: bytes, mode: 0o600, durable: durable)
    }

    /// Writes a record whose tree is not there yet. Both are on disk once the tree is.
    ///
    /// - Throws: `fileTooLarge` for what could not be read again.
    package func begin(_ record: SnapshotRecord) throws(Errno) {
        try write(record, record.key.pendingFileName, .withNextCommit)
    }

    /// The tree of a record that was begun is there.
    package func confirm(_ key: SnapshotKey) throws(Errno) {
        try directory.fd.rename(key.pendingFileName, to: directory.fd, key.fileName)
    }

    /// Nothing came of a record that was begun. What is not there is no error.
    package func abandon(_ key: SnapshotKey) throws(Errno) { try remove(file: key.pendingFileName) }

    /// What is not there is no error.
    package func remove(_ key: SnapshotKey) throws(Errno) { try remove(file: key.fileName) }

    private func remove(file name: BytePath) throws(Errno) {
        do throws(Errno) { try directory.fd.unlink(name) } catch .noSuchFileOrDirectory {}
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
            if !SnapshotKey.isFileName(SnapshotKey.fileName(ofPending: name) ?? name) {
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
    /// - Parameters:
    ///   - isOwner: nobody else writes here, so what a process left that ended while it wrote is removed, and what it had begun is confirmed or
    ///     abandoned. Else that is passed over, as is a record that is removed meanwhile.
    ///   - isMade: whether the tree of that number is there. If it throws, that is a fault of the record, which is kept.
    package func read(isOwner: Bool, isMade: (UInt64) throws -> Bool) throws(Errno) -> (
        records: [SnapshotRecord], faults: [Fault]
    ) {
        var records: [BytePath: SnapshotRecord] = [:]
        var faults: [Fault] = []
        var begun: [BytePath] = []
        for entry in try directory.fd.entries() {
            // `replaceFile` writes under such a name first.
            if entry.name.bytes.first == UInt8(ascii: ".") {
                if isOwner { try? directory.fd.unlink(entry.name) }
                continue
            }
            if SnapshotKey.fileName(ofPending: entry.name) != nil {
                begun.append(entry.name)
                continue
            }
            do {
                records[entry.name] = try read(entry.name)
            } catch {
                faults.append(Fault(entry.name, error))
            }
        }
        for name in begun {
            do {
                guard let record = try read(name) else {
                    // Confirmed or abandoned meanwhile.
                    if let own = SnapshotKey.fileName(ofPending: name) { records[own] = try read(own) }
                    continue
                }
                if try isMade(record.tree) {
                    if isOwner { try confirm(record.key) }
                    records[record.key.fileName] = record
                } else if isOwner {
                    try abandon(record.key)
                }
            } catch {
                faults.append(Fault(name, error))
            }
        }
        return (Array(records.values), faults)
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
        guard [record.key.fileName, record.key.pendingFileName].contains(name) else {
            throw RecordFault("it is the record of another key")
        }
        return record
    }

    /// Removes a file that is no record.
    package func remove(_ fault: Fault) throws(Errno) { try directory.fd.unlink(fault.name) }
}
