import Glibc
import SystemPackage
import TestSupport
import Testing
import VarveBtrfs
import VarveSystem

@testable import VarveStore

/// Subvolumes that whoever runs a container has nested in a bundle.
@Suite(.serialized) struct NestedRemovalTests {
    /// Each lies in the one before, which lies in `root`.
    private static func nest(in root: FileDescriptor, _ count: Int) throws {
        var here = SharedDescriptor(try root.openDirectory("."))
        for _ in 0..<count {
            try here.fd.createSubvolume("s")
            here = SharedDescriptor(try here.fd.openDirectory("s"))
        }
    }

    @Test("What a removal looks for grows with the number of subvolumes, however deep they lie in each other")
    func grows() throws {
        let volume = try LoopVolume(size: 1 << 30)
        func time(_ count: Int) throws -> Double {
            let name = BytePath("\(count)")
            try volume.root.createSubvolume(name)
            let bundle = SharedDescriptor(try volume.root.openDirectory(name))
            try Self.nest(in: bundle.fd, count)
            let obstacle = RemovalObstacle(bundle.fd, name, Cancellation())
            return try ProcessorTime.least {
                let freed = try obstacle.checkNested()
                #expect(freed.isEmpty)
            }
        }
        let (few, many) = (try time(200), try time(1_600))
        #expect(ProcessorTime.isInProportion(few, toEightTimesAsMuch: many), "\(few) \(many)")
    }

    @Test("What was made writable to be deleted is read-only again if it is not deleted")
    func readOnlyAgain() throws {
        let volume = try LoopVolume(size: 512 << 20)
        try volume.root.createSubvolume("b")
        let bundle = SharedDescriptor(try volume.root.openDirectory("b"))
        try Self.nest(in: bundle.fd, 40)
        var here = SharedDescriptor(try bundle.fd.openDirectory("."))
        var all: [SharedDescriptor] = []
        for _ in 0..<40 {
            here = SharedDescriptor(try here.fd.openDirectory("s"))
            all.append(here)
        }
        for (index, subvolume) in all.enumerated() where index % 3 == 0 {
            try subvolume.fd.setSubvolumeReadOnly(true)
        }
        func readOnly() throws -> [Int] {
            try all.indices.filter { try all[$0].fd.isReadOnlySubvolume() }
        }
        let before = try readOnly()
        #expect(before.count == 14)
        let cancellation = Cancellation()
        let obstacle = RemovalObstacle(bundle.fd, "b", cancellation)
        let freed = try obstacle.checkNested()
        #expect(try freed.count == 14 && readOnly() == [])
        obstacle.makeReadOnly(freed)
        #expect(try readOnly() == before)
        cancellation.cancel()
        #expect { _ = try obstacle.checkNested() } throws: { isStoreError($0, .interrupted) }
        #expect(try readOnly() == before)
    }

    /// Before the first nested one is deleted, and between two.
    @Test("The first SIGTERM ends a removal: the bundle is as it was, or goes with the next command")
    func signals() throws {
        let world = try StoreWorld()
        try world.addImage("a", try storeSampleLayers())
        var (asItWas, begun, point) = (0, 0, 0)
        while true {
            point += 1
            #expect(point < 100)
            try world.shell(
                """
                [ -e bundle ] || {
                    VARVE_STORE=$PWD/store HOME=$PWD '\(try builtProgram("varve"))' unpack --image layout:a bundle
                    (cd bundle/rootfs; for i in 1 2 3; do btrfs -q subvolume create s; cd -P s; done; btrfs property set . ro true)
                }
                """)
            let process = try VarveProcess(["bundle", "rm", "bundle"], in: world.path, stopAt: point)
            var status: CInt = 0
            guard process.hasStopped(&status) else {
                #expect(VarveProcess.code(status) == 0)
                break
            }
            kill(process.pid, SIGTERM)
            kill(process.pid, SIGCONT)
            let code = process.end()
            if code == 0 { continue }
            let errors = try process.errorText()
            #expect(code == 143 && errors == SignalTests.cleaned, "\(point): \(code) \(errors)")
            if try world.names(in: ".").contains("bundle") {
                asItWas += 1
                #expect(try world.shell("btrfs property get bundle/rootfs/s/s/s ro") == "ro=true\n")
            } else {
                begun += 1
                #expect(try world.names(in: "store/work").count == 1)
                _ = try world.store()
                #expect(try world.names(in: "store/work") == [])
            }
            try world.expectClean()
        }
        #expect(asItWas > 0 && begun > 0, "\(asItWas) \(begun) of \(point)")
    }
}
