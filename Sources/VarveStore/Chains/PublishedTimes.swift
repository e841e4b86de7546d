import VarveBtrfs
import Logging
import VarveOCI
import VarveSystem
import SystemPackage

/// The change times that the inodes of a chain had when it was published, in `published/UUID` (the chain's); likewise those of a
/// named snapshot and of the state kept of a refreshed bundle.
///
/// The kernel sets the change time of an inode with every change of its content, names and attributes, and nobody can set
/// it to another time. What gives an inode a later transaction and leaves that time alone (deduplication, defragmentation) leaves
/// the rest alone too: Docs/on-disk-format.md. So an inode that bears a later transaction and the change time of the
/// publication is unchanged, whatever the clock was meanwhile.
struct PublishedTimes: Equatable {
    struct Entry: Equatable {
        var inode: UInt64
        var time: Timestamp
    }

    /// The chain that was there before: an inode that is not in `entries` had the time that it had there.
    var below: SubvolumeUUID?
    /// In ascending order of inode numbers, each once.
    private(set) var entries: [Entry] = []

    private static let magic = Array("varve-times 1\n".utf8)
    private static let entrySize = 20
    private static let digestSize = 32
    static let limit = 512 << 20

    init(below: SubvolumeUUID?) { self.below = below }

    /// - Parameter inode: has a higher number than those before.
    mutating func append(_ inode: UInt64, _ time: Timestamp) {
        entries.append(Entry(inode: inode, time: time))
    }

    /// The time of an inode; nil if it is not among the entries.
    func time(of inode: UInt64) -> Timestamp? {
        var range = entries.indices
        while let first = range.first {
            let middle = first + range.count / 2
            let entry = entries[middle]
            if entry.inode == inode { return entry.time }
            range = entry.inode < inode ? middle + 1..<range.upperBound : first..<middle
        }
        return nil
    }

    /// The line `varve-times 1`; the UUID of the chain below, or 16 zero bytes; inode number (64 bits), seconds (64) and
    /// nanoseconds (32) of each in ascending order, little-endian; the SHA-256 of all that.
    var encoded: [UInt8] {
        var bytes = Self.magic + (below ?? .zero).bytes
        bytes.reserveCapacity(bytes.count + entries.count * Self.entrySize + Self.digestSize)
        for entry in entries {
            bytes.append(littleEndian: entry.inode)
            bytes.append(littleEndian: UInt64(bitPattern: entry.time.seconds))
            bytes.append(littleEndian: UInt32(entry.time.nanoseconds))
        }
        bytes.append(contentsOf: Digest(of: bytes).bytes)
        return bytes
    }

