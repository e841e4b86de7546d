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

    @Test(
        "What a destruction locks grows with the number of subvolumes and directories, however deep they lie")
    func destructionGrows() throws {
        let world = try StoreWorld()
        func time(_ count: Int) throws -> Double {
            try world.volume.root.makeDirectory("store/bundles", mode: 0o700)
            let bundles = SharedDescriptor(try world.volume.root.openDirectory("store/bundles"))
            try bundles.fd.createSubvolume("nested")
            let nested = SharedDescriptor(try bundles.fd.openDirectory("nested"))
            try Self.nest(in: nested.fd, count)
            // Directories in each other, each with a subvolume.
            try bundles.fd.makeDirectory("deep", mode: 0o700)
            var here = SharedDescriptor(try bundles.fd.openDirectory("deep"))
            for _ in 0..<count {
                try here.fd.createSubvolume("s")
                try here.fd.makeDirectory("d", mode: 0o700)
                here = SharedDescriptor(try here.fd.openDirectory("d"))
            }
            // The last is a bundle.
            try here.fd.createSubvolume("b")
            try here.fd.makeDirectory("b/rootfs", mode: 0o700)
            let store = try world.store()
            let time = try ProcessorTime.least {
                let locked = try LockedBundles(of: store)
                #expect(locked.entries.map(\.name) == ["deep", "nested"])
                #expect(locked.entries.map(\.roots.count) == [1, 0])
                #expect(locked.entries.map(\.locks.count) == [2, 0])
            }
            for name in ["deep", "nested"] as [BytePath] {
                try SubvolumeDirectory(opened: bundles, store: "store", name: "bundles").deleteEntry(name)
            }
            try world.volume.root.removeDirectory("store/bundles")
            return time
        }
        let (few, many) = (try time(150), try time(1_200))
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
