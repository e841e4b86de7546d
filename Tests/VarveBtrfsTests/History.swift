import VarveBtrfs
import Glibc
import VarveSystem
import SystemPackage
import TestSupport

extension FileDescriptor {
    /// Makes or replaces a file with these bytes.
    func put(_ name: BytePath, _ contents: [UInt8]) throws {
        let file = try open(name, [.writeOnly, .create, .truncate, .noFollow], mode: 0o644)
        try file.fd.writeFull(contents)
    }
}

/// A subvolume `tree` with two read-only snapshots, `old` and `new`, between which something of every kind happened.
func makeHistory(in root: FileDescriptor) throws {
    try root.createSubvolume("tree")
    let tree = try root.openDirectory("tree")
    let fd = tree.fd
    for name in ["kept", "changed", "moved", "removed", "shrunk", "linked"] {
        try fd.put(BytePath(name), [UInt8](repeating: 65, count: 20_000))
    }
    try fd.makeDirectory("dir", mode: 0o755)
    try fd.makeDirectory("gone", mode: 0o755)
    let dir = try fd.openDirectory("dir")
    try dir.fd.put("inside", Array("small".utf8))
    try fd.snapshot(to: root, "old", readOnly: true)

    let odd = BytePath([0x6f, 0xff, 0x0a, 0x20, 0x5c]) ?? .empty
    try fd.put("changed", [UInt8](repeating: 66, count: 300_000))
    try fd.rename("moved", to: fd, odd)
    try fd.unlink("removed")
    try fd.removeDirectory("gone")
    let shrunk = try fd.open("shrunk", [.writeOnly])
    try shrunk.fd.setSize(100)
    try fd.link("linked", to: fd, "second name")
    try fd.rename("dir", to: fd, "renamed directory")
    try fd.makeDirectory("new", mode: 0o700)
    let new = try fd.openDirectory("new")
    try new.fd.put("file", Array("x".utf8))
    try fd.makeSymbolicLink("symlink", target: "../no where")
    try fd.makeNode("null", mode: 0o20666, major: 1, minor: 3)
    try fd.makeNode("fifo", mode: 0o10644, major: 0, minor: 0)
    try fd.makeNode("socket", mode: 0o140644, major: 0, minor: 0)
    try fd.changeOwner(of: "kept", uid: 1000, gid: 100)
    try runSuccessfully(["setfattr", "-n", "user.name", "-v", "value", path(of: fd) + "/kept"])
    let file = try fd.open("cloned", [.readWrite, .create], mode: 0o644)
    let kept = try fd.open("linked", [.readOnly])
    _ = ficlone(file.fd.rawValue, kept.fd.rawValue)
    try fd.snapshot(to: root, "new", readOnly: true)
}

func path(of fd: FileDescriptor) -> String {
    let link = BytePath("/proc/self/fd/\(fd.rawValue)")
    return (try? FileDescriptor.workingDirectory.readSymbolicLink(link))?.string ?? ""
}

/// FICLONE of a whole file.
private func ficlone(_ target: CInt, _ source: CInt) -> CInt {
    ioctl(target, UInt(0x4004_9409), source)
}
