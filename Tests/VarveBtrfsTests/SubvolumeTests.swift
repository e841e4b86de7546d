import VarveBtrfs
import VarveSystem
import SystemPackage
import TestSupport
import Testing

@Suite struct SubvolumeTests {
    @Test func createAndInspect() throws {
        let volume = try LoopVolume()
        let root = volume.root
        #expect(try root.isBtrfs() && root.isSubvolume())
        try root.createSubvolume("a")
        let a = try root.openDirectory("a")
        let info = try a.fd.subvolumeInfo()
        let top = try root.subvolumeInfo()
        #expect(top.id == 5 && top.parentID == 0)
        #expect(info.id >= 256 && info.parentID == 5 && info.directory == 256)
        #expect(info.parentUUID == nil && info.receivedUUID == nil && !info.isReadOnly)
        #expect(info.originTransaction > 0 && info.originTime > Timestamp(seconds: 1_600_000_000))
        // The reference: what btrfs-progs says.
        let shown = try runSuccessfully([
            "btrfs", "subvolume", "show", volume.path.appending("a").description,
        ])
        #expect(shown.outputText.contains(info.uuid.description))
        let lines = shown.outputText.split(separator: "\n").map {
            $0.split { $0 == " " || $0 == "\t" }.joined(separator: " ")
        }
        #expect(lines.contains("Subvolume ID: \(info.id)"))

        try a.fd.makeDirectory("d", mode: 0o755)
        let d = try a.fd.openDirectory("d")
        #expect(try !d.fd.isSubvolume())
        #expect(try d.fd.subvolumeInfo().id == info.id)
        let outside = try FileDescriptor.workingDirectory.openDirectory("/proc")
        #expect(try !outside.fd.isBtrfs() && !outside.fd.isSubvolume())
    }

    @Test func transactionIsCommitted() throws {
        let volume = try LoopVolume()
        try volume.root.createSubvolume("a")
        let a = try volume.root.openDirectory("a")
        try volume.root.commitTransaction()
        let generation = try a.fd.subvolumeInfo().generation
        try a.fd.makeDirectory("d", mode: 0o755)
        #expect(try a.fd.subvolumeInfo().generation == generation)
        try volume.root.commitTransaction()
        #expect(try a.fd.subvolumeInfo().generation > generation)
        // With nothing to commit.
        try volume.root.commitTransaction()
    }

