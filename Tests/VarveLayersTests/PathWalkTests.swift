import SystemPackage
import TestSupport
import Testing
import VarveSystem

@testable import VarveLayers

@Suite struct PathWalkTests {
    @Test("The way back leads to the directory that it came from, or nowhere")
    func movedMeanwhile() throws {
        let place = try SharedVolume.directory()
        _ = try place.shell("mkdir -p root/d/e/f root/target outside")
        let root = SharedDescriptor(
            try FileDescriptor.workingDirectory.openDirectory(place.path.appending("root")))
        func found(_ path: BytePath, movingAfter count: Int, _ script: String) throws -> BytePath? {
            var walk = try PathWalk(path, in: root.fd)
            var names = 0
            while let name = try walk.next() {
                if walk.isAtEnd { return walk.path(of: name) }
                try walk.enter(name)
                names += 1
                if names == count { _ = try place.shell(script) }
            }
            return nil
        }
        #expect(try found("d/e/f/../../x", movingAfter: 3, "true") == "d/x")
        #expect(try found("d/e/../../../x", movingAfter: 2, "true") == "x")
        // Still in the tree, but elsewhere.
        #expect(throws: LayerError.self) {
            try found("d/e/f/../x", movingAfter: 3, "mv root/d/e/f root/target/f")
        }
        _ = try place.shell("mv root/target/f root/d/e/f")
        // The parent of the directory is outside by then.
        #expect(throws: LayerError.self) {
            try found("d/e/f/../x", movingAfter: 3, "mv root/d/e/f outside/f")
        }
    }
}
