import VarveSystem
import SystemPackage
import TestSupport
import Testing

@Suite struct LoopVolumeTests {
    @Test func mountsAndCleansUp() throws {
        let path: BytePath
        do {
            let volume = try LoopVolume()
            path = volume.path
            try volume.root.makeDirectory(BytePath("a"), mode: 0o755)
            let mounts = try runSuccessfully(["findmnt", "-no", "FSTYPE,SOURCE", path.description]).outputText
            #expect(mounts.contains("btrfs") && mounts.contains(volume.devicePath.description))
        }
        #expect(try isAbsent(path))
        #expect(try isAbsent(BytePath("\(path).img")))
        let devices = try runCommand(["losetup", "-a"])
        #expect(!devices.outputText.contains(path.description))
    }

    @Test func anOpenDescriptorDoesNotKeepTheMountPoint() throws {
        var kept = [SharedDescriptor]()
        let path: BytePath
        do {
            let volume = try LoopVolume(options: "compress=zstd:1")
            path = volume.path
            kept.append(SharedDescriptor(try volume.root.openDirectory(.current)))
        }
        #expect(try isAbsent(path))
        kept.removeAll()
    }

    @Test func failureSaysWhy() {
        let error = #expect(throws: TestSupportError.self) { _ = try LoopVolume(options: "nonsense").path }
        #expect(error?.description.contains("nonsense") == true)
        let small = #expect(throws: TestSupportError.self) { _ = try LoopVolume(size: 1 << 20).path }
        #expect(small?.description.contains("mkfs.btrfs") == true)
    }
}

private func isAbsent(_ path: BytePath) throws(Errno) -> Bool {
    try FileDescriptor.workingDirectory.statusIfPresent(of: path) == nil
}
