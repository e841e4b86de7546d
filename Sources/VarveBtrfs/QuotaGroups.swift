import VarveSystem
import SystemPackage

/// What a quota group counts, in bytes on disk, data and metadata.
package struct QuotaUsage: Hashable, Sendable {
    package var referenced: UInt64
    /// What would be freed if the subvolume alone went.
    package var exclusive: UInt64
}

extension TreeSearch {
    private static let quotaTree: UInt64 = 8

    /// Whether quota groups are on, of whatever kind.
    package mutating func hasQuotaTree() throws(BtrfsError) -> Bool {
        var isOn = false
        let range = Range(
            tree: Self.quotaTree, first: Key(object: 0, type: ItemType.quotaStatus, offset: 0),
            last: Key(object: 0, type: ItemType.quotaStatus, offset: .max))
        do throws(BtrfsError) {
            try search(range) { item throws(BtrfsError) in
                isOn = item.key.type == ItemType.quotaStatus
                return false
            }
        } catch {
            if error.errno == .noSuchFileOrDirectory { return false }
            throw error
        }
        return isOn
    }

    /// The level-0 quota groups by the id of their subvolume; nil where quotas are off, are being counted anew, are said to
    /// be wrong, or are simple ones (which count by who wrote, not by who shares; Linux 6.7). The figures are those of the
    /// last commit.
    package mutating func quotaUsage() throws(BtrfsError) -> [UInt64: QuotaUsage]? {
        var isRight = false
        var result: [UInt64: QuotaUsage] = [:]
        let range = Range(
            tree: Self.quotaTree, first: Key(object: 0, type: ItemType.quotaStatus, offset: 0),
            last: Key(object: 0, type: ItemType.quotaInfo, offset: .max))
        do throws(BtrfsError) {
            try search(range) { item throws(BtrfsError) in
                switch item.key.type {
                case ItemType.quotaStatus:
                    guard unsafe item.bytes.count >= 24 else { throw SearchItem.damaged(descriptor) }
                    // BTRFS_QGROUP_STATUS_FLAG_ON alone: not RESCAN, INCONSISTENT or SIMPLE_MODE.
                    isRight = item.load(16, as: UInt64.self) & 0xf == 1
                    return isRight
                case ItemType.quotaInfo where item.key.offset >> 48 == 0:
                    guard unsafe item.bytes.count >= 40 else { throw SearchItem.damaged(descriptor) }
                    result[item.key.offset] = QuotaUsage(referenced: item.load(8), exclusive: item.load(24))
                    return true
                default:
                    return true
                }
            }
        } catch {
            // There is no such tree.
            if error.errno == .noSuchFileOrDirectory { return nil }
            throw error
        }
        return isRight ? result : nil
    }
}
