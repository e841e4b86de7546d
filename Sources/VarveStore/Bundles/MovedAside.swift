import VarveBtrfs
import VarveSystem
import SystemPackage

/// What was moved to a work directory or to `work/` by its name, to be deleted there.
///
/// Whoever else may write to the directory in which it lay can have given the name to something else meanwhile. So the name that it
/// gets says what it must be, and nothing else under such a name is ever deleted: not by the command that moved it, and not by a
/// later one that finds it when that command was killed.
struct MovedAside {
    private static let prefix: BytePath = "discard-"

    /// The name: `discard-NUMBER`, and what makes it the only one of its kind.
    ///
    /// - Parameter number: the inode of a directory, the id of a subvolume.
    static func name(of number: UInt64, _ rest: BytePath = .empty) -> BytePath {
        prefix.appendingBytes(BytePath("\(number)")).appendingBytes(
            rest.isEmpty ? rest : BytePath("-").appendingBytes(rest))
    }

    /// The number in such a name; nil for any other name.
    static func number(in name: BytePath) -> UInt64? {
        guard name.hasPrefix(prefix.bytes) else { return nil }
        return name.dropFirst(prefix.count).string.flatMap { text in
            text.split(separator: "-", omittingEmptySubsequences: false).first.flatMap { UInt64($0) }
        }
    }

    /// Whether what has such a name is another than the subvolume that was to be deleted. False for any other name.
    static func isAnother(_ name: BytePath, in directory: FileDescriptor) -> Bool {
        guard let number = number(in: name) else { return false }
        do throws(Errno) {
            let opened = try directory.openDirectory(name)
            if try opened.fd.status().isSubvolumeStub { return false }
            return (try? opened.fd.subvolumeInfo().id) != number
        } catch {
            return error != .noSuchFileOrDirectory
        }
    }

    /// Moves what was not to be moved out again: to where it lay, or beside that where its name is taken by now.
    ///
    /// - Returns: its name there; nil if it cannot be moved and stays.
    static func putBack(
        _ moved: BytePath, from work: FileDescriptor, to parent: FileDescriptor, _ name: BytePath
    ) -> BytePath? {
        racePoint("put-back")
        for attempt in 0..<16 {
            let place = attempt == 0 ? name : name.appendingBytes(BytePath(".varve-\(randomName())"))
            do throws(Errno) {
                try work.rename(moved, to: parent, place, replacing: false)
                return place
            } catch {
                // Another name then.
                guard [.fileExists, .directoryNotEmpty, .fileNameTooLong].contains(error) else { return nil }
            }
        }
        return nil
    }
}
