import SystemCalls
import SystemPackage
import TestSupport

/// The path of a program that the package builds beside its tests.
func builtProgram(_ name: String) throws -> String {
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
