import SystemPackage

/// A user who is not the caller, for messages: by number, if the number is that user's own.
package struct AnotherUser: CustomStringConvertible {
    private let uid: UInt32

    /// - Parameter uid: as stat(2) gives it.
    package init(_ uid: UInt32) { self.uid = uid }

    /// False for a number that a user name space shows in the place of all users that it does not have (user_namespaces(7),
    /// "Unmapped user and group IDs").
    package var isKnown: Bool {
        uid != Self.overflow || Self.mapped.contains { $0.contains(UInt64(uid)) }
    }

    /// Whether a directory, which has this owner, belongs to a user whom the name space does not have, where it has one of the number that is
    /// shown for those. Root of the name space may do to its own users' files what their owner may, as O_NOATIME is (open(2)), and read
    /// their directories, and do so to no others (`inode_owner_or_capable`, fs/inode.c; `generic_permission`, fs/namei.c).
    func isShownFor(_ directory: FileDescriptor) -> Bool {
        guard uid == Self.overflow, Self.mayReadAll, Self.mapped != [0..<UInt64(UInt32.max)] else {
            return false
        }
        do throws(Errno) {
            _ = try directory.open(.current, [.directory, .noAccessTime])
            return false
        } catch {
            return error == .notPermitted || error == .permissionDenied
        }
    }

    /// Whether this process has CAP_DAC_READ_SEARCH (2) and CAP_FOWNER (3) in its name space (capabilities(7)).
    private static var mayReadAll: Bool {
        let bytes = (try? FileDescriptor.workingDirectory.readFile("/proc/self/status", limit: 1 << 16)) ?? []
        let line = String(decoding: bytes, as: UTF8.self).split(separator: "\n").first {
            $0.hasPrefix("CapEff:")
        }
        let capabilities = line.flatMap { UInt64($0.dropFirst(7).drop { $0 == "\t" }, radix: 16) } ?? 0
        return capabilities & 0b1100 == 0b1100
    }

    package var description: String { isKnown ? "another user (uid \(uid))" : "another user" }

    /// proc_sys_kernel(5), `overflowuid`.
    private static let overflow: UInt32 = {
        let bytes =
            (try? FileDescriptor.workingDirectory.readFile("/proc/sys/kernel/overflowuid", limit: 64)) ?? []
        return UInt32(String(decoding: bytes.filter { $0 != 0x0a }, as: UTF8.self)) ?? 65534
    }()

    /// The users that this process's name space has (proc_pid_uid_map(5)). Not kept: a process may enter another one.
    private static var mapped: [Range<UInt64>] {
        guard
            let bytes = try? FileDescriptor.workingDirectory.readFile("/proc/self/uid_map", limit: 1 << 16)
        else { return [] }
        return bytes.split(separator: 0x0a).compactMap { line in
            let numbers = line.split(separator: 0x20).compactMap {
                UInt64(String(decoding: $0, as: UTF8.self))
            }
            guard numbers.count == 3 else { return nil }
            let (end, overflows) = numbers[0].addingReportingOverflow(numbers[2])
            return overflows ? nil : numbers[0]..<end
        }
    }
}
