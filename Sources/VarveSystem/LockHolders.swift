package import SystemPackage

/// Who holds a lock of flock(2), for messages.
package enum LockHolders {
    /// The processes that have a file locked, in words: "process 12 of user 1000". Empty where that cannot be seen.
    package static func described(of name: BytePath, in directory: FileDescriptor) -> String {
        guard let status = try? directory.status(of: name),
            let locks = try? here.readFile("/proc/locks", limit: 1 << 24)
        else {
            return ""
        }
        // proc_locks(5): "1: FLOCK ADVISORY WRITE 590 00:2f:257 0 EOF". The device is that of the file system, not of a subvolume.
        let processes = String(decoding: locks, as: UTF8.self).split(separator: "\n").compactMap {
            line -> Int32? in
            let words = line.split(separator: " ")
            guard words.count > 5, words[1] == "FLOCK", words[5].hasSuffix(":\(status.inode)") else {
                return nil
            }
            return Int32(words[4])
        }
        return Set(processes).sorted().filter { has($0, open: status) }.prefix(4).map { process -> String in
            let user = try? here.status(of: BytePath("/proc/\(process)")).uid
            return "process \(process)" + (user.map { " of user \($0)" } ?? "")
        }.joined(separator: ", ")
    }

    private static let here = FileDescriptor.workingDirectory

    private static func has(_ process: Int32, open file: FileStatus) -> Bool {
        let folder = BytePath("/proc/\(process)/fd")
        guard let opened = try? here.openDirectory(folder), let entries = try? opened.fd.entries() else {
            return false
        }
        return entries.contains { entry in
            guard let handle = try? opened.fd.open(entry.name, [.path]) else { return false }
            return (try? handle.fd.status().isSameFile(as: file)) == true
        }
    }
}
