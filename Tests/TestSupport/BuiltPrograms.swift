import VarveSystem
import SystemPackage

/// The path of a program that the package builds beside its tests.
package func builtProgram(_ name: String) throws -> String {
    for path in ["/proc/self/exe", CommandLine.arguments[0]] {
        let resolved =
            (try? FileDescriptor.workingDirectory.readSymbolicLink(BytePath(path))) ?? BytePath(path)
        let candidate = resolved.parent.appending(BytePath(name))
        if (try? FileDescriptor.workingDirectory.status(of: candidate)) != nil {
            return candidate.description
        }
    }
    throw TestSupportError("\(name) is not beside the tests; run: swift build --build-tests")
}

/// The path of a file of the repository, which the tests were compiled in.
package func repositoryFile(_ name: String) -> String {
    var path = BytePath(#filePath)
    for _ in 0..<3 { path = path.parent }
    return path.appending(BytePath(name)).description
}