    @Test func snapshots() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("a")
        let a = try root.openDirectory("a")
        try a.fd.createSubvolume("inner")
        try a.fd.snapshot(to: root, "read-only", readOnly: true)
        try a.fd.snapshot(to: root, "writable", readOnly: false)
        let frozen = try root.openDirectory("read-only")
        let info = try frozen.fd.subvolumeInfo()
        #expect(try info.parentUUID == a.fd.subvolumeInfo().uuid)
        #expect(try info.isReadOnly && frozen.fd.isReadOnlySubvolume())
        #expect(throws: Errno.readOnlyFileSystem) { try frozen.fd.makeDirectory("x", mode: 0o755) }
        try frozen.fd.setSubvolumeReadOnly(false)
        #expect(try !frozen.fd.isReadOnlySubvolume() && !frozen.fd.subvolumeInfo().isReadOnly)
        try frozen.fd.makeDirectory("x", mode: 0o755)
        let writable = try root.openDirectory("writable")
        #expect(try !writable.fd.isReadOnlySubvolume())
        // Of one that was deleted since it was opened: what `snapshot restore` takes for "it is not there".
        try root.deleteSubvolume("read-only")
        #expect {
            try frozen.fd.snapshot(to: root, "late", readOnly: false)
        } throws: { error in
            (error as? BtrfsError)?.errno == .noSuchFileOrDirectory
        }
        // The stub of a nested subvolume is none.
        let stub = try writable.fd.openDirectory("inner")
        #expect(try !stub.fd.isSubvolume())
        #expect(try writable.fd.nestedSubvolumes().isEmpty)
    }

    @Test func nested() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("a")
        let a = try root.openDirectory("a")
        try a.fd.makeDirectory("d", mode: 0o755)
        let d = try a.fd.openDirectory("d")
        // More than one answer of the ioctl (255) holds, one with a name that is not UTF-8, and one below another.
        let odd = try #require(BytePath([0x6e, 0xff, 0x20]))
        try d.fd.createSubvolume(odd)
        for index in 0..<300 { try a.fd.createSubvolume(BytePath("s\(index)")) }
        let s7 = try a.fd.openDirectory("s7")
        try s7.fd.createSubvolume("deep")
        let nested = try a.fd.nestedSubvolumes()
        #expect(nested.count == 301)
        #expect(nested.first?.directory == BytePath("d") && nested.first?.name == odd)
        #expect(Set(nested.map(\.path)).count == 301 && Set(nested.map(\.id)).count == 301)
        let notARoot = #expect(throws: BtrfsError.self) { try d.fd.nestedSubvolumes() }
        #expect(notARoot?.errno == .invalidArgument)

        try a.fd.setSubvolumeReadOnly(true)
        let error = #expect(throws: BtrfsError.self) { try root.deleteSubvolume("a") }
        #expect(error?.errno == .directoryNotEmpty)
        let cancellation = Cancellation()
        cancellation.cancel()
        let stopped = #expect(throws: BtrfsError.self) {
            try root.deleteSubvolumeTree("a", cancellation: cancellation)
        }
        #expect(try stopped?.errno == .canceled && a.fd.nestedSubvolumes().count == 301)
        let deleted = try root.deleteSubvolumeTree("a")
        #expect(deleted.count == 303 && Set(deleted).isSuperset(of: nested.map(\.id)))
        #expect(try root.statusIfPresent(of: "a") == nil)
    }

    @Test func cleaner() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("a")
        let id: UInt64
        do {
            let a = try root.openDirectory("a")
            id = try a.fd.subvolumeInfo().id
            let search = TreeSearch(a.fd)
            _ = consume search
        }
        try root.deleteSubvolume("a")
        #expect(try root.waitForCleaner(of: [id], seconds: 20))
        #expect(try !root.deletedSubvolumes().contains(id))
        // One that is alive never goes.
        try root.createSubvolume("b")
        let b = try root.openDirectory("b")
        let living = try b.fd.subvolumeInfo().id
        #expect(try !root.waitForCleaner(of: [living], seconds: 0.01))
    }

    @Test func deletionDoesNotFollowLinks() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("a")
        try root.makeSymbolicLink("link", target: "a")
        #expect(throws: BtrfsError.self) { try root.deleteSubvolume("link") }
        #expect(throws: BtrfsError.self) { try root.deleteSubvolumeTree("link") }
        try root.makeDirectory("d", mode: 0o755)
        #expect(throws: BtrfsError.self) { try root.deleteSubvolumeTree("d") }
        #expect(try root.statusIfPresent(of: "a") != nil)
    }

    @Test func errors() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("a")
        let taken = #expect(throws: BtrfsError.self) { try root.createSubvolume("a") }
        #expect(
            taken?.description
                == "cannot create the subvolume \(volume.path)/a: File exists; the name is taken")
        let long = #expect(throws: BtrfsError.self) {
            try root.createSubvolume(BytePath(String(repeating: "n", count: 256)))
        }
        #expect(long?.errno == .fileNameTooLong)
        let outside = try FileDescriptor.workingDirectory.openDirectory("/proc")
        let other = #expect(throws: BtrfsError.self) { try outside.fd.createSubvolume("x") }
        #expect(other?.description.hasSuffix("it is not on btrfs") == true)
        let missing = #expect(throws: BtrfsError.self) { try root.deleteSubvolume("missing") }
        #expect(missing?.errno == .noSuchFileOrDirectory)
        #expect(
            BtrfsError(.deleteSubvolume, path: "/x", errno: .notPermitted).description.contains(
                "user_subvol_rm_allowed"))
        #expect(BtrfsError(.send, path: "/x", errno: .notPermitted).description.contains("CAP_SYS_ADMIN"))
    }
}
