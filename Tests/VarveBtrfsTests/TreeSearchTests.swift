import VarveBtrfs
import VarveSystem
import SystemPackage
import TestSupport
import Testing

private func changed(_ search: inout TreeSearch, since transaction: UInt64) throws -> [InodeItem] {
    var result = [InodeItem]()
    try search.forEachInode(changedSince: transaction) { result.append($0) }
    return result
}

@Suite struct TreeSearchTests {
    @Test func itemsAreThoseOfStat() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try makeHistory(in: root)
        let new = try root.openDirectory("new")
        var search = TreeSearch(new.fd)
        let all = try changed(&search, since: 0)
        #expect(all.count == Set(all.map(\.inode)).count && all.map(\.inode) == all.map(\.inode).sorted())
        let byInode = Dictionary(uniqueKeysWithValues: all.map { ($0.inode, $0) })
        var seen = 1
        for entry in try new.fd.entries() {
            let status = try new.fd.status(of: entry.name)
            let item = try #require(byInode[status.inode])
            #expect(try search.inodeItem(status.inode) == item)
            #expect(item.mode == status.mode && item.uid == status.uid && item.gid == status.gid)
            #expect(UInt64(item.linkCount) == (status.isDirectory ? 1 : status.linkCount))
            #expect(item.modificationTime == status.modificationTime && item.changeTime == status.changeTime)
            #expect(item.accessTime == status.accessTime && item.type == status.type)
            if !status.isDirectory { #expect(item.size == UInt64(status.size)) }
            let names = try search.names(ofInode: status.inode)
            #expect(names.contains(InodeName(parent: 256, name: entry.name)))
            #expect(names.count == Int(item.linkCount))
            seen += 1
        }
        #expect(all.count >= seen - 1)
        #expect(try search.inodeItem(1_000_000) == nil)
        #expect(try search.names(ofInode: 1_000_000).isEmpty && search.names(ofInode: 256).isEmpty)
    }

    @Test func transactionBoundary() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("tree")
        let tree = try root.openDirectory("tree")
        // Over many leaves, so that skipping leaves matters.
        for index in 0..<3000 { try tree.fd.put(BytePath("file-\(index)"), []) }
        try root.synchronizeFileSystem()
        try tree.fd.snapshot(to: root, "old", readOnly: true)
        let old = try root.openDirectory("old")
        // In the very transaction of the snapshot, or the next.
        try tree.fd.changeMode(of: "file-1500", to: 0o600)
        try tree.fd.snapshot(to: root, "new", readOnly: true)
        let new = try root.openDirectory("new")
        let boundary = try old.fd.subvolumeInfo().originTransaction
        let target = try new.fd.status(of: "file-1500").inode

        var search = TreeSearch(new.fd)
        let item = try #require(try search.inodeItem(target))
        #expect(item.transaction >= boundary)
        let found = try changed(&search, since: boundary)
        #expect(found.contains(item) && found.allSatisfy { $0.transaction >= boundary } && found.count < 3000)
        // Exactly at the item's own number it is there, one above it is not.
        #expect(try changed(&search, since: item.transaction).contains(item))
        #expect(try !changed(&search, since: item.transaction + 1).contains(item))
        #expect(try changed(&search, since: 0).count == 3001)
        #expect(try changed(&search, since: .max).isEmpty)
        // The smallest buffer, which must be filled several times, gives the same as one that holds all.
        var small = TreeSearch(new.fd, bufferSize: 0)
        #expect(try changed(&small, since: 0) == changed(&search, since: 0))
    }

    @Test func knownChanges() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try makeHistory(in: root)
        let old = try root.openDirectory("old")
        let new = try root.openDirectory("new")
        var search = TreeSearch(new.fd)
        let found = Set(try changed(&search, since: old.fd.subvolumeInfo().originTransaction).map(\.inode))
        for name in [
            "changed", "shrunk", "linked", "kept", "symlink", "null", "renamed directory", "new", "cloned",
        ] {
            #expect(found.contains(try new.fd.status(of: BytePath(name)).inode), "\(name)")
        }
        #expect(found.contains(256))
    }

    @Test func aThousandNames() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("tree")
        let tree = try root.openDirectory("tree")
        try tree.fd.put("first", [])
        try tree.fd.makeDirectory("d", mode: 0o755)
        let d = try tree.fd.openDirectory("d")
        var expected: Set<InodeName> = [InodeName(parent: 256, name: "first")]
        let parent = try d.fd.status().inode
        for index in 0..<1000 {
            // Long enough that they do not fit into one item, and not UTF-8.
            let name = try #require(
                BytePath(Array("name-\(index)-".utf8) + [UInt8](repeating: 0xfe, count: 100)))
            let inRoot = index % 2 == 0
            try tree.fd.link("first", to: inRoot ? tree.fd : d.fd, name)
            expected.insert(InodeName(parent: inRoot ? 256 : parent, name: name))
        }
        var search = TreeSearch(tree.fd)
        let inode = try tree.fd.status(of: "first").inode
        let names = try search.names(ofInode: inode)
        #expect(names.count == 1001 && Set(names) == expected)
        var small = TreeSearch(tree.fd, bufferSize: 0)
        #expect(try Set(small.names(ofInode: inode)) == expected)
    }

    @Test func extents() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("tree")
        let tree = try root.openDirectory("tree")
        let fd = tree.fd
        try fd.put("inline", Array("hello".utf8))
        try fd.put("regular", [UInt8](repeating: 1, count: 1 << 20))
        try fd.put("touched", [UInt8](repeating: 2, count: 1 << 20))
        try runSuccessfully(["fallocate", "-l", "65536", path(of: fd) + "/reserved"])
        try root.synchronizeFileSystem()
        try fd.snapshot(to: root, "old", readOnly: true)
        try fd.changeMode(of: "regular", to: 0o600)
        let file = try fd.open("touched", [.writeOnly])
        let four = [UInt8](repeating: 3, count: 4096)
        try unsafe four.withUnsafeBytes { buffer in try unsafe file.fd.writeFull(buffer, at: 8192) }
        try root.synchronizeFileSystem()
        try fd.snapshot(to: root, "new", readOnly: true)
        let old = try root.openDirectory("old")
        let new = try root.openDirectory("new")
        var before = TreeSearch(old.fd)
        var after = TreeSearch(new.fd)
        func inode(_ name: BytePath) throws -> UInt64 { try new.fd.status(of: name).inode }

        let inline = try before.fileExtents(ofInode: inode("inline"))
        #expect(inline.map(\.storage) == [.inline(Array("hello".utf8))])
        let regular = try before.fileExtents(ofInode: inode("regular"))
        let regularAfter = try after.fileExtents(ofInode: inode("regular"))
        #expect(!regular.isEmpty && regular.count == regularAfter.count)
        #expect(zip(regular, regularAfter).allSatisfy { $0.provesEqualContent(with: $1) })
        let touched = try before.fileExtents(ofInode: inode("touched"))
        let touchedAfter = try after.fileExtents(ofInode: inode("touched"))
        #expect(touchedAfter.map(\.fileOffset).prefix(3) == [0, 8192, 12288])
        #expect(touched.count == 1 && !touched[0].provesEqualContent(with: touchedAfter[0]))
        let reserved = try before.fileExtents(ofInode: inode("reserved"))
        guard case .preallocated(_, _, _, 65_536) = reserved.first?.storage else {
            Issue.record("\(reserved)")
            return
        }
    }
}