    /// Nil for what is no such file, or not a whole one.
    init?(_ bytes: [UInt8]) {
        let start = Self.magic.count + 16
        let end = bytes.count - Self.digestSize
        guard end >= start, bytes.starts(with: Self.magic), (end - start).isMultiple(of: Self.entrySize),
            Digest(of: bytes[..<end]).bytes == Array(bytes[end...]),
            let uuid = SubvolumeUUID(Array(bytes[Self.magic.count..<start]))
        else { return nil }
        below = uuid.isZero ? nil : uuid
        entries.reserveCapacity((end - start) / Self.entrySize)
        func number(_ offset: Int, _ count: Int) -> UInt64 {
            bytes[offset..<(offset + count)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        for offset in stride(from: start, to: end, by: Self.entrySize) {
            let inode = number(offset, 8)
            if let last = entries.last, last.inode >= inode { return nil }
            append(
                inode,
                Timestamp(
                    seconds: Int64(bitPattern: number(offset + 8, 8)),
                    nanoseconds: UInt32(truncatingIfNeeded: number(offset + 16, 4))))
        }
    }
}

extension [UInt8] {
    fileprivate mutating func append<T: FixedWidthInteger & BitwiseCopyable>(littleEndian value: T) {
        unsafe Swift.withUnsafeBytes(of: value.littleEndian) { unsafe append(contentsOf: $0) }
    }
}

/// `published/` of a store: the change times of its chains, named snapshots and states of refreshed bundles.
struct PublishedTimesFolder: Sendable {
    /// That of the store: the folder is made when there is something to put into it.
    private let directory: SharedDescriptor
    private let logger: Logger

    init(in directory: SharedDescriptor, logger: Logger) {
        self.directory = directory
        self.logger = logger
    }

    private func timesName(_ uuid: SubvolumeUUID) -> BytePath {
        StoreLayout.published.appending(BytePath(uuid.description))
    }

    private func times(_ uuid: SubvolumeUUID) throws(Errno) -> PublishedTimes? {
        do throws(Errno) {
            return PublishedTimes(try directory.fd.readFile(timesName(uuid), limit: PublishedTimes.limit))
        } catch .noSuchFileOrDirectory {
            return nil
        }
    }

    /// Writes down the change times of a chain that was published just now. Only root may ask for them; without them, whatever
    /// changes an inode makes the chain one that is not used, which is right as well, and no more than a waste.
    ///
    /// - Parameters:
    ///   - below: the chain of which the published tree is a snapshot, directly or by way of others.
    ///   - since: what the tree differs in from that has at least this transaction.
    func record(_ chain: OpenChain, below: SubvolumeUUID?, since: UInt64) {
        record(chain.subvolume.fd, chain.info.uuid, below: below, since: since)
    }

    /// Writes down those of any read-only subvolume.
    func record(
        _ subvolume: FileDescriptor, _ uuid: SubvolumeUUID, below: SubvolumeUUID?, since: UInt64
    ) {
        guard Privileges.isRoot else { return }
        var known: SubvolumeUUID?
        if let below, ((try? directory.fd.statusIfPresent(of: timesName(below))) ?? nil) != nil {
            known = below
        }
        do {
            var record = PublishedTimes(below: known)
            var search = TreeSearch(subvolume)
            try search.forEachInode(changedSince: known == nil ? 0 : since) { inode in
                record.append(inode.inode, inode.changeTime)
            }
            try write(record, timesName(uuid))
        } catch {
            logger.debug("the change times of the subvolume \(uuid) are not written down: \(error)")
        }
    }

    /// The change times of all inodes of a subvolume that a transaction from `since` on changed.
    func changeTimes(in subvolume: FileDescriptor, since: UInt64) throws(BtrfsError) -> [UInt64: Timestamp] {
        var times: [UInt64: Timestamp] = [:]
        var search = TreeSearch(subvolume)
        try search.forEachInode(changedSince: since) { inode in times[inode.inode] = inode.changeTime }
        return times
    }

    /// Not synchronized: one that a crash took is only missing.
    private func write(_ record: PublishedTimes, _ name: BytePath) throws(Errno) {
        do throws(Errno) {
            try directory.fd.makeDirectory(StoreLayout.published, mode: 0o700)
        } catch {
            if error != .fileExists { throw error }
        }
        let temporary = name.appendingBytes(".new")
        try? directory.fd.unlink(temporary)
        let file = try directory.fd.open(
            temporary, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o600)
        try file.fd.writeFull(record.encoded)
        try directory.fd.rename(temporary, to: directory.fd, name, replacing: true)
    }

    /// Whether each of these inodes of a chain has the change time that it was published with.
    func holds(_ inodes: [UInt64: Timestamp], of chain: SubvolumeUUID) -> Bool {
        var missing = inodes
        var next: SubvolumeUUID? = chain
        var seen: Set<SubvolumeUUID> = []
        while !missing.isEmpty {
            guard let uuid = next, seen.insert(uuid).inserted, let record = try? times(uuid) else {
                return false
            }
            for (inode, time) in missing {
                guard let published = record.time(of: inode) else { continue }
                if published != time { return false }
                missing[inode] = nil
            }
            next = record.below
        }
        return true
    }

    /// Deletes the times of subvolumes that are gone and that no other's refer to.
    ///
    /// - Parameter kept: the subvolumes that are there.
    func removeAll(except kept: [SubvolumeUUID]) throws(Errno) {
        let folder: SharedDescriptor
        do throws(Errno) {
            folder = SharedDescriptor(try directory.fd.openDirectory(StoreLayout.published))
        } catch .noSuchFileOrDirectory {
            return
        }
        var used: Set<SubvolumeUUID> = []
        for uuid in kept {
            var next: SubvolumeUUID? = uuid
            while let uuid = next, used.insert(uuid).inserted { next = try times(uuid)?.below }
        }
        for entry in try folder.fd.entries() {
            guard let text = entry.name.string, let uuid = SubvolumeUUID(text), !used.contains(uuid) else {
                continue
            }
            try folder.fd.unlink(entry.name)
        }
    }
}

extension SnapshotStore {
    /// Deletes the published times of subvolumes that are gone.
    func removeUnusedTimes() {
        do {
            var kept = try chains.all().map(\.info.uuid)
            for directory in [snapshotsDirectory, refreshedDirectory] {
                for entry in try directory.entries() {
                    guard let opened = try directory.subvolume(entry.name),
                        let info = try opened.fd.subvolumeInfoIfPresent()
                    else { continue }
                    kept.append(info.uuid)
                }
            }
            try chains.times.removeAll(except: kept)
        } catch {
            logger.debug("the published times of subvolumes that are gone stay: \(error)")
        }
    }
}
