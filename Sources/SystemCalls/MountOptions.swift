public import SystemPackage

extension FileDescriptor {
    /// The options of the file system on which this file lies, as mountinfo shows them (proc_pid_mountinfo(5), the last
    /// field): those that hold for all its mounts. Empty where /proc does not tell.
    public func fileSystemOptions() throws(Errno) -> [String] {
        let proc = FileDescriptor.workingDirectory
        let info = try proc.readFile(BytePath("/proc/self/fdinfo/\(rawValue)"), limit: 1 << 16)
        let key = Array("mnt_id:".utf8)
        guard let line = info.split(separator: UInt8(ascii: "\n")).first(where: { $0.starts(with: key) })
        else {
            return []
        }
        let id = line.dropFirst(key.count).filter { (0x30...0x39).contains($0) }
        let mounts = try proc.readFile("/proc/self/mountinfo", limit: 16 << 20)
        for mount in mounts.split(separator: UInt8(ascii: "\n")) {
            let fields = mount.split(separator: UInt8(ascii: " "))
            guard fields.first?.elementsEqual(id) == true, let options = fields.last else { continue }
            return String(decoding: options, as: UTF8.self).split(separator: ",").map { String($0) }
        }
        return []
    }
}
