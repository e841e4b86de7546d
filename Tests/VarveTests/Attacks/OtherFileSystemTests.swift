import SystemPackage
import TestSupport
import Testing
import VarveSystem

/// Images that say what the file system cannot hold to which they are unpacked.
@Suite struct OtherFileSystemTests {
    /// ext4 has room for the attributes of a file in its inode and one block, and says ENOSPC beyond that, as a full file system does.
    @Test("Attributes that do not fit on ext4 are named as such, and are not taken for a full file system")
    func attributesOfExt4() throws {
        let volume = try LoopVolume(size: 256 << 20)
        let run = try runCommand([
            "bash", "-ec",
            """
            cd "$1"; v=$2; export HOME=/nonexistent; "$v" init --layout L; "$v" new --image L:a
            mkdir tree; echo x > tree/f; for i in $(seq 60); do setfattr -n user.a$i -v $(printf %0100d 0) tree/f; done
            "$v" insert --image L:a tree /
            truncate -s 64M ext4; mkfs.ext4 -q -b 4096 ext4; mkdir m; mount -o loop ext4 m; trap 'umount m' EXIT
            "$v" raw unpack --image L:a m/out 2> errors; cat errors; cat m/out/f
            [ $(getfattr -d m/out/f | grep -c user) -gt 10 ]
            "$v" raw unpack --strict-xattrs --image L:a m/strict 2>&1 || echo $?
            ls m; head -c 1G /dev/zero > m/full 2>/dev/null || "$v" raw unpack --image L:a m/more 2>&1 || echo $?
            """, "bash", "\(volume.path)", try builtProgram("varve"),
        ])
        let lines = run.outputText.split(separator: "\n")
        #expect(run.status == 0 && lines.count == 8, "\(run.status) \(run.outputText) \(run.errorText)")
        guard lines.count == 8 else { return }
        #expect(lines[0].contains("extended attributes are left out, which this file system cannot hold"))
        #expect(lines[1] == "x")
        #expect(
            lines[2].contains("the attributes of the file do not fit on this file system") && lines[3] == "3")
        #expect(lines[4] == "lost+found" && lines[5] == "out" && lines[7] == "7")
    }
}
